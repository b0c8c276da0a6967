"""The command line: `loadtest run …`, `loadtest report FILE.json`. Reads options, returns exit codes."""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import SystemRandom

from loadtest import catalog, plan, preflight
from loadtest.run import Outputs, load_test
from loadtest.scenarios import BUILT_IN
from loadtest.shapes import SHAPES
from loadtest.spec import BadSpec, Spec, read_duration, read_endpoint
from loadtest.thresholds import read_threshold
from loadtest.verdict import EXIT_ERROR
from loadtest.wires import WIRES

EPILOG = "Exit codes: 0 met, 1 error, 98 invalid run, 99 failed (something lost, or a --fail-if)."


def main(argv: list[str]) -> int:
    """Run the command; never raises for what a user can get wrong."""
    args = _parser().parse_args(argv)
    try:
        return int(args.command(args, argv))
    except (BadSpec, plan.BadPlan) as exc:
        print(f"loadtest: {exc}", file=sys.stderr)
        return EXIT_ERROR


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="loadtest", description=__doc__, epilog=EPILOG)
    commands = parser.add_subparsers(required=True, metavar="run | report")
    run = commands.add_parser("run", help="put load on a chat server and say what became of it", epilog=EPILOG)
    run.set_defaults(command=_run)
    _add_load(run)
    _add_outputs(run)
    report = commands.add_parser("report", help="write the HTML report of a raw result again")
    report.set_defaults(command=_report)
    report.add_argument("file", type=Path, help="what --json wrote")
    report.add_argument("--html", type=Path, metavar="F", help="where to (default: next to it)")
    return parser


def _add_load(run: argparse.ArgumentParser) -> None:
    add = run.add_argument
    add("classes", nargs="*", metavar="UserClass", help="only these user classes of the scenarios")
    add("-f", "--file", action="append", default=[], metavar="SCENARIO",
        help=f"a scenario file, or one of {', '.join(BUILT_IN)} (default chatter); repeatable")  # fmt: skip
    add("-H", "--host", "--url", dest="urls", action="append", default=[], metavar="URL",
        help="ws://host:8000, or a template with {room}; several for several nodes")  # fmt: skip
    add("-u", "--users", type=int, default=10, metavar="N", help="users at the most (default 10)")
    add("--rooms", type=int, metavar="R", help="rooms (default: as many as the scenario's room size asks for)")
    add("--rooms-per-connection", type=int, metavar="N",
        help="each user is in N rooms over one connection to /ws/, joined by frames (--wire v1)")  # fmt: skip
    add(
        "-r",
        "--spawn-rate",
        type=float,
        metavar="S",
        help="users started per second (default: all within 5 s)",
    )
    add("--rate", type=float, metavar="MSG_PER_S",
        help="messages per second of all users together (open model); without it users wait in turn")  # fmt: skip
    add("-t", "--run-time", "--duration", dest="run_time", metavar="T", help="90, 90s, 10m (default 60s)")
    add("--shape", default="", metavar="SHAPE", help=f"{', '.join(SHAPES)}; with options: steps:count=4")
    add("--processes", type=int, default=1, metavar="P", help="worker processes (-1: one per core)")
    add("--wire", choices=sorted(WIRES), default="plain")
    add("--seed", type=int, metavar="N", help="the same seed plans the same run")
    add("--tags", nargs="+", default=[], metavar="TAG", help="only tasks with one of these tags")
    add("--exclude-tags", nargs="+", default=[], metavar="TAG")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="a class attribute: every_s=5")
    add("--message-bytes", type=int, default=128, metavar="B", help="length of a message's text (default 128)")
    add(
        "--settle",
        default="5s",
        metavar="T",
        help="patience at the end with what is still missing (default 5s)",
    )
    add("--insecure", action="store_true", help="accept any TLS certificate")
    add("--token-key", type=Path, metavar="FILE",
        help="give each user a token, signed by this: a secret of HS256, or a private key in PEM")  # fmt: skip
    add("--token-claim", action="append", default=[], metavar="NAME=VALUE",
        help="a claim that all tokens have: aud=hiroba, iss=…; repeatable")  # fmt: skip


def _add_outputs(run: argparse.ArgumentParser) -> None:
    add = run.add_argument
    add(
        "--fail-if",
        action="append",
        default=[],
        metavar="CONDITION",
        help="'p99 > 200ms', 'lost > 0'; repeatable",
    )
    add("--html", type=Path, metavar="F", help="the report, one self-contained file")
    add("--json", type=Path, metavar="F", help="the raw result")
    add("--csv", metavar="PREFIX", help="PREFIX_timeline.csv and PREFIX_scenarios.csv")
    add("--metrics", action="append", default=[], metavar="URL",
        help="a node's (or redis-exporter's) /metrics, scraped while the test runs; repeatable")  # fmt: skip
    add("--prometheus-port", type=int, default=9089, metavar="P",
        help="the run's own metrics (default 9089; 0: none)")  # fmt: skip
    add("--prometheus-host", default="127.0.0.1", metavar="A",
        help="the address they are shown at (default 127.0.0.1)")  # fmt: skip
    add("--headless", action="store_true", help="lines instead of the live view")


