"""How long to gather before the next call: not at all when idle, longer as the loop gets busier."""

import asyncio
import os
import time
from functools import cache

# While it wants less than this share of a core the loop has time to spare and gathers for gather_s; above the other
# it takes gather_max_s. Between them the wait grows in proportion (docs/decisions/0003-adaptive-gather.md: the curve).
IDLE_SHARE = 0.8
BUSY_SHARE = 1.0
# What a timer of uvloop is exact to.
TICK_S = 0.001
# The share is measured over at least this long.
MEASURE_S = 0.05


def demand_s() -> float:
    """Seconds of CPU that this thread has used or waited for.

    What it used says nothing on a core that is shared: a loop that gets 0.8 of a core and wants more is as busy as one
    that has a core and fills it. Linux counts the wait too (Documentation/scheduler/sched-stats.rst).
    """
    schedstat = _schedstat()
    if schedstat is None:
        return time.thread_time()
    used_ns, waited_ns, _ = os.pread(schedstat, 64, 0).split()
    return (int(used_ns) + int(waited_ns)) / 1e9


@cache
def _schedstat() -> int | None:
    """The kernel's account of the thread that asks first, the loop's; kept open. None: this system keeps none."""
    try:
        schedstat = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    return schedstat if int(os.pread(schedstat, 64, 0).split()[0]) else None  # "0 0 0": built without the account


class Pace:
    """Leading edge: the first call goes at once, the next no sooner than `gather_s` after it."""

    def __init__(self, gather_s: float, gather_max_s: float) -> None:
        self._gather_min_s = gather_s
        self._gather_max_s = max(gather_s, gather_max_s)
        self.gather_s = gather_s
        self._last_at = 0.0
        self._measured_at = time.monotonic()
        self._demand_s = demand_s()

    async def turn(self) -> None:
        """Wait for one's turn and take it."""
        now = time.monotonic()
        due_at = self._last_at + self.gather_s
        if due_at > now:
            # By the loop's time, which uvloop cuts to whole ms: so this ends at the ms nearest to `due_at`, however
            # much of one is over now. Otherwise turns come 3 and 5 ms apart instead of 4.
            await asyncio.sleep(due_at - asyncio.get_running_loop().time())
            now = time.monotonic()
        # uvloop rounds a wait to whole ms: counted from the turn's own time, one that came early is made up for by the
        # next, and a call that takes 0.6 ms instead of 0.4 does not turn 4 ms into 3.6 (12 % more calls).
        self._last_at = due_at if abs(now - due_at) < TICK_S else now
        if now - self._measured_at >= MEASURE_S:
            self._measure(now)

    def _measure(self, now: float) -> None:
        wanted_s = demand_s()
        share = (wanted_s - self._demand_s) / (now - self._measured_at)
        busy = min(1.0, max(0.0, (share - IDLE_SHARE) / (BUSY_SHARE - IDLE_SHARE)))
        aim_s = self._gather_min_s + busy * (self._gather_max_s - self._gather_min_s)
        self.gather_s += (aim_s - self.gather_s) / 4  # smoothed: one slow turn is no load
        self._measured_at = now
        self._demand_s = wanted_s
