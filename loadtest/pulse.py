"""The harness watches itself: its CPU share and how late its event loop turns. Judged in verdict.py."""

from __future__ import annotations

import asyncio
import time

from loadtest.histogram import Histogram

BEAT_S = 0.01


class Pulse:
    def __init__(self) -> None:
        self.lag = Histogram()
        self._cpu_s = self._began_cpu_s = time.process_time()
        self._wall_s = self._began_wall_s = time.monotonic()

    async def beat(self) -> None:
        """Runs until cancelled. A loop that is busy comes back late: that lateness is the lag."""
        while True:
            due = time.monotonic() + BEAT_S
            await asyncio.sleep(BEAT_S)
            # The loop's timers are a millisecond coarse: that much is not lag.
            self.lag.record([int(max(0.0, time.monotonic() - due - 0.001) * 1e6)])

    def cpu_share(self) -> float:
        """Of one core, since the last call."""
        cpu_s, wall_s = time.process_time(), time.monotonic()
        share = (cpu_s - self._cpu_s) / max(wall_s - self._wall_s, 1e-6)
        self._cpu_s, self._wall_s = cpu_s, wall_s
        return share

    @property
    def cpu_s(self) -> float:
        return time.process_time() - self._began_cpu_s

    @property
    def wall_s(self) -> float:
        return time.monotonic() - self._began_wall_s
