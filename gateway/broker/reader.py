"""The way out of the log: one loop reads the rooms whose doorbell rang, each reply continuing where the last ended.

Knows no room or session. What it finds goes to each feed's follower; what the log lost is told before what follows.
"""

import asyncio
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import structlog

from gateway.broker import refusals
from gateway.broker.errors import BrokerGone, BrokerRefused, Fault, fault_of
from gateway.broker.feed import Feed
from gateway.broker.groups import Groups
from gateway.broker.lane import Lane
from gateway.broker.pace import Pace
from gateway.core.entry import START, Entry, Gap, decode, epoch_of
from gateway.core.history import Event, State
from gateway.telemetry.metrics import Metrics

# A reply holds at most about this much: COUNT is per stream, so rooms and COUNT are chosen by what the rooms lately
# held; a room of which nothing is known counts as one of the largest messages.
REPLY_BYTES = 4_194_304
ROOMS_PER_CALL = 256
COUNT_MAX = 1_000
# A read that was refused for good is tried again after so long: it must not become a hot loop.
REFUSED_PAUSE_S = 0.5
# Stream overhead of one entry in a reply, beside its message.
ENTRY_REPLY_BYTES = 100
# The longest that reading waits for another connection, the doorbell's; without it a loss is told as unknown.
BELLS_WAIT_S = 0.5

log = structlog.get_logger()


