"""`python -m bench.people [--presence] [--rounds N]`: what it costs that people have names and rights, against nobody
saying who they are; with --presence, that somebody in each room asks who is there, against that one only listening.

The work of rows 1, 3, 8 and 10; in each round once without and once with, right behind each other, so that a machine
whose speed changes says the same of both. The ratio is the median of the rounds'.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from bench import servers
from bench.drive import Run, Work
from bench.lab import Lab, say
from bench.machine import BenchError, require_cores
from bench.result import Row, figure
from bench.rows import IDLE, MANY_ROOMS, ONE_ROOM, STORM
from bench.table import aligned
from bench.tokens import People

HEAD = ("row", "work", "what", "without", "with", "ratio of each round", "median")
# What a run is judged by, and how that is called.
Figures = Callable[[Run, Work], Mapping[str, float]]
# How a work is done, of the two that are compared.
Way = Callable[[Row, Work], Run]


def _delivering(run: Run, work: Work) -> Mapping[str, float]:
    return {"node µs per delivery": run.us_per_delivery("node"), "broker µs": run.us_per_delivery("broker")}


def _idling(run: Run, work: Work) -> Mapping[str, float]:
    kib = (run.memory_bytes("done") - run.memory_bytes("connecting")) / work.sessions / 1024
    return {"KiB per connection": kib, "µs/s per connection": run.cpu_s("node") / run.span_s() / work.sessions * 1e6}


def _connecting(run: Run, work: Work) -> Mapping[str, float]:
    return {"µs per handshake": run.cpu_s("node", "connecting", "joined") / work.sessions * 1e6}


ROWS: Mapping[str, tuple[str, Work, Figures]] = {
    "1": ("1 room × 500, 100 msg/s", ONE_ROOM, _delivering),
    "3": ("200 × 5, 2,000 msg/s", MANY_ROOMS, _delivering),
    "8": ("5,000 idle connections", IDLE, _idling),
    "10": ("3,000 connect into 100 rooms", STORM, _connecting),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line for each figure."""
    parser = argparse.ArgumentParser(prog="python -m bench.people", description="What names and rights cost.")
    parser.add_argument("--rows", default=",".join(ROWS), help="which of 1,3,8,10 (all)")
    parser.add_argument("--presence", action="store_true", help="what it costs that somebody asks who is there")
    parser.add_argument("--rounds", type=int, default=3, help="of each (3)")
    parser.add_argument("--seconds", type=float, default=8.0, help="the measured window of a run (8)")
    options = parser.parse_args(argv)
    try:
        require_cores()
        with tempfile.TemporaryDirectory(prefix="hiroba-people-") as directory:
            lab, people = Lab(Path(directory), options.seconds), People(Path(directory))
            pair = (_seen(lab, people, False), _seen(lab, people, True)) if options.presence else _known(lab, people)
            lines = [line for name in options.rows.split(",") for line in _lines(lab, name, pair, options.rounds)]
    except BenchError as exc:
        say(f"people: {exc}")
        return 1
    sys.stdout.write(aligned([HEAD, *lines]))
    return 0


def _lines(lab: Lab, name: str, pair: tuple[Way, Way], rounds: int) -> list[tuple[str, ...]]:
    text, work, figures = ROWS[name]
    if work.rate:
        work = replace(work, seconds=lab.seconds)
    without: list[Mapping[str, float]] = []
    with_it: list[Mapping[str, float]] = []
    for _ in range(rounds):
        for way, found in zip(pair, (without, with_it), strict=True):
            row = Row(name, text)
            found.append(figures(way(row, work), work))
            if row.wrongs:
                raise BenchError(f"row {name}: {', '.join(row.wrongs)}")
    return [
        _line((name, text, what), [each[what] for each in without], [each[what] for each in with_it])
        for what in without[0]
    ]


def _known(lab: Lab, people: People) -> tuple[Way, Way]:
    """Nobody says who they are; everybody does."""

    def nobody(row: Row, work: Work) -> Run:
        with lab.node() as server:
            return lab.drive(row, work, server)

    def everybody(row: Row, work: Work) -> Run:
        with lab.node(settings=people.environment) as server:
            return lab.drive(row, replace(work, tokens=str(people.tokens(work.sessions))), server)

    return nobody, everybody


def _seen(lab: Lab, people: People, presence: bool) -> Way:
    """Everybody says who they are, and one more is in all rooms, who asks for presence or does not."""

    def way(row: Row, work: Work) -> Run:
        with lab.node(settings=people.environment) as server, ExitStack() as stack:

            def before() -> None:
                token = people.token(work.sessions)
                stack.enter_context(servers.company(server, work.rooms, token, presence))

            with_tokens = replace(work, tokens=str(people.tokens(work.sessions)))
            return lab.drive(row, with_tokens, server, before=before)

    return way


def _line(named: tuple[str, ...], without: list[float], with_it: list[float]) -> tuple[str, ...]:
    ratios = [b / a for a, b in zip(without, with_it, strict=True)]
    told = figure(statistics.median(without)), figure(statistics.median(with_it))
    return *named, *told, ", ".join(f"{ratio:.2f}" for ratio in ratios), f"{statistics.median(ratios):.2f}"


if __name__ == "__main__":
    sys.exit(main())
