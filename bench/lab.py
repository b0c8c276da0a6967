"""Where the rows are measured: starts the servers, drives them, keeps every run, and judges each by one measure."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench import servers
from bench.drive import DRIVER_SHARE_MAX, OTHERS_SHARE_MAX, Run, Work, drive
from bench.machine import BenchError, build, raise_descriptor_limit
from bench.result import Row, figure
from bench.search import Found
from bench.servers import Server

# Descriptors beside the sessions: logs, libraries, the broker's lanes, the listener.
DESCRIPTORS_SPARE = 200
# Wrong however the server is overloaded. Losses are judged apart: a session that was closed was told.
NEVER = ("doubled", "reordered", "foreign", "corrupt")


class Lab:
    """One run of `make bench`. Nothing is shared between rows but the floor's figures for the same work."""

    def __init__(self, directory: Path, seconds: float) -> None:
        self.seconds = seconds
        self.descriptors = raise_descriptor_limit()
        self.settings = servers.node_settings()
        self.runs: list[dict[str, Any]] = []
        self._directory = directory
        self._driver = build("driver", directory)
        self._floor = build("floor", directory)
        self._floor_runs: dict[Work, Run] = {}
        self._floor_searches: dict[Work, tuple[Found, Run | None]] = {}
        self._started = 0

    @contextmanager
    def node(self, shipped_conf: bool = False, settings: Mapping[str, str] | None = None) -> Iterator[Server]:
        """A fresh node on a fresh broker; `settings` of the node as variables."""
        self._started += 1
        directory = self._directory / f"node{self._started}"
        with servers.node(directory, shipped_conf, settings=settings) as server:
            yield server

    @contextmanager
    def floor(self) -> Iterator[Server]:
        """A fresh floor."""
        with servers.floor(self._floor) as server:
            yield server

    def drive(
        self,
        row: Row,
        work: Work,
        server: Server,
        poll: Callable[[], None] | None = None,
        at_event: Callable[[str], None] | None = None,
        before: Callable[[], None] | None = None,
    ) -> Run:
        """A run that counts: anything lost, doubled or cut fails the row; a driver at its limit voids it."""
        run = self._run(row.name, work, server, poll, at_event, before)
        self._judge(row, run)
        return run

    def _judge(self, row: Row, run: Run) -> None:
        row.lost += run.count("lost")
        row.doubled += run.count("doubled")
        row.wrongs += run.wrongs()
        row.driver_share = max(row.driver_share, run.driver_share)
        if not self.driver_is_free(run):
            row.invalid.append(f"the driver used {run.driver_share:.2f} of its core: the figures are its own")
        if self.is_disturbed(run):
            row.invalid.append(f"other programs took {run.others_share():.2f} of a core that was measured")

    def try_rate(self, row: Row, work: Work, server: Server) -> Run | None:
        """A run of a search, which may overload the server; None when it did not even take the sessions.

        What was still on its way when the drain ended, or was owed to a session that was closed, is not lost.
        """
        try:
            run = self._run(row.name, work, server)
        except BenchError as exc:
            say(f"    {exc}")
            return None
        row.doubled += run.count("doubled")
        row.wrongs += [f"{run.count(name)} {name} at {work.rate:,.0f} msg/s" for name in NEVER if run.count(name)]
        if run.count("lost") and not run.count("cut") and not run.count("pending"):
            row.lost += run.count("lost")
            row.wrongs.append(f"{run.count('lost')} lost at {work.rate:,.0f} msg/s, and nobody was told")
        return run

    def on_floor(self, row: Row, work: Work) -> Run:
        """The floor's run of this work, made once: it knows neither compression nor a broker."""
        key = replace(work, deflate=False)
        if key not in self._floor_runs:
            with self.floor() as server:
                self._floor_runs[key] = self._run(row.name, key, server)
        self._judge(row, self._floor_runs[key])
        return self._floor_runs[key]

    def floor_search(self, work: Work, search: Callable[[], tuple[Found, Run | None]]) -> tuple[Found, Run | None]:
        """What `search` finds on the floor, made once per work."""
        if work not in self._floor_searches:
            self._floor_searches[work] = search()
        return self._floor_searches[work]

    def driver_is_free(self, run: Run) -> bool:
        return run.driver_share <= DRIVER_SHARE_MAX

    def is_disturbed(self, run: Run) -> bool:
        """Whether something else had a share of the cores: a latency then says nothing of the server."""
        return run.others_share() > OTHERS_SHARE_MAX

    def _run(
        self,
        name: str,
        work: Work,
        server: Server,
        poll: Callable[[], None] | None = None,
        at_event: Callable[[str], None] | None = None,
        before: Callable[[], None] | None = None,
    ) -> Run:
        if work.sessions + DESCRIPTORS_SPARE > self.descriptors:
            raise BenchError(
                f"{work.sessions:,} sessions need as many descriptors and {DESCRIPTORS_SPARE} more, and the hard "
                f"limit is {self.descriptors:,}: raise it with `ulimit -Hn`"
            )
        run = drive(self._driver, work, server, poll, at_event, before)
        target = "node" if "broker" in server.pids else "floor"
        costs = {f"{key}_us_per_delivery": run.us_per_delivery(key) for key in server.pids}
        shares = {"others_share": run.others_share()}
        self.runs.append({"row": name, "target": target, "work": asdict(work), **costs, **shares, **run.result})
        say(f"    {target}: {_in_words(work, run)}")
        return run


def _in_words(work: Work, run: Run) -> str:
    parts = [f"{work.rooms:,} × {work.members:,} at {work.rate:,.0f} msg/s"]
    if run.count("delivered"):
        costs = [f"{key} {figure(run.us_per_delivery(key))} µs" for key in run.readings["joined"] if key != "driver"]
        parts += [*costs, f"p50 {figure(run.latency_ms('p50'))} p99 {figure(run.latency_ms('p99'))} ms"]
    parts.append(f"driver {run.driver_share:.2f}, others {run.others_share():.2f}")
    return ", ".join(parts + run.wrongs())


def say(text: str) -> None:
    """Progress, for whoever waits."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - the bench is a command