def _run(args: argparse.Namespace, argv: Sequence[str]) -> int:
    spec = _spec(args)
    outputs = Outputs(
        thresholds=[read_threshold(text) for text in args.fail_if],
        html=args.html,
        json=args.json,
        csv=args.csv,
        metrics=args.metrics,
        prometheus_at=(args.prometheus_host, args.prometheus_port),
        headless=args.headless or not sys.stdout.isatty(),
        command=f"loadtest {shlex.join(argv)}",
    )
    outputs.check()
    scenario = catalog.load(spec)
    return asyncio.run(load_test(spec, scenario, outputs))


def _report(args: argparse.Namespace, argv: Sequence[str]) -> int:
    from loadtest.page import write_again

    target = write_again(args.file, args.html)
    print(f"report: {target}")
    return 0


def _spec(args: argparse.Namespace) -> Spec:
    if not args.urls:
        raise BadSpec("which server? Give its address with -H, for example -H ws://127.0.0.1:8000")
    _check_numbers(args)
    processes = args.processes if args.processes > 0 else len(os.sched_getaffinity(0))
    run = secrets.token_hex(3)
    draft = Spec(
        run=run,
        endpoints=(),
        wire=args.wire,
        users=args.users,
        rooms=(),
        rooms_per_connection=args.rooms_per_connection,
        spawn_rate=args.spawn_rate or max(1.0, args.users / 5),
        rate=args.rate,
        duration_s=None,
        processes=min(processes, args.users),
        seed=args.seed if args.seed is not None else SystemRandom().randrange(1_000_000),
        sources=tuple(args.file or ["chatter"]),
        classes=tuple(args.classes),
        tags=tuple(args.tags),
        exclude_tags=tuple(args.exclude_tags),
        set=tuple(_assignment(text) for text in args.set),
        shape=args.shape,
        message_bytes=args.message_bytes,
        settle_s=read_duration(args.settle),
        insecure=args.insecure,
        token_key=args.token_key,
        token_claims=tuple(_assignment(text, "--token-claim") for text in args.token_claim),
    )
    return _completed(draft, args)


def _completed(draft: Spec, args: argparse.Namespace) -> Spec:
    """What depends on the scenario: its rooms, its own shape, the number of users that this makes."""
    scenario = catalog.load(draft)
    own_shape = scenario.shape is not None and not draft.shape
    if not own_shape:
        # Before the plan of a million users is made.
        preflight.check_descriptors(draft.users, draft.processes)
    duration_s = read_duration(args.run_time) if args.run_time else None if own_shape else 60.0
    spec = replace(draft, duration_s=duration_s)
    try:
        peak = plan.population(catalog.shape_of(spec, scenario.shape), duration_s).size
    except (BadSpec, plan.BadPlan):
        raise
    except Exception as exc:
        raise BadSpec(f"the shape's tick fails: {type(exc).__name__}: {exc}") from exc
    if peak == 0:
        raise BadSpec("the shape has no users at any time")
    if peak < draft.users and not own_shape:
        raise BadSpec(f"only {peak:,} of {draft.users:,} users would ever be there: raise --spawn-rate or --run-time")
    size = max((kind.room_size or peak for kind in scenario.kinds), default=peak)
    each = draft.rooms_each
    rooms = args.rooms or max(each, -(-peak * each // size))
    if rooms > peak * each:
        raise BadSpec(f"{rooms} rooms for {peak} users: some would be empty")
    if rooms < each:
        raise BadSpec(f"--rooms-per-connection {each}: there are only {rooms} --rooms")
    plan.deal([k.weight for k in scenario.kinds], [k.seats for k in scenario.kinds], peak, rooms, each)
    endpoints = tuple(read_endpoint(url, rooms, draft.rooms_per_connection is not None) for url in args.urls)
    preflight.check_descriptors(peak, draft.processes)
    names = tuple(f"lt_{draft.run}_{number}" for number in range(rooms))
    return replace(spec, users=peak, rooms=names, endpoints=endpoints)


def _check_numbers(args: argparse.Namespace) -> None:
    for name in ("users", "rooms", "rooms_per_connection", "spawn_rate", "rate", "message_bytes"):
        value = getattr(args, name)
        if value is not None and not value > 0:
            raise BadSpec(f"--{name.replace('_', '-')} {value} makes no load test: it must be above 0")
    if args.rooms_per_connection is not None and not WIRES[args.wire].resumes:
        raise BadSpec("--rooms-per-connection needs --wire v1: on plain a connection is in the room of its address")
    if args.processes == 0 or args.processes < -1:
        raise BadSpec(f"--processes {args.processes}: give a number above 0, or -1 for one per core")


def _assignment(text: str, flag: str = "--set") -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise BadSpec(f"{flag} {text!r}: write it as name=value")
    return name.strip(), value.strip()
