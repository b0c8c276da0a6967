"""Child processes: bound to our life, started again when they die or hang, ended within a budget.

What the children are is said by who owns them: `broker/embedded.py` and `supervisor.py`.
"""

import asyncio
import contextlib
import ctypes
import os
import random
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from typing import IO, Any

import structlog

_PR_SET_PDEATHSIG = 1  # prctl(2)
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


async def spawn(
    argv: Sequence[str],
    *,
    orphan_signal: int = signal.SIGKILL,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    output: IO[bytes] | None = None,
    pass_fds: Collection[int] = (),
    umask: int | None = None,
) -> Process:
    """Starts `argv` in a session of its own: a terminal's Ctrl-C reaches only us, and we decide.

    On Linux the kernel sends it `orphan_signal` when we die, however we die. To be called from the main
    thread: it is the death of the calling *thread* that counts (prctl(2), PR_SET_PDEATHSIG).
    `output` takes both standard output and standard error; None: ours. `umask`: of its files (umask(2)); None:
    ours. Raises OSError.
    """
    return await asyncio.create_subprocess_exec(
        *argv,
        stdin=DEVNULL,
        stdout=output,
        stderr=output,
        env=env,
        cwd=cwd,
        pass_fds=tuple(pass_fds),
        start_new_session=True,
        preexec_fn=_before_exec(os.getpid(), orphan_signal, umask),
    )


def _before_exec(parent_pid: int, orphan_signal: int, umask: int | None) -> Callable[[], None]:
    prctl = _libc.prctl if _libc is not None else None

    def prepare() -> None:
        if umask is not None:  # uvloop's subprocesses know no such argument
            os.umask(umask)
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, orphan_signal, 0, 0, 0)
            if os.getppid() != parent_pid:  # it died before the kernel knew whom to tell
                os._exit(127)

    return prepare


async def end(process: Process, number: int, within_s: float) -> bool:
    """Sends the signal, waits, and kills what is left. True when it went by itself."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)
    try:
        async with asyncio.timeout(within_s):
            await process.wait()
            return True
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        return False


def exit_text(code: int) -> str:
    """`SIGKILL` or `exit code 1`."""
    try:
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"
    except ValueError:  # a real-time signal has no name
        return f"signal {-code}"


class Backoff:
    """How long to wait before the next start: doubling, with a cap and with jitter, so that children that
    died together do not come back together."""

    def __init__(self, first_s: float = 0.5, cap_s: float = 15.0, calm_s: float = 30.0) -> None:
        self._first_s = first_s
        self._cap_s = cap_s
        # A child that lived for so long is taken for healthy: its death counts as the first again.
        self._calm_s = calm_s
        self._deaths = 0

    def after(self, lived_s: float) -> float:
        """Seconds to wait after a death; half of it to all of it is chance."""
        if lived_s >= self._calm_s:
            self._deaths = 0
        # No more than 30 doublings: 2.0 ** 1024 raises.
        pause_s = min(self._cap_s, self._first_s * 2.0 ** min(self._deaths, 30))
        self._deaths += 1
        return pause_s * random.uniform(0.5, 1.0)


class Kept:
    """One child that is started again, after a pause, whenever it ends without being asked to, or hangs."""

    def __init__(
        self,
        name: str,
        launch: Callable[[], Awaitable[Process]],
        *,
        settle: Callable[[Process], Awaitable[None]] | None = None,
        hangs: Callable[[], Coroutine[Any, Any, str]] | None = None,
        last_words: Callable[[], str] = str,
        final_codes: Collection[int] = (),
        wanted_codes: Collection[int] = (),
        backoff: Backoff | None = None,
    ) -> None:
        """`launch` starts the process; `settle` returns once it serves and may raise OSError or RuntimeError,
        which counts as a death. `hangs` returns, with the reason, once it no longer serves though it runs:
        then it is killed. An exit code in `final_codes` ends the keeping: starting again would not
        help. One in `wanted_codes` says that somebody told it to go: no error."""
        self.name = name
        self.process: Process | None = None
        # Starts after the first one.
        self.restarts = 0
        self._launch = launch
        self._settle = settle
        self._hangs = hangs
        self._last_words = last_words
        self._final_codes = final_codes
        self._wanted_codes = wanted_codes
        self._backoff = backoff or Backoff()
        self._started_at = 0.0
        self._keeper: asyncio.Task[int] | None = None
        self._log = structlog.get_logger()

    async def start(self) -> asyncio.Task[int]:
        """The first start; raises what it raises. The task ends, with the exit code, only for a final code."""
        await self._start()
        self._keeper = asyncio.create_task(self._keep(), name=f"keep {self.name}")
        return self._keeper

    async def stop(self, number: int, within_s: float) -> bool:
        """Ends it for good: the signal, then SIGKILL after the budget. True when it went by itself.

        A second call with another signal, while the first one waits, hurries it.
        """
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        return self.process is None or await end(self.process, number, within_s)

    async def _start(self) -> None:
        self._started_at = time.monotonic()
        launching = asyncio.ensure_future(self._launch())
        try:
            self.process = await asyncio.shield(launching)
        except asyncio.CancelledError:
            self.process = await launching  # half started, it would be nobody's
            raise
        if self._settle is not None:
            await self._settle(self.process)

    async def _keep(self) -> int:
        while True:
            assert self.process is not None
            code = await self._life_of(self.process)
            if code in self._final_codes:
                return code
            said = self._last_words() if code > 0 else ""  # a killed process had no say
            why = f"{exit_text(code)}: {said}" if said else exit_text(code)
            await self._restart(why, code in self._wanted_codes)

    async def _life_of(self, process: Process) -> int:
        """The exit code, when it has ended: by itself, or killed because it hangs."""
        if self._hangs is None:
            return await process.wait()
        ended, hanging = asyncio.create_task(process.wait()), asyncio.create_task(self._hangs())
        try:
            await asyncio.wait((ended, hanging), return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                self._log.error(f"{self.name} hangs and is killed", why=hanging.result())
                with contextlib.suppress(ProcessLookupError):  # it ended in this very turn
                    process.kill()
            return await ended
        finally:
            ended.cancel()
            hanging.cancel()

    async def _restart(self, why: str, wanted: bool) -> None:
        """Tries until it serves. `wanted`: somebody told it to go."""
        while True:
            pause_s = self._backoff.after(time.monotonic() - self._started_at)
            if wanted:
                self._log.info(f"{self.name} was told to go", restart_in_s=round(pause_s, 2))
            else:
                self._log.error(f"{self.name} died", why=why, restart_in_s=round(pause_s, 2))
            wanted = False
            await asyncio.sleep(pause_s)
            self.restarts += 1
            try:
                await self._start()
            except (OSError, RuntimeError) as exc:
                why = str(exc)
                if self.process is not None:
                    await end(self.process, signal.SIGKILL, 1.0)
            else:
                break
        self._log.info(f"{self.name} runs again", restarts=self.restarts)
