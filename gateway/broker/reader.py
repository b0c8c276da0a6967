"""The way out of the log: one loop reads the rooms whose doorbell rang, each reply continuing where the last ended.

Knows no room or session. What it finds goes to each feed's follower; what the log lost is told before what follows.
"""

import asyncio
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from gateway.broker import refusals
from gateway.broker.errors import BrokerGone, BrokerRefused, Fault, fault_of
from gateway.broker.feed import Feed
from gateway.broker.groups import Groups
from gateway.broker.lane import Lane
from gateway.broker.pace import Pace
from gateway.core.entry import Entry, EntryId, Gap, decode, gap_between
from gateway.metrics import Metrics

# A reply holds at most about this much: COUNT is per stream, so it is chosen by what the rooms lately held.
REPLY_BYTES = 4_194_304
ROOMS_PER_CALL = 256
COUNT_MAX = 1_000
# A read that was refused for good is tried again after so long: it must not become a hot loop.
REFUSED_PAUSE_S = 0.5
# Stream overhead of one entry in a reply, beside its message.
ENTRY_OVERHEAD_BYTES = 100


class Reader:
    """The dirty set and the loop that empties it."""

    def __init__(self, lane: Lane, groups: Groups, pace: Pace, metrics: Metrics, entry_bytes_max: int) -> None:
        self._lane = lane
        self._groups = groups
        self._pace = pace
        self._metrics = metrics
        self._entry_bytes_max = entry_bytes_max
        self.feeds: dict[bytes, Feed] = {}
        # An ordered set: who rang first is read first.
        self._dirty: dict[Feed, None] = {}
        self._rung = asyncio.Event()
        self._run_id = b""
        lane.on_up = self._up

    def ring(self, key: bytes) -> None:
        """The log may have grown. For a log that nobody follows any more this does nothing."""
        feed = self.feeds.get(key)
        if feed is not None:
            self.mark((feed,))

    def mark(self, feeds: Iterable[Feed]) -> None:
        """Read these soon."""
        self._dirty.update(dict.fromkeys(feeds))
        if self._dirty:
            self._rung.set()

    def distrust(self) -> None:
        """Prove every group and cursor before the next read: another server, or this node was believed dead."""
        for feed in self.feeds.values():
            feed.grouped = False
            feed.entry_bytes = self._entry_bytes_max
        self.mark(self.feeds.values())

    def _up(self) -> None:
        """A new connection. What the old one's last read did is unknown; its feeds are already distrusted."""
        if self._run_id and self._lane.run_id != self._run_id:
            self._metrics.broker_changes += 1
            self.distrust()
        self._run_id = self._lane.run_id
        self.mark(self.feeds.values())

    def add(self, feed: Feed) -> None:
        self.feeds[feed.key] = feed

    def remove(self, feed: Feed) -> None:
        self.feeds.pop(feed.key, None)
        self._dirty.pop(feed, None)

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            if not self._dirty:
                self._rung.clear()
                await self._rung.wait()
            await self._lane.up()
            await self._pace.turn()
            feeds = list(islice(self._dirty, ROOMS_PER_CALL))
            for feed in feeds:
                del self._dirty[feed]
            try:
                await self._read(feeds)
            except BrokerGone:
                # The read may have moved the groups past what we got.
                for feed in feeds:
                    feed.grouped = False
                self.mark(feed for feed in feeds if feed.key in self.feeds)

    async def _read(self, feeds: Sequence[Feed]) -> None:
        unproven = [feed for feed in feeds if not feed.grouped]
        if unproven:
            await self._groups.prove(unproven)
        ready = [feed for feed in feeds if feed.grouped and feed.key in self.feeds]
        if not ready:
            return
        count = max(1, min(COUNT_MAX, REPLY_BYTES // sum(feed.entry_bytes for feed in ready)))
        ids = [">"] * len(ready)
        try:
            reply: dict[bytes, list[list[Any]]] | None = await self._lane.ask(
                "XREADGROUP", "GROUP", self._groups.name, "n", "COUNT", count, "NOACK",
                "STREAMS", *(feed.key for feed in ready), *ids,
            )  # fmt: skip
        except BrokerRefused as exc:
            self._heal(ready, exc)
            if fault_of(exc.code) is not Fault.NO_GROUP:
                await asyncio.sleep(REFUSED_PAUSE_S)
            return
        self._metrics.reads += 1
        self._metrics.read_rooms += len(ready)
        proven = frozenset(unproven)
        for key, raw in (reply or {}).items():
            feed = self.feeds.get(key)
            if feed is not None:
                self._take(feed, raw, feed in proven)
                if len(raw) >= count:
                    self.mark((feed,))

    def _heal(self, feeds: Sequence[Feed], refused: BrokerRefused) -> None:
        """One missing log or group fails the whole call: prove them all in one pipeline, then read again."""
        if fault_of(refused.code) is not Fault.NO_GROUP:
            refusals.tell(str(refused))
        self._metrics.groups_healed += 1
        for feed in feeds:
            feed.grouped = False
        self.mark(feeds)

    def _take(self, feed: Feed, raw: Sequence[Sequence[Any]], proven: bool) -> None:
        stretch = [decode(id, fields) for id, fields in raw]
        feed.entry_bytes = ENTRY_OVERHEAD_BYTES + max(
            len(item.message) if isinstance(item, Entry) else self._entry_bytes_max for item in stretch
        )
        gap = gap_between(feed.cursor, _first_id(stretch[0]))
        if gap is not None and not proven:
            # Ask the log itself before telling a gap; the proof puts the group back, so this is read again.
            feed.grouped = False
            self.mark((feed,))
            return
        for item in contiguous(feed.cursor, stretch):
            if isinstance(item, Gap):
                self._metrics.gaps += 1
                feed.cursor = item.before.before()
                feed.follower.lose(item)
            else:
                self._metrics.read_entries += len(item)
                feed.cursor = item[-1].id
                feed.follower.deliver(item)


def _first_id(item: Entry | Gap) -> EntryId:
    return item.id if isinstance(item, Entry) else item.before.before()


def contiguous(cursor: EntryId, stretch: list[Entry | Gap]) -> Iterable[list[Entry] | Gap]:
    """A piece of log as it is told to its readers: runs of entries, and the gaps between them."""
    last = _first_id(stretch[-1])
    # Dense ids: nothing is missing between. An unreadable entry has its place in the count and is a gap all the same.
    if last.n - cursor.n == len(stretch) and Gap not in map(type, stretch):
        yield stretch  # type: ignore[misc]
        return
    run: list[Entry] = []
    for item in stretch:
        id = _first_id(item)
        gap = gap_between(cursor, id)
        if gap is not None or isinstance(item, Gap):
            if run:
                yield run
                run = []
            if gap is not None:
                yield gap
            if isinstance(item, Gap):
                yield item
        if isinstance(item, Entry):
            run.append(item)
        cursor = id
    if run:
        yield run
