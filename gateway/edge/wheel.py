"""One shared wheel instead of a timer per connection: pings who is quiet, ends who is dead or stuck.

Alive is who sends bytes, whichever. A connection is looked at twice per ping_s, a little more often: at the second look
since its last byte it is pinged, so within ping_s always, and at the fourth it was silent for as long again.
"""

import asyncio
import itertools
from collections.abc import Iterable

from gateway.core.closes import Close
from gateway.edge.listener import Listener
from gateway.rooms import session
from gateway.settings.model import Settings
from gateway.telemetry.clock import Clock
from gateway.telemetry.metrics import Metrics

# The wheel turns by one slot this many times per ping_s.
TURNS_PER_PING = 25
# Less than half of them: two rounds are over before ping_s is.
SLOTS = 12
# Looks since the last byte.
PING_AT = 2
DEAD_AT = 4


class Wheel:
    """Every connection is looked at once a round."""

    def __init__(self, settings: Settings, clock: Clock, metrics: Metrics) -> None:
        self._stall_s = settings.stall_s
        self._turn_s = settings.ping_s / TURNS_PER_PING
        self._clock = clock
        self._metrics = metrics
        self._slots: list[set[Listener]] = [set() for _ in range(SLOTS)]
        self._fill = itertools.cycle(range(len(self._slots)))

    def add(self, connection: Listener) -> None:
        """Spread over the slots, so that a connect storm does not become a ping storm."""
        connection.slot = next(self._fill)
        self._slots[connection.slot].add(connection)

    def remove(self, connection: Listener) -> None:
        self._slots[connection.slot].discard(connection)

    def connections(self) -> list[Listener]:
        return [connection for slot in self._slots for connection in slot]

    async def run(self) -> None:
        """Turn until cancelled."""
        loop = asyncio.get_running_loop()
        turn_at = loop.time()
        for slot in itertools.cycle(self._slots):
            # By the clock, not from turn to turn, or a busy node would ping late; what was missed is not made up for.
            turn_at = max(turn_at + self._turn_s, loop.time())
            await asyncio.sleep(turn_at - loop.time())
            now = self._clock.now()
            for connection in list(slot):
                self._look(connection, now)

    def judge_stalled(self, behind: Iterable[session.Connection]) -> None:
        """End those of the connections with sessions behind that made no progress for stall_s."""
        now = self._clock.now()
        for connection in behind:
            if connection.stalled(now, self._stall_s):
                connection.end(Close.SLOW)

    def _look(self, connection: Listener, now: float) -> None:
        if connection.closing is not None:
            return
        if connection.stalled(now, self._stall_s):
            connection.end(Close.SLOW)
        elif connection.waiting_bytes() or connection.held:
            # A ping would wait behind the rest; and nobody reads the pong of one that is held back.
            connection.quiet_looks = 0
            if connection.held:
                connection.look_for_end()
        else:
            connection.quiet_looks += 1
            if connection.quiet_looks == PING_AT:
                self._metrics.pings += 1
                connection.ask_for_life()
            elif connection.quiet_looks >= DEAD_AT:
                connection.end(Close.DEAD)
