"""The slow round over all logs: what doorbells and heartbeats may have missed. Costs a bounded slice per turn."""

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from math import ceil

import structlog

from broker_config.retention import RENEWALS
from gateway.broker.connection import Arg
from gateway.broker.errors import BrokerGone, BrokerRefused
from gateway.broker.feed import Feed
from gateway.broker.groups import Groups, settled
from gateway.broker.lane import Lane
from gateway.broker.reader import Reader
from gateway.broker.registry import Registry
from gateway.core.entry import entry_id
from gateway.settings.model import Settings
from gateway.telemetry.metrics import Metrics

SLICES = 10
# Logs looked at closely (groups of the dead, lag) per slice: XINFO costs more than a read.
SAMPLE = 32
# Logs trimmed per slice while the broker is full: some 4 ms of its time.
TRIMMED = 256
# Rooms opened lately and not yet looked at; above this they wait for the round like all others.
SOON_MAX = 1_000

log = structlog.get_logger()


class Sweep:
    """Every sweep_s each log is read once even if nobody rang; a sample is checked closely."""

    def __init__(
        self,
        reader: Reader,
        groups: Groups,
        registry: Registry,
        lane: Lane,
        metrics: Metrics,
        settings: Settings,
        index_of: Callable[[bytes], tuple[bytes, bytes] | None],
        full: Callable[[], bool],
        trim: Callable[[Sequence[bytes]], Awaitable[None]],
    ) -> None:
        self._reader = reader
        self._groups = groups
        self._registry = registry
        self._lane = lane
        self._metrics = metrics
        self._settings = settings
        # Where a log's room stands, and its name (keys.py).
        self._index_of = index_of
        # Whether the broker wants memory; then logs are trimmed in which nobody speaks, too.
        self._full = full
        self._trim = trim
        self._soon: dict[Feed, None] = {}
        # Worst lag of each slice of the last round, in seconds; None: nothing could be asked.
        self._lags: deque[float | None] = deque(maxlen=SLICES)

    def soon(self, feed: Feed) -> None:
        """Look at this log for groups of dead nodes in the next slice."""
        if len(self._soon) < SOON_MAX:
            self._soon[feed] = None

    async def run(self) -> None:
        """Go round until cancelled."""
        while True:
            feeds = list(self._reader.feeds.values())
            for slice_ in range(SLICES):
                await asyncio.sleep(self._settings.sweep_s / SLICES)
                part = [feed for feed in feeds[slice_::SLICES] if feed.key in self._reader.feeds]
                self._reader.mark(part)
                try:
                    await self._look(part)
                except BrokerGone:
                    self._note(None)

    async def _look(self, part: list[Feed]) -> None:
        await self._renew(part)
        if self._full() and part:
            await self._trim([feed.key for feed in _some(part, TRIMMED)])
        sample = _some(part, SAMPLE)
        await self._lag(sample)
        soon = list(self._soon)[:SAMPLE]
        for feed in soon:
            del self._soon[feed]
        if self._registry.alive:
            await self._groups.sweep(list(dict.fromkeys(soon + sample)), self._registry.alive)

    async def _lag(self, sample: list[Feed]) -> None:
        """Lag: ms of the log's last id less ms of the cursor's. XINFO's own lag is wrong after trimming (7.0)."""
        asked = [
            (feed, feed.cursor, self._lane.ask("XREVRANGE", feed.key, "+", "-", "COUNT", 1))
            for feed in sample
            if feed.grouped
        ]
        lags = []
        for feed, cursor, answer in asked:
            newest = await settled(answer)
            if newest and not isinstance(newest, BrokerRefused):
                top = entry_id(newest[0][0])
                if top > cursor == feed.cursor:
                    # The doorbell may be on its way; or the group stands where no read of ours put it.
                    feed.doubt()
                    self._reader.mark((feed,))
                lags.append((top.ms - cursor.ms) / 1000 if top > feed.cursor else 0.0)
        self._note(max(lags) if lags else None)

    def _note(self, lag_s: float | None) -> None:
        """The worst of one round: a slice of a few rooms often holds none that can be asked, and unknown is not 0."""
        self._lags.append(lag_s)
        known = [lag_s for lag_s in self._lags if lag_s is not None]
        self._metrics.lag_s = max(known) if known else None

    async def _renew(self, part: list[Feed]) -> None:
        """Rooms in which somebody sits do not expire."""
        share = int(time.time() // (self._settings.room_idle_s / RENEWALS))
        due = [feed for feed in part if feed.grouped and feed.renewed != share]
        asked = [(feed, self._lane.ask(*command)) for feed in due for command in self._renewal(feed)]
        for feed, answer in asked:
            await settled(answer)
            feed.renewed = share

    def _renewal(self, feed: Feed) -> Iterator[tuple[Arg, ...]]:
        """As publish.lua renews a log in which somebody speaks, and its room's place in the index."""
        idle_s = ceil(self._settings.room_idle_s)
        yield "EXPIRE", feed.key, idle_s
        place = self._index_of(feed.key)
        if place is not None and feed.cursor.n:  # nobody spoke yet in a room of which only the group is there
            rooms, room = place
            yield "ZADD", rooms, int(time.time() * 1000), room
            yield "EXPIRE", rooms, idle_s


def _some(part: list[Feed], count: int) -> list[Feed]:
    """At most `count` of them, by chance: whoever goes on by as many as it saw may see the same ones each round."""
    return random.sample(part, min(count, len(part)))