class Reader:
    """The dirty set and the loop that empties it."""

    def __init__(
        self,
        lane: Lane,
        bell_lane: Lane,
        groups: Groups,
        pace: Pace,
        metrics: Metrics,
        entry_bytes_max: int,
    ) -> None:
        self._lane = lane
        self._groups = groups
        self._pace = pace
        self._metrics = metrics
        self._entry_bytes_max = entry_bytes_max
        self._bell_lane = bell_lane
        self.feeds: dict[bytes, Feed] = {}
        # An ordered set: who rang first is read first.
        self._dirty: dict[Feed, None] = {}
        self._rung = asyncio.Event()
        # Feeds that were not read to their end since their doorbell was last connected: bells may be missing.
        self._unsure: set[Feed] = set()
        self._server = b""
        metrics.known("nonsense", ("bell", "stray bell"))

    def ring(self, key: bytes, bell: bytes) -> None:
        """The log grew. For a log that nobody follows any more this does nothing."""
        feed = self.feeds.get(key)
        if feed is None:
            return
        if not feed.hear(bell, self._bell_lane.server) and bell:
            self._metrics.nonsense["bell"] += 1
            refusals.puzzle("bell", key, bell)
        self.mark((feed,))

    def listens(self, key: bytes) -> None:
        """The log's doorbell is connected (again). What was appended until now may have gone unheard."""
        feed = self.feeds.get(key)
        if feed is not None:
            feed.unhear()
            self._unsure.add(feed)
            self.mark((feed,))

    def mark(self, feeds: Iterable[Feed]) -> None:
        """Read these soon."""
        self._dirty.update(dict.fromkeys(feeds))
        if self._dirty:
            self._rung.set()

    def distrust(self) -> None:
        """Prove every group and cursor before the next read: another server, or this node was believed dead."""
        for feed in self.feeds.values():
            feed.doubt()
            feed.entry_bytes = self._entry_bytes_max
        self.mark(self.feeds.values())

    def up(self) -> None:
        """A new connection. What the old one's last read did is unknown; its feeds are already distrusted."""
        changed = self._server not in (b"", self._lane.run_id + self._lane.server)
        self._server = self._lane.run_id + self._lane.server
        self._metrics.broker_changes += changed
        self._groups.remove_owed()
        for feed in self.feeds.values():
            feed.entry_bytes = self._entry_bytes_max  # what came meanwhile may be of any size
            if changed:
                feed.doubt()
        self.mark(self.feeds.values())

    def add(self, feed: Feed) -> None:
        self.feeds[feed.key] = feed

    def remove(self, feed: Feed) -> None:
        self.feeds.pop(feed.key, None)
        self._dirty.pop(feed, None)
        self._unsure.discard(feed)

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            if not self._dirty:
                self._rung.clear()
                await self._rung.wait()
            await self._lane.up()
            await self._pace.turn()
            feeds = self._next()
            try:
                await self._read(feeds)
            except BrokerGone:
                # The read may have moved the groups past what we got.
                for feed in feeds:
                    feed.doubt()
                self.mark(feed for feed in feeds if self._follows(feed))
            except BrokerRefused as exc:
                self._heal(feeds, exc)
                if fault_of(exc.code) is not Fault.NO_GROUP:
                    await asyncio.sleep(REFUSED_PAUSE_S)

    def _next(self) -> list[Feed]:
        """Who rang first: so many that one entry of each fits into a reply."""
        feeds: list[Feed] = []
        size = 0
        for feed in islice(self._dirty, ROOMS_PER_CALL):
            size += feed.entry_bytes
            if size > REPLY_BYTES and feeds:
                break
            feeds.append(feed)
        for feed in feeds:
            del self._dirty[feed]
        return feeds

    async def _read(self, feeds: Sequence[Feed]) -> None:
        unproven = [feed for feed in feeds if not feed.grouped]
        if unproven:
            await self._hear_all([feed for feed in unproven if feed.cursor != START])
            await self._groups.prove([feed for feed in unproven if self._follows(feed)])
        ready = [feed for feed in feeds if feed.grouped and self._follows(feed)]
        if not ready:
            return
        count = max(1, min(COUNT_MAX, REPLY_BYTES // sum(feed.entry_bytes for feed in ready)))
        ids = [">"] * len(ready)
        reply: dict[bytes, list[list[Any]]] | None = await self._lane.ask(
            "XREADGROUP", "GROUP", self._groups.name, "n", "COUNT", count, "NOACK",
            "STREAMS", *(feed.key for feed in ready), *ids,
        )  # fmt: skip
        self._metrics.reads += 1
        self._metrics.read_rooms += len(ready)
        brought = reply or {}
        more: list[Feed] = []
        for feed in ready:
            raw = brought.get(feed.key)
            if not self._follows(feed):
                continue
            if not (self._none(feed) if raw is None else self._take(feed, raw) and len(raw) < count):
                more.append(feed)
        self.mark(more)
        if self._unsure:
            self._settle(set(ready).difference(more))

    def _settle(self, read: set[Feed]) -> None:
        """These were read to their end: every bell from now on is heard, until the doorbell breaks again."""
        for feed in self._unsure & read:
            feed.sure = True
        self._unsure -= read

    def _follows(self, feed: Feed) -> bool:
        """Whether the room was not closed meanwhile (and perhaps opened again, with another feed)."""
        return self.feeds.get(feed.key) is feed

    async def _hear_all(self, feeds: Sequence[Feed]) -> None:
        """Bells travel by a connection of their own: before a log is judged, those that rang must have arrived."""
        if not feeds:
            return
        try:
            async with asyncio.timeout(BELLS_WAIT_S):
                await self._bell_lane.ask("CLIENT", "ID")  # any command would do
        except BrokerRefused:  # and any answer
            pass
        except (BrokerGone, TimeoutError):
            for feed in feeds:
                feed.sure = False
            self._unsure.update(feeds)

    def _heal(self, feeds: Sequence[Feed], refused: BrokerRefused) -> None:
        """One missing log or group fails the whole call: prove them all in one pipeline, then read again."""
        if fault_of(refused.code) is not Fault.NO_GROUP:
            refusals.tell(str(refused))
        self._metrics.groups_healed += 1
        for feed in feeds:
            feed.doubt()
        self.mark(feed for feed in feeds if self._follows(feed))

    def _none(self, feed: Feed) -> bool:
        """The log has nothing new; False: though a bell said so, and it is to be asked."""
        rung = feed.bells.fulfil(feed.cursor) and feed.state is State.FOLLOWING and feed not in self._dirty
        feed.on(Event.DOUBT if rung else Event.NOTHING)
        return not rung

    def _take(self, feed: Feed, raw: Sequence[Sequence[Any]]) -> bool:
        """Deliver what was read; False: not before the log was asked, and read once more."""
        stretch = [decode(id, fields) for id, fields in raw]
        feed.entry_bytes = ENTRY_REPLY_BYTES + max(
            len(item.message) if isinstance(item, Entry) else self._entry_bytes_max for item in stretch
        )
        first = epoch_of(raw[0][1])
        last = epoch_of(raw[-1][1]) if len(raw) > 1 else first
        pieces = feed.take(stretch, first, last, lambda: [epoch_of(fields) for _, fields in raw], raw[-1][0])
        if pieces is None:
            return False
        for piece in pieces:
            if isinstance(piece, Gap):
                feed.follower.lose(piece)
            else:
                self._metrics.read_entries += len(piece)
                feed.follower.deliver(piece)
        return True
