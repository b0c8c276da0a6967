"""What a person sees while the test runs, and the verdict at its end: live, or lines when headless."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from loadtest.spec import Spec
from loadtest.timeline import Second, Timeline

LINE_EVERY_S = 5
COLOURS = {"met": "green", "failed": "red", "invalid": "yellow"}


class View(Protocol):
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def update(self, timeline: Timeline) -> None: ...
    def conclude(self, result: dict[str, Any]) -> None: ...


def make_view(spec: Spec, headless: bool) -> View:
    return Lines(spec) if headless else Screen(spec)


class Lines:
    """A line every five seconds: what a CI log can hold."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec

    def __enter__(self) -> Self:
        where = ", ".join(endpoint.url for endpoint in self._spec.endpoints)
        print(
            f"run {self._spec.run}: {self._spec.users:,} users, {len(self._spec.rooms):,} rooms, {where}",
            flush=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def update(self, timeline: Timeline) -> None:
        now = timeline.seconds[-1]
        if now.second % LINE_EVERY_S == 0:
            print(
                f"{now.second:>5} s  {now.users:,} users  {now.sent_per_s:,.0f} sent/s"
                f"  {now.delivered_per_s:,.0f} delivered/s"
                f"  p50 {_ms(now.p50_ms)}  p95 {_ms(now.p95_ms)}  p99 {_ms(now.p99_ms)}"
                f"  suspects {now.suspects:,}  own CPU {now.cpu_share:.0%}",
                flush=True,
            )

    def conclude(self, result: dict[str, Any]) -> None:
        conclude(result, Console(highlight=False, soft_wrap=True))


class Screen:
    """The live view of a terminal."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._console = Console(highlight=False)
        self._live = Live(console=self._console, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.__enter__()
        self._live.update(Text(f"run {self._spec.run}: starting {self._spec.users:,} users …"), refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, exc, trace)

    def update(self, timeline: Timeline) -> None:
        self._live.update(self._panel(timeline.seconds[-1]), refresh=True)

    def conclude(self, result: dict[str, Any]) -> None:
        conclude(result, self._console)

    def _panel(self, now: Second) -> Panel:
        table = Table.grid(padding=(0, 3))
        for name, value in (
            ("users", f"{now.users:,} of {now.users_planned:,}"),
            ("sent", f"{now.sent_per_s:,.0f}/s"),
            ("delivered", f"{now.delivered_per_s:,.0f}/s"),
            ("p50 · p95 · p99", f"{_ms(now.p50_ms)} · {_ms(now.p95_ms)} · {_ms(now.p99_ms)}"),
            ("suspect deliveries", Text(f"{now.suspects:,}", "red" if now.suspects else "green")),
            ("own CPU", Text(f"{now.cpu_share:.0%} of a core", "red" if now.cpu_share > 0.9 else "")),
        ):
            table.add_row(Text(name, "dim"), value)
        total = self._spec.duration_s
        state = "settling" if now.settling else f"{now.second} s" + (f" of {total:g} s" if total else "")
        # In a grid, because a bar by itself does not end its line.
        bar = Table.grid()
        progress = ProgressBar(total=total or 1.0, completed=min(now.second, total or 0.0), width=60)
        bar.add_row(progress)
        where = ", ".join(endpoint.url for endpoint in self._spec.endpoints)
        return Panel(Group(Text(where, "dim"), bar, Text(state), table), title=f"load test {self._spec.run}", width=70)


def conclude(result: dict[str, Any], console: Console) -> None:
    """The verdict first; then the figures that it stands on."""
    colour = COLOURS[result["verdict"]]
    console.print(Text(result["headline"], f"bold {colour}"))
    console.print(Text(f"model   {result['model']}"))
    counts, latency, service = result["counts"], result["latency_ms"], result["service_ms"]
    words = ("sent", "expected", "delivered", "lost", "doubled", "reordered", "foreign", "gaps")
    console.print(Text("counts  " + "  ".join(f"{word} {counts[word]:,}" for word in words)))
    for name, times in (("latency", latency), ("service", service)):
        steps = ("p50", "p90", "p99", "p999", "p9999", "max")
        console.print(Text(f"{name} " + "  ".join(f"{step} {_ms(times[step])}" for step in steps)))
    for row in result["returns"]:
        asked = f", {row['asked']:,} asked to; overdue max {_ms(row['overdue_ms']['max'])}" if row["asked"] else ""
        away = f"away p50 {_ms(row['away_ms']['p50'])}  max {_ms(row['away_ms']['max'])}"
        console.print(Text(f"back    after {row['code']}: {row['returned']:,} users  {away}{asked}"))
    generator = result["generator"]
    console.print(
        Text(f"own     CPU {generator['cpu_share']:.0%} of a core, lag p99 {_ms(generator['lag_ms']['p99'])}")
    )
    for note in result["notes"]:
        console.print(Text(f"note    {note}"))


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:,.1f} ms"
