"""Pieces of a log older than the node's tail, read from the stream. Bounded, and shared by all who stand there."""

import asyncio

import broker_config
from gateway.broker.errors import BrokerRefused, Fault, fault_of
from gateway.broker.feed import Feed
from gateway.broker.lane import Lane
from gateway.core.contiguity import contiguous, first_id, told
from gateway.core.entry import Entry, EntryId, Gap, decode, entry_id
from gateway.metrics import Metrics

# The most that one page holds. Who reads asks for less where messages are large.
PAGE_ENTRIES = 128

Piece = list[Entry] | Gap


class Reads:
    """XRANGE, of a master: a replica's pages would lack what came last. Errors: BrokerGone, BrokerRefused."""

    def __init__(self, lane: Lane, pages_max: int, metrics: Metrics) -> None:
        self._lane = lane
        self._metrics = metrics
        self._script = broker_config.script("start")
        self._sha = b""
        # Whoever reads a page holds one of these until it needs the page no more: they bound what pages take.
        self.pages = asyncio.Semaphore(pages_max)
        # Pages under way; who asks for the same one meanwhile gets the same one.
        self._under_way: dict[tuple[bytes, EntryId, EntryId], asyncio.Task[list[Piece]]] = {}

    async def after(self, feed: Feed, cursor: EntryId, top: EntryId, entries_max: int) -> list[Piece]:
        """What follows `cursor`, up to and including `top`: at most `entries_max` entries, gaps between them told.

        The caller holds one of `pages`. Empty: the log holds nothing there any more.
        """
        place = (feed.key, cursor, top)
        task = self._under_way.get(place)
        if task is None:
            task = self._under_way[place] = asyncio.create_task(
                self._after(feed, cursor, top, entries_max), name="page"
            )
            task.add_done_callback(lambda done: self._forget(place, done))
        return await asyncio.shield(task)

    def _forget(self, place: tuple[bytes, EntryId, EntryId], task: "asyncio.Task[list[Piece]]") -> None:
        self._under_way.pop(place, None)
        if not task.cancelled():
            task.exception()  # everybody who asked may have left

    async def _after(self, feed: Feed, cursor: EntryId, top: EntryId, entries_max: int) -> list[Piece]:
        self._metrics.pages += 1
        raw = await self._lane.ask_master("XRANGE", feed.key, f"({cursor}", str(top), "COUNT", entries_max)
        if not raw:
            return []
        stretch = [decode(id, fields) for id, fields in raw]
        first = first_id(stretch[0])
        if first.n == 1 and cursor.n:
            lost = feed.lost_before(first, cursor)
            gone = [] if lost == 0 else [Gap(cursor, first, lost)]
            return [*gone, *contiguous(first.before(), stretch)]
        read_n = cursor.n
        if 1 < first.n <= cursor.n and await self._precedes(feed, cursor, first.n):
            # The log was rewound below the cursor: nothing is missing in the new log.
            cursor = EntryId(cursor.ms, first.n - 1)
        return list(told(feed.tear, cursor, stretch, read_n))

    async def _precedes(self, feed: Feed, cursor: EntryId, n: int) -> bool:
        below = await self._lane.ask_master("XREVRANGE", feed.key, str(cursor), "-", "COUNT", 1)
        return bool(below) and entry_id(below[0][0]).n == n - 1

    async def start_of_last(self, feed: Feed, top: EntryId, count: int) -> EntryId:
        """The cursor from which `count` entries follow up to `top`, or as many as the log has."""
        while True:
            try:
                first: bytes | None = await self._lane.ask_master("EVALSHA", self._sha, 1, feed.key, str(top), count)
            except BrokerRefused as exc:
                if fault_of(exc.code) is not Fault.LOAD:
                    raise
                self._sha = await self._lane.ask("SCRIPT", "LOAD", self._script)
            else:
                return top if first is None else entry_id(first).before()
