"""A child process of a test: its log in a file, shown when the test fails, and its end certain."""

import asyncio
import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from tests.support.forked import Forked

# Every process of the running test, so that a failure shows their logs and none outlives the test.
started: list["Process"] = []

# A node: forked where imports were done before.
WATCHED = (sys.executable, "-m", "tests.support.watched")

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class Process:
    """One program. `spawn` may be called again after it ended; the log goes on in the same file.

    Spawn from the main thread: the kernel ends the child when the thread that started it ends.
    """

    def __init__(self, name: str, argv: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.argv = list(argv)
        self.log = log
        self.env = dict(os.environ if env is None else env)
        # Where it runs; None: where the tests run.
        self.cwd: Path | None = None
        # A pty's descriptor (`pty.openpty()`) to be its controlling terminal and standard input.
        self.terminal: int | None = None
        self.popen: subprocess.Popen[bytes] | Forked | None = None

    def spawn(self) -> None:
        """Starts the program in a session of its own. Returns at once."""
        assert not self.running, f"{self.name} runs already"
        self.popen = self._run()
        if self not in started:
            started.append(self)

    def _run(self) -> subprocess.Popen[bytes] | Forked:
        if tuple(self.argv[:3]) == WATCHED and self.cwd is None and self.terminal is None:
            return Forked(self.argv[3:], self.log, self.env)
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self.argv,
                env=self.env,
                cwd=self.cwd,
                stdin=subprocess.DEVNULL if self.terminal is None else self.terminal,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=self._prepare,  # noqa: PLW1509 - two system calls, no lock taken
            )

    def _prepare(self) -> None:
        """In the child, before it becomes the program."""
        if _libc is not None:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if self.terminal is not None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup

    @property
    def running(self) -> bool:
        return self.popen is not None and self.popen.poll() is None

    @property
    def pid(self) -> int:
        assert self.popen is not None, f"{self.name} was never started"
        return self.popen.pid

    def signal(self, number: int) -> None:
        if self.running:
            os.kill(self.pid, number)

    def pause(self) -> None:
        """SIGSTOP: it holds its sockets and does nothing, like a machine that hangs."""
        self.signal(signal.SIGSTOP)

    def cont(self) -> None:
        self.signal(signal.SIGCONT)

    async def ended(self, within_s: float = 20.0) -> int:
        """Waits for the end; the exit code, negative for a signal."""
        assert self.popen is not None
        deadline = time.monotonic() + within_s
        while (code := self.popen.poll()) is None:
            assert time.monotonic() < deadline, f"{self.name} did not end within {within_s:g} s\n{self.tail()}"
            await asyncio.sleep(0.005)
        return code

    async def kill(self) -> None:
        """SIGKILL: no last word, the kernel closes its sockets."""
        self.signal(signal.SIGKILL)
        await self.ended()

    async def stop(self, within_s: float = 20.0) -> int:
        """SIGTERM, then waits; the exit code."""
        self.signal(signal.SIGTERM)
        return await self.ended(within_s)

    def kill_now(self) -> None:
        """For a teardown that may have no loop."""
        if self.popen is not None:
            with contextlib.suppress(ProcessLookupError):
                self.popen.kill()
            self.popen.wait()

    def lines(self) -> list[str]:
        """What it wrote so far, stdout and stderr together."""
        return self.log.read_text(errors="replace").splitlines() if self.log.exists() else []

    def tail(self, count: int = 60) -> str:
        return "\n".join(self.lines()[-count:])


def alive(pid: int) -> bool:
    """Whether the process runs. A dead one that nobody reaped (a container without an init) does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
