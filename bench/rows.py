"""The rows of the table: each one's work, how it is measured, and what it must reach. Read it top to bottom."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace

from bench import servers
from bench.drive import Run, Work
from bench.lab import Lab
from bench.machine import memory_of
from bench.result import Bar, Row, figure, p99_bar
from bench.search import Found, Outcome, highest
from bench.servers import Server

P99_LIMIT_MS = 100.0  # of the rows that look for the highest rate
TRIAL_S = 4.0
DISTURBED_TRIES = 3  # what breaks beside other programs may hold alone

ONE_ROOM = Work(members=500, rate=100)
MANY_ROOMS = Work(rooms=200, members=5, rate=2000)
IDLE = Work(rooms=100, members=50, seconds=20.0, warm=5.0)
STORM = Work(rooms=100, members=30, inflight=1000, seconds=0)


@dataclass(frozen=True)
class Spec:
    """A line of the table before it is measured."""

    name: str
    work: str
    measure: Callable[[Lab, Row], None]

    @property
    def number(self) -> str:
        return self.name.rstrip("zv")


def select(names: str) -> list[Spec]:
    """`1,3z,8`: a number stands for all its variants. Raises KeyError with what is unknown."""
    if not names:
        return ROWS
    wanted = [name.strip() for name in names.split(",")]
    known = {spec.name for spec in ROWS} | {spec.number for spec in ROWS}
    for name in wanted:
        if name not in known:
            raise KeyError(name)
    return [spec for spec in ROWS if spec.name in wanted or spec.number in wanted]


# ---- one room, many rooms -------------------------------------------------------------------------------------


def _steady(
    work: Work, p99_ms: float, multiple: float | None = None, broker_us: float | None = None, conf: bool = False
) -> Callable[[Lab, Row], None]:
    """CPU per delivery and latency of node and floor on the same work."""

    def measure(lab: Lab, row: Row) -> None:
        timed = replace(work, seconds=lab.seconds)
        floor = lab.on_floor(row, timed)
        with lab.node(shipped_conf=conf) as server:
            run = lab.drive(row, timed, server)
        _fill(row, run, floor)
        if multiple is not None and row.multiple is not None:
            row.bars.append(Bar("node", row.multiple, multiple, " × floor"))
        if broker_us is not None and row.broker_us is not None:
            row.bars.append(Bar("broker", row.broker_us, broker_us, " µs"))
        row.bars.append(p99_bar(run.latency_ms("p99"), p99_ms, floor.latency_ms("p99")))

    return measure


def _fill(row: Row, run: Run, floor: Run | None) -> None:
    row.node_us, row.broker_us = run.us_per_delivery("node"), run.us_per_delivery("broker")
    row.p50_ms, row.p99_ms = run.latency_ms("p50"), run.latency_ms("p99")
    if floor:
        row.floor_us, row.floor_p99_ms = floor.us_per_delivery("node"), floor.latency_ms("p99")


def _highest(
    work: Work, reach: float, guess: float, floor_guess: float, conf: bool = False
) -> Callable[[Lab, Row], None]:
    """The highest rate with p99 ≤ 100 ms at which every delivery arrived, on node and floor."""

    def measure(lab: Lab, row: Row) -> None:
        found, best = _search(lab, row, work, guess, lambda: lab.node(shipped_conf=conf))
        floor, floor_best = lab.floor_search(work, lambda: _search(lab, row, work, floor_guess, lab.floor))
        if best:
            _fill(row, best, floor_best)
            row.driver_share = best.driver_share
        bound = "≥ " if found.limit == "driver" else ""
        per_s = found.rate * work.members
        row.figure = f"{bound}{figure(found.rate)} msg/s = {per_s / 1e6:.2f} M/s; floor {figure(floor.rate)}"
        row.bars.append(Bar("rate", found.rate, reach, " msg/s", at_least=True))
        if found.limit == "driver":
            row.notes.append("the driver was at its limit above this rate: the server's is higher")

    return measure


def _search(
    lab: Lab, row: Row, work: Work, guess: float, start: Callable[[], AbstractContextManager[Server]]
) -> tuple[Found, Run | None]:
    best: dict[float, Run] = {}

    def once(rate: float) -> Run | None:
        with start() as server:  # a fresh one: what broke may still be busy with what it was sent
            return lab.try_rate(row, work.at(rate, seconds=TRIAL_S, warm=1.0, settle=0.5, drain=2.0), server)

    def trial(rate: float) -> Outcome:
        for _ in range(DISTURBED_TRIES):
            run = once(rate)
            if run is None:
                return "broke"
            if not run.wrongs() and run.latency_ms("p99") <= P99_LIMIT_MS:
                best[rate] = run
                return "held" if lab.driver_is_free(run) else "driver"
            if not lab.is_disturbed(run):
                return "broke" if lab.driver_is_free(run) else "driver"
        row.notes.append(f"other programs had a share of the cores whenever {rate:,.0f} msg/s broke")
        return "broke"

    found = highest(trial, guess)
    return found, best.get(found.rate)


# ---- more rooms than anyone speaks in ---------------------------------------------------------------------------


def _ten_thousand_rooms(lab: Lab, row: Row) -> None:
    """Broker CPU per message must not grow with the number of rooms. Everyone speaks once while it warms up."""
    costs = []
    few = MANY_ROOMS.at(1000, seconds=lab.seconds)
    many = Work(rooms=10_000, members=1, rate=1000, seconds=max(10.0, lab.seconds), warm=11.0)
    for work in (few, many):
        with lab.node() as server:
            run = lab.drive(row, work, server)
        costs.append(run.cpu_s("broker") / (work.rate * run.span_s()) * 1e6)
    _fill(row, run, None)
    row.figure = f"broker {figure(costs[1])} µs/message; 200 × 5: {figure(costs[0])}"
    row.bars.append(Bar("broker", costs[1] / costs[0], 1.5, " × that of 200 × 5"))


# ---- two people ---------------------------------------------------------------------------------------------------


def _two_people(lab: Lab, row: Row) -> None:
    """Nobody waits for a gather while the node is idle."""
    work = Work(members=2, rate=10, seconds=max(20.0, lab.seconds))
    floor = lab.on_floor(row, work)
    with lab.node() as server:
        run = lab.drive(row, work, server)
    _fill(row, run, floor)
    row.node_us = row.floor_us = row.broker_us = None  # 20 deliveries a second: all of it is keeping alive
    row.bars += [
        Bar("p50", run.latency_ms("p50"), 1.0, " ms"),
        p99_bar(run.latency_ms("p99"), 3.0, floor.latency_ms("p99")),
    ]


# ---- connections --------------------------------------------------------------------------------------------------


def _idle(deflate: bool) -> Callable[[Lab, Row], None]:
    """What a connection holds, and what it costs to keep, while nobody speaks."""
    work = replace(IDLE, deflate=deflate)

    def measure(lab: Lab, row: Row) -> None:
        with lab.node() as server:
            run = lab.drive(row, work, server)
        kib = (run.memory_bytes("done") - run.memory_bytes("connecting")) / work.sessions / 1024
        cpu_us = run.cpu_s("node") / run.span_s() / work.sessions * 1e6
        row.figure = f"{figure(kib)} KiB, {figure(cpu_us)} µs/s each"
        row.bars += [Bar("memory", kib, 16.0, " KiB"), Bar("CPU", cpu_us, 10.0, " µs/s")]

    return measure


def _storm(lab: Lab, row: Row) -> None:
    """3,000 handshakes as fast as they come."""
    work = STORM
    with lab.floor() as server:
        floor = lab.drive(row, work, server)
    with lab.node() as server:
        held: list[int] = []
        run = lab.drive(row, work, server, at_event=lambda _: held.append(server.broker_connections()))
    each_us = run.cpu_s("node", "connecting", "joined") / work.sessions * 1e6
    floor_us = floor.cpu_s("node", "connecting", "joined") / work.sessions * 1e6
    took_s = run.span_s("connecting", "joined")
    row.figure = (
        f"{figure(each_us)} µs each (floor {figure(floor_us)}), {took_s:.2f} s; "
        f"broker connections {held[0]} → {max(held)}"
    )
    row.bars += [Bar("CPU", each_us, 400.0, " µs each"), Bar("more broker connections", max(held) - held[0], 0)]


# ---- people who do not read, people who come and go -----------------------------------------------------------------


@dataclass
class _Watch:
    """Asks the node about once a second while the driver speaks."""

    server: Server
    behind: float = 0.0
    memory_bytes: int = 0

    def __call__(self) -> None:
        behind = self.server.metrics()["hiroba_sessions_behind"]
        self.behind = max(self.behind, behind)
        self.memory_bytes = max(self.memory_bytes, memory_of(self.server.pids["node"]))


def _stalled(lab: Lab, row: Row) -> None:
    """5 of 60 do not read for 20 s, then they do: they get everything, nobody else notices, memory stays."""
    work = Work(members=55, rate=50, bytes=16_384, seconds=20.0)
    with_stalled = work.at(50, members=60, stalled=5, receive_bytes=4096)
    runs, growths, behind = [], [], 0.0
    for each in (work, with_stalled):
        with lab.node() as server:
            watch = _Watch(server)
            run = lab.drive(row, each, server, poll=watch)
        runs.append(run)
        growths.append(max(watch.memory_bytes, run.memory_bytes("done")) - run.memory_bytes("joined"))
        behind = watch.behind
    _fill(row, runs[1], None)
    outgoing_bytes_max = lab.settings.number("outgoing_bytes_max")
    grown, ratio = growths[1] - growths[0], runs[1].latency_ms("p99") / runs[0].latency_ms("p99")
    row.figure = f"{behind:g} seen behind; memory {grown / 2**20:+.2f} MiB; p99 × {ratio:.2f}"
    row.bars += [
        Bar("behind", behind, 5, at_least=True),
        Bar("memory", grown / outgoing_bytes_max, 5.0, " × outgoing bound"),
        Bar("p99", ratio, 1.2, " × without them"),
    ]


# ---- compression ----------------------------------------------------------------------------------------------------


def _compressing(lab: Lab, row: Row) -> None:
    """500 sessions that compress against 500 that do not, at 1 KB."""
    costs = []
    for deflate in (False, True):
        work = ONE_ROOM.at(100, bytes=1024, deflate=deflate, seconds=lab.seconds)
        with lab.node() as server:
            run = lab.drive(row, work, server)
        costs.append(run.us_per_delivery("node"))
    _fill(row, run, None)
    row.figure = f"{figure(costs[1])} µs compressed, {figure(costs[0])} plain"
    row.bars.append(Bar("node", costs[1] / costs[0], 1.2, " × plain"))


# ---- lists of rooms -------------------------------------------------------------------------------------------------

_WATCHERS = 500


def _watched(lab: Lab, row: Row) -> None:
    """500 connections watch every room while others talk in them."""
    work = MANY_ROOMS.at(2000, seconds=lab.seconds)
    with lab.node() as server:
        alone = lab.drive(row, work, server)
    with lab.node() as server, ExitStack() as stack:
        ends: list[Callable[[], int]] = []

        def at_event(name: str) -> None:
            if name == "joined":
                ends.append(stack.enter_context(servers.watchers(server, work.rooms, _WATCHERS)))

        watched = lab.drive(row, work, server, at_event=at_event)
        tops = ends[0]()
    _fill(row, watched, None)
    each_per_s = tops / _WATCHERS / (work.warm + work.seconds)
    ratio = watched.cpu_s("node") / alone.cpu_s("node")
    row.figure = (
        f"{figure(watched.us_per_delivery('node'))} µs watched, {figure(alone.us_per_delivery('node'))} not; "
        f"{each_per_s:.2f} tops/s each"
    )
    row.bars.append(Bar("node", ratio, 1.3, " × unwatched"))


_CHURN = Work(members=500, rate=200, churn=50)
_LARGE = Work(members=2000, rate=50)
_DEFLATE = ONE_ROOM.at(100, deflate=True)

ROWS = [
    Spec("1", "1 room × 500, 100 msg/s", _steady(ONE_ROOM, 8.0, multiple=1.6)),
    Spec("1z", "… deflate offered", _steady(_DEFLATE, 8.0, multiple=1.6)),
    Spec("1v", "… valkey.conf", _steady(ONE_ROOM, 8.0, multiple=1.6, conf=True)),
    Spec("2", "1 × 500, highest rate", _highest(ONE_ROOM, 8_000, 4_000, 150)),
    Spec("2v", "… valkey.conf", _highest(ONE_ROOM, 8_000, 4_000, 150, conf=True)),
    Spec("3", "200 × 5, 2,000 msg/s", _steady(MANY_ROOMS, 8.0, multiple=2.7, broker_us=11.0)),
    Spec("3v", "… valkey.conf", _steady(MANY_ROOMS, 8.0, multiple=2.7, broker_us=11.0, conf=True)),
    Spec("4", "200 × 5, highest rate", _highest(MANY_ROOMS, 24_000, 8_000, 8_000)),
    Spec("4v", "… valkey.conf", _highest(MANY_ROOMS, 24_000, 8_000, 8_000, conf=True)),
    Spec("5", "1 × 2,000, 50 msg/s", _steady(_LARGE, 60.0)),
    Spec("6", "10,000 × 1, 1,000 msg/s", _ten_thousand_rooms),
    Spec("7", "1 × 2, 10 msg/s", _two_people),
    Spec("8", "5,000 idle sessions", _idle(deflate=False)),
    Spec("8z", "… deflate offered", _idle(deflate=True)),
    Spec("9", "5 of 60 stalled, 16 KB × 50/s", _stalled),
    Spec("10", "3,000 connect into 100 rooms", _storm),
    Spec("11", "500, 50 leave and return each s, 200 msg/s", _steady(_CHURN, 5.0)),
    Spec("12", "1 × 500, 1 KB, 100 msg/s, compressing", _compressing),
    Spec("13", "200 × 5, 2,000 msg/s, 500 watch all 200 rooms", _watched),
]
