"""Labelled counters show every value from the start. How they are named is test_metrics.py's."""

import ast
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from gateway.edge import door, sse, ws
from gateway.telemetry.metrics import Metrics, registry


def test_a_known_label_is_there_before_it_is_counted() -> None:
    """rate() needs the 0: a counter that appears with 1 never rose."""
    metrics = Metrics()
    metrics.known("closes", ["slow"])
    text = generate_latest(registry(metrics, (), {})).decode()
    assert 'hiroba_closes_total{reason="slow"} 0.0' in text


@pytest.mark.parametrize("module", [door, ws, sse])
def test_every_reason_to_refuse_a_handshake_is_known_from_the_start(module: Any) -> None:
    source = ast.parse(Path(str(module.__file__)).read_text("utf-8"))
    calls = [node for node in ast.walk(source) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    places = {"Refused": 1, "busy": 0}
    labels = {call.args[places[call.func.id]] for call in calls if call.func.id in places}  # type: ignore[attr-defined]
    assert {label.value for label in labels if isinstance(label, ast.Constant)} == set(module.REASONS)
