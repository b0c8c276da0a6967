"""The node's clock for deadlines: a pause of the whole process (SIGSTOP, a sleeping laptop) counts PAUSE_S at most."""

import asyncio
import time
from collections.abc import Callable

TICK_S = 0.1
# A turn of the loop longer than this was no work of ours: nobody's deadline may be judged by it.
PAUSE_S = 1.0


class Clock:
    """Seconds that passed while the loop turned. `observe(seconds)` hears how late each tick came."""

    def __init__(self, observe: Callable[[float], None] = lambda lag_s: None) -> None:
        self._observe = observe
        self._paused_s = 0.0
        # The last tick, and the one before it. What is read of a socket now came since `looked_at`, however late the
        # loop is: behind a late tick sockets are read first, and then comes the next one.
        self._ticked_at = self.looked_at = time.monotonic()
        # Of the last pause, by the world's clock.
        self._pause_began_at = self._pause_ended_at = float("-inf")
        # Called with the length of each pause, once it is over.
        self.on_pause: list[Callable[[float], None]] = []

    def now(self) -> float:
        """Monotonic seconds less what any turn took beyond PAUSE_S. Stands still from then on; never steps back."""
        return self._ticked_at - self._paused_s + min(time.monotonic() - self._ticked_at, PAUSE_S)

    def awake_at(self, now: float) -> float:
        """The world's `now`; during a pause and shortly behind it when it began: what comes in waits since then."""
        if now - self._ticked_at > PAUSE_S:
            return self._ticked_at  # nobody noticed yet
        return now if now - self._pause_ended_at > PAUSE_S else self._pause_began_at

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            self._tick(time.monotonic())

    def _tick(self, at: float) -> None:
        turn_s = at - self._ticked_at
        self._observe(max(0.0, turn_s - TICK_S))
        paused_s = max(0.0, turn_s - PAUSE_S)
        self._paused_s += paused_s
        began_at = self.looked_at = self._ticked_at
        self._ticked_at = at
        if paused_s:
            self._pause_began_at, self._pause_ended_at = began_at, at
            for tell in self.on_pause:
                tell(paused_s)
