"""A whole load test: check, run, watch, judge, write. The composition root of the harness."""

from __future__ import annotations

import asyncio
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
from loadtest.exporter import Exporter
from loadtest.result import result_of
from loadtest.server_side import ServerSide
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
    prometheus_at: tuple[str, int]
    headless: bool
    command: str

    def check(self) -> None:
        """A report that can't be written must be known before the test, not after it."""
        for path in filter(None, (self.html, self.json, *self.csv_files())):
            if not path.parent.is_dir():
                raise BadSpec(f"{path}: there is no directory {path.parent}")
            try:
                path.open("a").close()
            except OSError as exc:
                raise BadSpec(f"{path} can't be written: {exc.strerror}") from None

    def csv_files(self) -> list[Path]:
        """The timeline's and the scenarios'; none where they are not asked for."""
        return [Path(f"{self.csv}_{table}.csv") for table in ("timeline", "scenarios")] if self.csv else []


async def load_test(spec: Spec, scenario: Scenario, outputs: Outputs) -> int:
    """Returns the exit code. Raises BadSpec where the test can't begin."""
    server = ServerSide(outputs.metrics)
    await server.check()
    await preflight.check_servers(spec)
    began = datetime.now(UTC)
    slow = frozenset(kind.__name__ for kind in scenario.kinds if kind.read_bytes_s is not None)
    timeline = Timeline(spec.processes, slow)
    view = make_view(spec, outputs.headless)
    async with Exporter(*outputs.prometheus_at, spec.run) as exporter:
        crew = Crew(spec, timeline, [view.update, exporter.update])
        with view:
            await _watched(crew, server)
    speaks = any(actions for actions, _ in scenario.tasks)
    result = result_of(spec, crew, outputs.thresholds, speaks, outputs.command, began, server.result())
    if exporter.missing:
        result["notes"].append(f"{exporter.missing}: no metrics of this run")
    write(result, outputs)
    view.conclude(result)
    return EXIT_CODES[result["verdict"]]


async def _watched(crew: Crew, server: ServerSide) -> None:
    """The run, with the server's metrics beside it."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    watching = asyncio.create_task(server.watch()) if server.targets else None
    try:
        await crew.run()
    finally:
        if watching is not None:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await server.finish(loop.time() - began)


def write(result: dict[str, Any], outputs: Outputs) -> None:
    if outputs.json:
        outputs.json.write_text(json.dumps(result, indent=1), "utf-8")
    if csv_files := outputs.csv_files():
        timeline, scenarios = csv_files
        _write_csv(timeline, result["timeline"])
        rows = [row | row["latency_ms"] for row in result["scenarios"]]
        _write_csv(scenarios, [_without(row, "latency_ms") for row in rows])
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
