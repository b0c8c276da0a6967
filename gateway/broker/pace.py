"""How long to gather before the next call: not at all when idle, longer as the loop gets busier."""

import asyncio
import time

# Below this share of a core the loop has time to spare and gathers for gather_s; above the other it takes
# gather_max_s. Between them the wait grows in proportion. docs/decisions/0003-adaptive-gather.md has the curve.
IDLE_SHARE = 0.7
BUSY_SHARE = 0.95
# The share is measured over at least this long.
MEASURE_S = 0.05


class Pace:
    """Leading edge: the first call goes at once, the next no sooner than `gather_s` after it."""

    def __init__(self, gather_s: float, gather_max_s: float) -> None:
        self._gather_min_s = gather_s
        self._gather_max_s = max(gather_s, gather_max_s)
        self.gather_s = gather_s
        self._last_at = 0.0
        self._measured_at = time.monotonic()
        self._cpu_s = time.thread_time()

    async def turn(self) -> None:
        """Wait for one's turn and take it."""
        now = time.monotonic()
        wait_s = self._last_at + self.gather_s - now
        if wait_s > 0:
            await asyncio.sleep(wait_s)
            now = time.monotonic()
        self._last_at = now
        if now - self._measured_at >= MEASURE_S:
            self._measure(now)

    def _measure(self, now: float) -> None:
        cpu_s = time.thread_time()
        share = (cpu_s - self._cpu_s) / (now - self._measured_at)
        busy = min(1.0, max(0.0, (share - IDLE_SHARE) / (BUSY_SHARE - IDLE_SHARE)))
        aim_s = self._gather_min_s + busy * (self._gather_max_s - self._gather_min_s)
        self.gather_s += (aim_s - self.gather_s) / 4  # smoothed: one slow turn is no load
        self._measured_at = now
        self._cpu_s = cpu_s
