"""Waking up on time: to some 50 microseconds where the kernel has timerfd, to a millisecond elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import sys
import time

_CLOCK_MONOTONIC = 1
_NONBLOCK = 0o4000
_ABSOLUTE = 1
# Nearer than this the call costs more than it waits for.
_SOON_NS = 50_000


class _TimerSpec(ctypes.Structure):
    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("at_s", ctypes.c_long),
        ("at_ns", ctypes.c_long),
    )


class Alarm:
    """One waiter at a time. A loop's own timers are a millisecond coarse, and a chat server answers in two.

    os.timerfd_create would do it without ctypes; it came with Python 3.13.
    """

    def __init__(self) -> None:
        self._fd = -1
        self._rung = asyncio.Event()
        if sys.platform == "linux":
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK)
        if self._fd >= 0:
            asyncio.get_running_loop().add_reader(self._fd, self._ring)

    async def until(self, at_ns: int) -> None:
        """Return at this time of time.monotonic_ns(), or at once if it is over."""
        left_ns = at_ns - time.monotonic_ns()
        if left_ns < _SOON_NS:
            return
        if self._fd < 0:
            await asyncio.sleep(left_ns / 1e9)
            return
        self._rung.clear()
        spec = _TimerSpec(0, 0, at_ns // 10**9, at_ns % 10**9)
        self._libc.timerfd_settime(self._fd, _ABSOLUTE, ctypes.byref(spec), None)
        await self._rung.wait()

    def close(self) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 8)
        self._rung.set()
