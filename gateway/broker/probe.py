"""The proof of life: an entry goes the whole road, publisher to log to doorbell to reader, and its age is what counts.

A healthy TCP connection proves nothing: the field's best system once went deaf after a failover with its health
check green. Nor does an entry that the sweep found: only one whose own bell was heard, over connections that still
stand. A broker that is full, or whose disk is, refuses it, and is as alive as before: the refusal came back, and proves
the road.
"""

import asyncio
import time
from collections.abc import Callable, Collection

from gateway.broker.feed import Feed
from gateway.broker.publish import Refusal
from gateway.broker.publisher import Publisher
from gateway.core.entry import START, Entry, EntryId, Gap, decode_bell
from gateway.core.wires import Ref
from gateway.telemetry.clock import Clock

# Probes per probe_s: one may be lost without the road being doubted.
PROBES_PER_PERIOD = 5
# A fruitless reconnect doubles the patience, up to this many times probe_s: a slow broker must not be made slower.
PATIENCE_MAX = 10
# Clock offsets kept; the one measured over the shortest round trip is believed.
OFFSETS_KEPT = 16


class Probe:
    """Follower of the node's own probe log, which is `feed`. `whole`: no connection is down at present; `reconnect` is
    called when the road is not proven in time."""

    def __init__(
        self,
        node: str,
        key: bytes,
        publisher: Publisher,
        clock: Clock,
        period_s: float,
        entry_bytes_max: int,
        whole: Callable[[], bool],
        reconnect: Callable[[str], None],
    ) -> None:
        self._node = node
        self.feed = Feed(key, self, entry_bytes_max)
        self._publisher = publisher
        self._clock = clock
        self._period_s = period_s
        self._whole = whole
        self._reconnect = reconnect
        self._patience_s = period_s
        # When the last probe came back; None: none yet.
        self._proven_at: float | None = None
        # When the road was last doubted: a connection was lost since the last probe came back, or all were given up.
        self._doubted_at = clock.now()
        self._doubted = True
        # The newest probe of ours that came back, and did not prove anything yet; START: none.
        self._returned = START
        self._sent: tuple[float, float] | None = None
        # What the broker said to the last probe, while it is well and takes nothing (full, its disk is); None: it does.
        self.refused: Refusal | None = None
        # The id of the last answered probe, when it was sent (Unix time), its round trip in seconds.
        self._stamped: tuple[bytes, float, float] = (b"", 0.0, 0.0)
        # (round trip in seconds, broker's clock less ours in seconds)
        self._offsets: list[tuple[float, float]] = []
        # The broker's clock less this machine's, in seconds, by the shortest round trip lately.
        self.offset_s = 0.0
        # Set at each proof, for those who wait then. Who gives up leaves nothing in it.
        self._proof = asyncio.Event()

    @property
    def every_s(self) -> float:
        return self._period_s / PROBES_PER_PERIOD

    def age_s(self) -> float | None:
        """Seconds since the road was last proven; None: never."""
        return None if self._proven_at is None else self._clock.now() - self._proven_at

    @property
    def proven(self) -> bool:
        """The whole road worked within the last period, and no connection of it was lost since."""
        age_s = self.age_s()
        return age_s is not None and age_s < self._period_s and not self._doubted

    def doubt(self) -> None:
        """A connection was lost: what was proven of the road was proven of another one."""
        self._doubted = True
        self._doubted_at = self._clock.now()

    async def proof(self) -> None:
        """Wait until the road is proven; at once while it is."""
        while not self.proven:
            await self._proof.wait()

    def turn(self) -> None:
        """Send the next probe, judge the last ones. To be called every `every_s`."""
        self._judge()
        now = self._clock.now()
        since_s = now - max(self._proven_at or 0.0, self._doubted_at)
        if since_s > self._patience_s:
            self._patience_s = min(self._patience_s * 2, self._period_s * PATIENCE_MAX)
            self._doubted_at = now
            self._reconnect(f"no probe came back within {since_s:.1f} s")
        if self._sent is None:
            self._sent = (time.time(), time.monotonic())
            self._publisher.offer(self.feed.key, self._node, b"", b"null", None, self._answered)

    def _answered(self, outcome: bytes | Refusal, ref: Ref) -> None:
        sent, self._sent = self._sent, None
        self.refused = outcome if isinstance(outcome, Refusal) and outcome.passing else None
        if isinstance(outcome, bytes) and sent is not None:
            self._stamped = (outcome, sent[0], time.monotonic() - sent[1])
        elif self.refused is not None:
            self._prove()
        elif outcome is Refusal.REFUSED:
            # It proves nothing that people need, but another connection would be told the same.
            self._doubted_at = self._clock.now()

    def deliver(self, entries: list[Entry]) -> None:
        mine = [entry.id for entry in entries if entry.sender == self._node]
        if mine:
            self._returned = mine[-1]
            self._judge()
        stamp, sent_at, round_trip_s = self._stamped
        if str(entries[-1].id).encode() == stamp:
            # The entry's clock is cut to the ms: the middle of it is the best guess.
            broker_s = (entries[-1].at + 0.5) / 1000
            self._offsets = [*self._offsets[1 - OFFSETS_KEPT :], (round_trip_s, broker_s - sent_at - round_trip_s / 2)]
            self.offset_s = min(self._offsets)[1]

    def _judge(self) -> None:
        """A probe proves the road when its own bell was heard, in whatever order they came."""
        bell = decode_bell(self.feed.rung)
        if bell is not None and bell.id == self._returned != START:
            self._prove()

    def _prove(self) -> None:
        if not self._whole():
            return
        self._returned = START
        self._doubted = False
        self._proven_at = self._clock.now()
        self._patience_s = self._period_s
        self._proof.set()
        self._proof.clear()

    def lose(self, gap: Gap) -> None:
        """A lost probe is no loss; the next ones tell whether the road works."""

    def recent(self) -> Collection[EntryId]:
        return ()
