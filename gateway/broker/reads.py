"""Pieces of a log older than the node's tail, read from the stream. Bounded, and shared by all who stand there."""

import asyncio

import redis.asyncio as redis

import broker_config
from gateway.broker.endpoint import ask
from gateway.broker.feed import Feed
from gateway.core.contiguity import contiguous, first_id, told
from gateway.core.entry import Entry, EntryId, Gap, decode, entry_id
from gateway.metrics import Metrics

# The most that one page holds. Who reads asks for less where messages are large.
PAGE_ENTRIES = 128

Piece = list[Entry] | Gap


class Reads:
    """XRANGE over redis-py. Errors: BrokerGone, BrokerRefused."""

    def __init__(self, client: redis.Redis, pages_max: int, metrics: Metrics) -> None:
        self._client = client
        self._metrics = metrics
        self._start = client.register_script(broker_config.script("start"))
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
        raw = await ask(self._client.xrange(feed.key, f"({cursor}", str(top), count=entries_max))
        if not raw:
            return []
        stretch = [decode(id, [part for field in fields.items() for part in field]) for id, fields in raw]
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
        below = await ask(self._client.xrevrange(feed.key, str(cursor), "-", count=1))
        return bool(below) and entry_id(below[0][0]).n == n - 1

    async def start_of_last(self, feed: Feed, top: EntryId, count: int) -> EntryId:
        """The cursor from which `count` entries follow up to `top`, or as many as the log has."""
        first: bytes | None = await ask(self._start(keys=[feed.key], args=[str(top), count]))
        return top if first is None else entry_id(first).before()
