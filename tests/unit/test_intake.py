"""A bug of ours while a client is served ends that client with 1011, is logged once, and nobody else notices."""

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.clock import Clock
from gateway.config import Settings
from gateway.core.closes import Close
from gateway.core.inbound import Frame
from gateway.core.wires import PLAIN
from gateway.edge.context import Context
from gateway.edge.intake import Intake
from gateway.metrics import Metrics


class Buggy:
    """As much of a connection as its intake knows."""

    def __init__(self) -> None:
        self.id = "s"
        self.wire = PLAIN
        self.opened_at = time.monotonic()
        self.in_flight = 0
        self.closing: Close | None = None

    def waiting_bytes(self) -> int:
        return 0

    def hear(self, frame: Frame) -> None:
        raise ZeroDivisionError("a bug")

    def end(self, close: Close, text: str | None = None) -> None:
        self.closing = close


def test_a_bug_ends_its_client_alone(capsys: pytest.CaptureFixture[str]) -> None:
    broker = SimpleNamespace(publisher=SimpleNamespace(full=lambda session: False))
    hub, keep = cast(Any, None), cast(Any, None)
    context = Context("n", Settings(), cast(Any, broker), hub, Clock(), Metrics(), keep)
    connection = Buggy()
    Intake(cast(Any, connection), context).take(b"\x81\x80\0\0\0\0" * 2)
    assert connection.closing is Close.ERROR
    assert capsys.readouterr().out.count("ZeroDivisionError: a bug") == 1
