"""Pieces of a log older than the node's tail, read from the stream. Bounded, and shared by all who stand there."""

import asyncio

import broker_config
from gateway.broker.errors import BrokerRefused, Fault, fault_of
from gateway.broker.feed import Feed
from gateway.broker.lane import Lane
from gateway.core.contiguity import first_id, former, place, told
from gateway.core.entry import START, Entry, EntryId, Gap, decode, entry_id
from gateway.metrics import Metrics

# The most that one page holds. Who reads asks for less where messages are large.
PAGE_ENTRIES = 128

Piece = list[Entry] | Gap
Raw = list[tuple[bytes, list[bytes]]]
# Which page of which log: behind which id, up to which, and past which seam.
Page = tuple[bytes, EntryId, EntryId, int]


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
        self._under_way: dict[Page, asyncio.Task[list[Piece]]] = {}

    async def after(self, feed: Feed, cursor: EntryId, top: EntryId, entries_max: int, past: int = 0) -> list[Piece]:
        """What follows `cursor`, up to and including `top`: at most `entries_max` entries, gaps between them told.

        `past`: the newest seam that the cursor is known to be behind. The caller holds one of `pages`. Empty: the log
        holds nothing there any more.
        """
        place = (feed.key, cursor, top, past)
        task = self._under_way.get(place)
        if task is None:
            task = self._under_way[place] = asyncio.create_task(
                self._after(feed, cursor, top, entries_max, past), name="page"
            )
            task.add_done_callback(lambda done: self._forget(place, done))
        return await asyncio.shield(task)

    def _forget(self, place: Page, task: "asyncio.Task[list[Piece]]") -> None:
        self._under_way.pop(place, None)
        if not task.cancelled():
            task.exception()  # everybody who asked may have left

    async def _after(self, feed: Feed, cursor: EntryId, top: EntryId, entries_max: int, past: int) -> list[Piece]:
        self._metrics.pages += 1
        # From the cursor on: whether its own entry is there tells whether it is of this history.
        raw = await self._range(feed, str(cursor), top, entries_max + 1)
        if raw and entry_id(raw[0][0]) == cursor:
            stretch = _decoded(raw[1:])
            return list(told(feed.seams, cursor, stretch)) if stretch else []
        behind_a_seam = bool(raw) and entry_id(raw[0][0]).before() == cursor
        line = None if behind_a_seam else former(feed.seams, cursor, past)
        if line is not None:
            raw = await self._range(feed, f"({place(feed.seams, line).before()}", top, entries_max)
            return list(told(feed.seams, cursor, _decoded(raw), line)) if raw else []
        if not raw:
            return []
        stretch = _decoded(raw[:entries_max])
        first = first_id(stretch[0])
        known = cursor in (START, first.before())
        if not known and (first.n <= 1 or await self._elsewhere(feed, cursor, first)):
            return [Gap(cursor, first, None), *told(feed.seams, first.before(), stretch)]
        return list(told(feed.seams, cursor, stretch))

    async def _range(self, feed: Feed, low: str, top: EntryId, entries_max: int) -> Raw:
        raw: Raw = await self._lane.ask_master("XRANGE", feed.key, low, str(top), "COUNT", entries_max)
        return raw

    async def _elsewhere(self, feed: Feed, cursor: EntryId, first: EntryId) -> bool:
        """Whether a cursor that the log has not got is of another history, as what stands on both sides of it tells."""
        below: Raw = await self._lane.ask_master("XREVRANGE", feed.key, str(cursor), "-", "COUNT", 1)
        if not below:
            return first.n <= cursor.n  # else trimmed away, for all that can be known
        last = entry_id(below[0][0])
        return not last.n < cursor.n < first.n

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


def _decoded(raw: Raw) -> list[Entry | Gap]:
    return [decode(id, fields) for id, fields in raw]
