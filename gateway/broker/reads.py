"""Pieces of a log older than the node's tail, read from the stream: onwards for walks, and back, page by page, for who
asks. Bounded, and shared by all who want the same."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from gateway.broker.feed import Feed
from gateway.broker.lane import Lane
from gateway.broker.script import Script
from gateway.core.contiguity import doubted, first_id, former, place, told
from gateway.core.entry import START, Entry, EntryId, Gap, decode, entry_id
from gateway.core.paging import Back, Page
from gateway.telemetry.metrics import Metrics

# The most that one page holds. Who reads asks for less where messages are large.
PAGE_ENTRIES = 128

Piece = list[Entry] | Gap
Raw = list[tuple[bytes, list[bytes]]]
# What is read, of which log: whoever wants the same has the same key.
Key = tuple[str, bytes, EntryId, EntryId, int]
T = TypeVar("T")


class Reads:
    """XRANGE, of a master: a replica's pages would lack what came last. Errors: BrokerGone, BrokerRefused."""

    def __init__(self, lane: Lane, pages_max: int, metrics: Metrics) -> None:
        self._lane = lane
        self._metrics = metrics
        self._start = Script("start", lane)
        # Whoever reads a page holds one of these until it needs the page no more: they bound what pages take.
        self.pages = asyncio.Semaphore(pages_max)
        # Pages under way; who asks for the same one meanwhile gets the same one.
        self._under_way: dict[Key, asyncio.Task[Any]] = {}

    async def after(self, feed: Feed, cursor: EntryId, top: EntryId, entries_max: int, past: int = 0) -> list[Piece]:
        """What follows `cursor`, up to and including `top`: at most `entries_max` entries, gaps between them told.

        `past`: the newest seam that the cursor is known to be behind. The caller holds one of `pages`. Empty: the log
        holds nothing there any more.
        """
        key = ("after", feed.key, cursor, top, past)
        return await self._once(key, lambda: self._after(feed, cursor, top, entries_max, past))

    async def before(self, feed: Feed, end: EntryId, known: EntryId, entries_max: int, bytes_max: int) -> Page:
        """The page that ends below `end`.

        `known`: the entry at `end`, or right below it: whether the log has it tells of which history `end` is. The
        caller holds one of `pages`.
        """
        key = ("before", feed.key, end, known, entries_max)
        return await self._once(key, lambda: self._before(feed, end, known, Back(end, entries_max, bytes_max)))

    async def _once(self, key: Key, read: Callable[[], Coroutine[Any, Any, T]]) -> T:
        task: asyncio.Task[T] | None = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(read(), name="page")
            task.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(task)

    def _forget(self, key: Key, task: "asyncio.Task[Any]") -> None:
        self._under_way.pop(key, None)
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
            stretch = _decoded(raw)
            if not stretch:
                return []
            doubt = doubted(feed.seams, line, cursor, past, first_id(stretch[0]))
            return list(told(feed.seams, cursor, stretch, line, doubt))
        if not raw:
            return []
        stretch = _decoded(raw[:entries_max])
        first = first_id(stretch[0])
        known = cursor in (START, first.before())
        if not known and (first.n <= 1 or await self._elsewhere(feed, cursor, first)):
            return [Gap(cursor, first, None), *told(feed.seams, first.before(), stretch)]
        return list(told(feed.seams, cursor, stretch))

    async def _before(self, feed: Feed, end: EntryId, known: EntryId, back: Back) -> Page:
        self._metrics.pages += 1
        seams, lines = feed.seams, feed.lines
        count = min(PAGE_ENTRIES, back.wants(feed.entry_bytes))
        raw = await self._back(feed, str(known), count)
        there = bool(raw) and entry_id(raw[0][0]) == known
        line = None if there else former(lines, known)
        if line is not None:
            # It stood in a log that is gone: of that one the present log has what all that came since kept.
            seams = lines[:line]
            raw = await self._back(feed, str(min(seam.kept for seam in lines[line:])), count)
        full = back.take(_decoded(raw))
        while not full and len(raw) == count:
            low = raw[-1][0].decode()
            count = min(PAGE_ENTRIES, back.wants(feed.entry_bytes))
            raw = await self._back(feed, f"({low}", count)
            full = back.take(_decoded(raw))
        return back.page(seams, full, counted=there or known <= max([feed.newest, *(seam.high for seam in lines)]))

    async def _back(self, feed: Feed, high: str, entries_max: int) -> Raw:
        raw: Raw = await self._lane.ask_master("XREVRANGE", feed.key, high, "-", "COUNT", entries_max)
        return raw

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
        first: bytes | None = await self._start.ask_master((feed.key,), str(top), count)
        return top if first is None else entry_id(first).before()


def _decoded(raw: Raw) -> list[Entry | Gap]:
    return [decode(id, fields) for id, fields in raw]
