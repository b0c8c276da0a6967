"""A whole load test: check, run, watch, judge, write. The composition root of the harness."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadtest import preflight
from loadtest.catalog import Scenario
from loadtest.crew import Crew
from loadtest.result import result_of
from loadtest.spec import BadSpec, Spec
from loadtest.thresholds import Threshold
from loadtest.timeline import Timeline
from loadtest.verdict import EXIT_CODES
from loadtest.view import make_view


@dataclass
class Outputs:
    """Where the results go."""

    thresholds: Sequence[Threshold]
    html: Path | None
    json: Path | None
    csv: str | None
    metrics: Sequence[str]
    prometheus_port: int
    headless: bool
    command: str

    def check(self) -> None:
        """A report that can't be written must be known before the test, not after it."""
        for path in filter(None, (self.html, self.json, Path(self.csv) if self.csv else None)):
            if not path.parent.is_dir():
                raise BadSpec(f"{path}: there is no directory {path.parent}")
            if path.is_dir():
                raise BadSpec(f"{path} is a directory")


async def load_test(spec: Spec, scenario: Scenario, outputs: Outputs) -> int:
    """Returns the exit code. Raises BadSpec where the test can't begin."""
    await preflight.check_servers(spec)
    began = datetime.now(UTC)
    slow = frozenset(kind.__name__ for kind in scenario.kinds if kind.read_bytes_s is not None)
    timeline = Timeline(spec.processes, slow)
    with make_view(spec, outputs.headless) as view:
        crew = Crew(spec, timeline, view.update)
        await crew.run()
    speaks = any(actions for actions, _ in scenario.tasks)
    result = result_of(spec, crew, outputs.thresholds, speaks, outputs.command, began, None)
    write(result, outputs)
    view.conclude(result)
    return EXIT_CODES[result["verdict"]]


def write(result: dict[str, Any], outputs: Outputs) -> None:
    if outputs.json:
        outputs.json.write_text(json.dumps(result, indent=1), "utf-8")
    if outputs.csv:
        _write_csv(Path(f"{outputs.csv}_timeline.csv"), result["timeline"])
        rows = [row | row["latency_ms"] for row in result["scenarios"]]
        _write_csv(Path(f"{outputs.csv}_scenarios.csv"), [_without(row, "latency_ms") for row in rows])
    if outputs.html:
        from loadtest.page import render

        outputs.html.write_text(render(result), "utf-8")


def _without(row: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != name}


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        if rows:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
