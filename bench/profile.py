"""`python -m bench.profile [--rows 1,3,8]`: where the node's CPU and memory go, on the work of a bench's row.

CPU by py-spy (which Python function) and, where `perf` is installed, by the kernel's own account (which library);
memory of idle connections by tracemalloc. What came of it is in docs/performance.md.
"""

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from bench import servers
from bench.drive import Run, Work, drive
from bench.lab import say
from bench.machine import DRIVER_CORE, BenchError, build, raise_descriptor_limit, require_cores
from bench.rows import IDLE, MANY_ROOMS, ONE_ROOM

WORKS = {"1": ONE_ROOM, "3": MANY_ROOMS, "8": IDLE}
SAMPLES_PER_S = 400
TOP = 12
_FRAME = re.compile(r"(?P<name>.*) \((?P<file>.*?)(:\d+)?\)\Z")
# The frame under which the loop's own C code runs: it has no Python frame of its own.
_LOOP = re.compile(r"run \(asyncio/runners\.py|_?run.* \(uvloop/|Runner\.run ")


def main() -> int:
    """Print a profile of each row that was asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default="1,3,8", help="which of 1, 3 and 8 (all)")
    parser.add_argument("--seconds", type=float, default=15.0, help="how long each is watched (15)")
    options = parser.parse_args()
    try:
        require_cores()
        raise_descriptor_limit()
        with tempfile.TemporaryDirectory(prefix="hiroba-profile-") as directory:
            for name in options.rows.split(","):
                if name not in WORKS:
                    raise BenchError(f"there is no profile of row {name!r}; there are {', '.join(WORKS)}")
                _profile(name, replace(WORKS[name], seconds=options.seconds), Path(directory))
    except BenchError as exc:
        say(f"profile: {exc}")
        return 1
    return 0


def _profile(name: str, work: Work, directory: Path) -> None:
    driver = build("driver", directory)
    _print(f"## Row {name}: {work.rooms:,} × {work.members:,}, {work.rate:,.0f} msg/s")
    stacks = _cpu(driver, work, directory / f"cpu{name}")
    _table("CPU by Python function, its own share", _by_function(stacks))
    libraries = _libraries(driver, work, directory / f"perf{name}")
    if libraries:
        _table("CPU by library", libraries)
    if not work.rate:
        _table("memory by line, bytes each connection", _held(driver, work, directory / f"held{name}"))


# ---- CPU ------------------------------------------------------------------------------------------------------------


def _cpu(driver: Path, work: Work, directory: Path) -> list[tuple[list[str], int]]:
    """Stacks, outermost frame first, and how often each was seen working."""
    program = shutil.which("py-spy", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if program is None:
        raise BenchError("no py-spy: pip install py-spy")
    raw = directory.with_suffix(".raw")
    # Nonblocking: the node is not stopped for a sample, so its latency stays what it is.
    argv = [program, "record", "--nonblocking", "--format", "raw", "--output", str(raw)]
    argv += ["--rate", str(SAMPLES_PER_S), "--duration", str(int(work.seconds))]
    run = _watched(driver, work, directory, argv, "--pid")
    _print(
        f"node {run.cpu_s('node') / run.span_s():.2f} of its core, {run.us_per_delivery('node'):.1f} µs per delivery"
    )
    lines = [line.rpartition(" ") for line in raw.read_text().splitlines()]
    return [(stack.split(";"), int(count)) for stack, _, count in lines]


def _watched(driver: Path, work: Work, directory: Path, argv: list[str], pid_flag: str, *behind: str) -> Run:
    """Drive a fresh node while another program watches it."""
    watchers: list[subprocess.Popen[bytes]] = []
    with servers.node(directory) as server, contextlib.ExitStack() as stack:

        def at_event(name: str) -> None:
            if name == "begin":
                whole = [*argv, pid_flag, str(server.pids["node"]), *behind]
                watcher = subprocess.Popen(
                    whole,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    preexec_fn=lambda: servers.pin_and_die_with_us(DRIVER_CORE),  # noqa: PLW1509 - two system calls
                )
                stack.callback(watcher.kill)
                watchers.append(watcher)

        run = drive(driver, work, server, at_event=at_event)
        for watcher in watchers:
            _, told = watcher.communicate(timeout=60)
            if watcher.returncode:
                raise BenchError(f"{argv[0]} failed: {told.decode(errors='replace').strip()}")
    return run


def _by_function(stacks: Iterable[tuple[list[str], int]]) -> list[tuple[str, float]]:
    seen: Counter[str] = Counter()
    for stack, count in stacks:
        seen[_function(stack[-1])] += count
    whole = sum(seen.values())
    return [(name, count / whole * 100) for name, count in seen.most_common(TOP)]


def _function(frame: str) -> str:
    if _LOOP.match(frame):
        return "the loop itself (uvloop, sockets read, C called from it)"
    found = _FRAME.match(frame)
    return f"{found['name']} ({found['file']})" if found else frame


def _libraries(driver: Path, work: Work, directory: Path) -> list[tuple[str, float]]:
    """By perf; empty where there is none."""
    perf = shutil.which("perf")
    if perf is None:
        _print("(no perf here: CPU by library is left out)")
        return []
    data = directory.with_suffix(".data")
    argv = [perf, "record", "--quiet", "--event", "cpu-clock", "--freq", "999", "--output", str(data)]
    _watched(driver, work, directory, argv, "--pid", "--", "sleep", str(int(work.seconds)))
    argv = [perf, "report", "--input", str(data), "--stdio", "--sort", "dso", "--no-children", "--percent-limit", "1"]
    report = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    found = re.findall(r"^\s*([\d.]+)%\s+(\S+)", report, re.MULTILINE)
    return [(library, float(percent)) for percent, library in found]


# ---- memory ---------------------------------------------------------------------------------------------------------


def _held(driver: Path, work: Work, directory: Path) -> list[tuple[str, float]]:
    """What the node's Python objects hold for each connection, by the line that made them."""
    file = directory.with_suffix(".snapshot")
    snapshots: list[tracemalloc.Snapshot] = []
    with servers.node(directory, program=(sys.executable, "-m", "bench.held", str(file))) as server:

        def at_event(name: str) -> None:
            if name in ("connecting", "done"):
                os.kill(server.pids["node"], signal.SIGUSR2)
                snapshots.append(_snapshot(file))

        drive(driver, work, server, at_event=at_event)
    before, after = snapshots
    grown = after.compare_to(before, "lineno")
    rows = [(_place(each.traceback[0]), each.size_diff / work.sessions) for each in grown if each.size_diff > 0]
    whole = sum(each.size_diff for each in grown) / work.sessions
    return [*sorted(rows, key=lambda row: -row[1])[:TOP], ("all of Python's objects", whole)]


def _place(frame: tracemalloc.Frame) -> str:
    file = Path(frame.filename)
    return f"{file.parent.name}/{file.name}:{frame.lineno}"


def _snapshot(file: Path) -> tracemalloc.Snapshot:
    """The one that was just asked for."""
    deadline = time.monotonic() + servers.START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):
            found = tracemalloc.Snapshot.load(str(file))
            file.unlink()
            return found
        time.sleep(0.05)
    raise BenchError("the node did not write what it holds")


# ---- for people -----------------------------------------------------------------------------------------------------


def _table(title: str, rows: Iterable[tuple[str, float]]) -> None:
    _print(f"\n{title}:")
    for name, value in rows:
        _print(f"{value:9.1f}  {name}")
    _print("")


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
