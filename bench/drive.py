"""One run of the driver against a server: the work, what it found, and what the server's processes used meanwhile."""

import json
import selectors
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from bench.machine import DRIVER_CORE, SERVER_CORE, BenchError, Reading, read_cores, read_process
from bench.servers import Server, pin_and_die_with_us

DRIVER_SHARE_MAX = 0.9
OTHERS_SHARE_MAX = 0.1
_POLL_S = 1.0
_SILENCE_S = 300.0
_LAST_WORDS_S = 1.0


@dataclass(frozen=True)
class Work:
    """What the driver does; each field is a flag of driver.c."""

    rooms: int = 1
    members: int = 2
    speakers: int = 10
    rate: float = 0.0
    seconds: float = 5.0
    warm: float = 2.0
    settle: float = 1.0
    drain: float = 60.0
    quiet: float = 5.0
    bytes: int = 128
    stalled: int = 0
    receive_bytes: int = 0
    churn: int = 0
    inflight: int = 64
    deflate: bool = False
    # A file with a token for each connection, a line each; None: nobody says who they are.
    tokens: str | None = None

    @property
    def sessions(self) -> int:
        return self.rooms * self.members

    def at(self, rate: float, **changes: Any) -> Self:
        return replace(self, rate=rate, **changes)

    def flags(self) -> list[str]:
        flags = []
        for name, value in vars(self).items():
            if value is True:
                flags.append(f"--{name}")
            elif value is not False and value is not None:
                flags += ["--" + name.replace("_", "-"), f"{value:g}" if isinstance(value, float) else str(value)]
        return flags


@dataclass(frozen=True)
class Run:
    """What came of it. Readings by event ("connecting", "joined", "begin", "end", "done"), then process.

    `cores` holds, by event, how long each core had been busy.
    """

    result: dict[str, Any]
    readings: dict[str, dict[str, Reading]]
    cores: dict[str, dict[int, float]] = field(default_factory=dict)

    def cpu_s(self, process: str, first: str = "begin", last: str = "end") -> float:
        if process not in self.readings[first]:
            return 0.0
        return self.readings[last][process].cpu_s - self.readings[first][process].cpu_s

    def span_s(self, first: str = "begin", last: str = "end") -> float:
        return self.readings[last]["node"].at_s - self.readings[first]["node"].at_s

    def memory_bytes(self, event: str) -> int:
        return self.readings[event]["node"].memory_bytes

    def us_per_delivery(self, process: str) -> float:
        """CPU in the window over deliveries in the window; 0 when nothing was delivered."""
        deliveries = self.result["window_deliveries"]
        return self.cpu_s(process) / deliveries * 1e6 if deliveries else 0.0

    def latency_ms(self, percentile: str) -> float:
        return float(self.result["latency_ms"][percentile])

    def count(self, name: str) -> int:
        return int(self.result[name])

    @property
    def driver_share(self) -> float:
        return float(self.result["cpu_share"])

    def others_share(self) -> float:
        """What anything else on the machine took of the two cores in the window: the worse of both, 0 to 1."""
        if "end" not in self.readings:
            return 0.0
        ours = {SERVER_CORE: self.cpu_s("node") + self.cpu_s("broker"), DRIVER_CORE: self.cpu_s("driver")}
        busy = {core: self.cores["end"][core] - self.cores["begin"][core] for core in ours}
        return max(0.0, *((busy[core] - ours[core]) / self.span_s() for core in ours))

    def wrongs(self) -> list[str]:
        """Everything that must be zero and is not, in words."""
        names = ("lost", "doubled", "reordered", "foreign", "corrupt", "cut", "unsent", "pending")
        wrongs = [f"{self.count(name)} {name}" for name in names if self.count(name)]
        if self.result["closes"]:
            wrongs.append(f"closed by the server: {self.result['closes']}")
        return wrongs


def drive(
    program: Path,
    work: Work,
    server: Server,
    poll: Callable[[], None] | None = None,
    at_event: Callable[[str], None] | None = None,
    before: Callable[[], None] | None = None,
) -> Run:
    """Runs the driver to its end. `before` is called when its rooms have names and nobody is in them, `poll` about once
    a second while it speaks, `at_event` with each name.

    Raises `BenchError` when the driver gives up: a refused handshake, too few descriptors, a deaf server.
    """
    server.rooms_prefix = f"b{time.monotonic_ns():x}"
    if before is not None:
        before()
    argv = [str(program), "--port", str(server.port), "--prefix", server.rooms_prefix, *work.flags()]
    child = subprocess.Popen(
        argv,
        bufsize=0,  # what readline() has not returned must stay visible to select()
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: pin_and_die_with_us(DRIVER_CORE),  # noqa: PLW1509 - two system calls, no lock taken
    )
    try:
        return _listen(child, server, poll, at_event)
    finally:
        child.kill()
        child.communicate()


def _listen(
    child: "subprocess.Popen[bytes]",
    server: Server,
    poll: Callable[[], None] | None,
    at_event: Callable[[str], None] | None,
) -> Run:
    assert child.stdin is not None and child.stdout is not None
    readings: dict[str, dict[str, Reading]] = {}
    cores: dict[str, dict[int, float]] = {}
    pids = {**server.pids, "driver": child.pid}
    speaking = False
    while True:
        line = _line_of(child, poll if speaking else None)
        event = json.loads(line)
        name = event["event"]
        if name == "result":
            child.wait(30)
            return Run(event, readings, cores)
        now_s = time.monotonic()
        with_memory = name not in ("begin", "end")
        try:
            readings[name] = {key: read_process(pid, now_s, with_memory) for key, pid in pids.items()}
        except BenchError as exc:
            raise BenchError(_last_words(child) or str(exc)) from exc
        cores[name] = read_cores()
        speaking = name in ("begin", "end")
        if at_event is not None:
            at_event(name)
        if name in ("joined", "done"):
            child.stdin.write(b"\n")
            child.stdin.flush()


def _line_of(child: "subprocess.Popen[bytes]", poll: Callable[[], None] | None) -> bytes:
    """The driver's next line."""
    assert child.stdout is not None and child.stderr is not None
    deadline = time.monotonic() + _SILENCE_S
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while not selector.select(_POLL_S):
            if poll is not None:
                poll()
            if time.monotonic() > deadline:
                raise BenchError(f"the driver said nothing for {_SILENCE_S:g} s")
    line = child.stdout.readline()
    if not line:
        raise BenchError(_last_words(child) or "the driver ended without a word")
    return line


def _last_words(child: "subprocess.Popen[bytes]") -> str:
    """Why the driver gave up; empty while it has not."""
    assert child.stderr is not None
    try:
        child.wait(_LAST_WORDS_S)
    except subprocess.TimeoutExpired:
        return ""
    return child.stderr.read().decode(errors="replace").strip()
