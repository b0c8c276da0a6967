"""One shared wheel instead of a timer per connection: pings who is quiet, ends who is dead or stuck."""

import asyncio
import itertools
from collections.abc import Iterable

from gateway.clock import Clock
from gateway.config import Settings
from gateway.core import frames
from gateway.core.closes import Close
from gateway.edge.client import Client
from gateway.metrics import Metrics

# The wheel turns one slot in so many seconds.
TURN_S = 1.0


class Wheel:
    """Every client is looked at once per ping_s."""

    def __init__(self, settings: Settings, clock: Clock, metrics: Metrics) -> None:
        self._stall_s = settings.stall_s
        self._clock = clock
        self._metrics = metrics
        self._slots: list[set[Client]] = [set() for _ in range(max(2, round(settings.ping_s / TURN_S)))]
        self._fill = itertools.cycle(range(len(self._slots)))

    def add(self, client: Client) -> None:
        """Spread over the slots, so that a connect storm does not become a ping storm."""
        client.slot = next(self._fill)
        self._slots[client.slot].add(client)

    def remove(self, client: Client) -> None:
        self._slots[client.slot].discard(client)

    def clients(self) -> list[Client]:
        return [client for slot in self._slots for client in slot]

    async def run(self) -> None:
        """Turn until cancelled."""
        for slot in itertools.cycle(self._slots):
            await asyncio.sleep(TURN_S)
            now = self._clock.now()
            for client in list(slot):
                self._look(client, now)

    def judge_stalled(self, behind: Iterable[Client]) -> None:
        """End those of the behind sessions that made no progress for stall_s."""
        now = self._clock.now()
        for client in behind:
            if client.closing is None and client.stalled(now, self._stall_s):
                client.end(Close.SLOW)

    def _look(self, client: Client, now: float) -> None:
        if client.closing is not None:
            return
        if client.stalled(now, self._stall_s):
            client.end(Close.SLOW)
        elif client.waiting_bytes() or client.in_flight:
            # A ping would wait behind the rest; and nobody reads the pong of a client that waits on its window.
            client.pinged = False
        elif client.heard:
            client.heard = client.pinged = False
        elif client.pinged:
            client.end(Close.DEAD)
        else:
            client.pinged = True
            self._metrics.pings += 1
            client.write(frames.PING)
