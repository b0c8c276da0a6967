"""Reading a room by pages, for who asks: back, below the place where a session's messages began, and onwards, behind
an offset.

A page is bounded like a step of a walk, and read and written at its turn among them: it costs others no more.
"""

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple

from gateway.broker.broker import Broker
from gateway.broker.errors import BrokerGone
from gateway.broker.reads import PAGE_ENTRIES, Piece
from gateway.core.entry import Entry, EntryId, Gap
from gateway.core.paging import Back, Page
from gateway.rooms.room import PAGE_ENTRIES_FIRST, Room
from gateway.rooms.session import Session
from gateway.rooms.walks import WALK_BYTES, Walks

# A page that could not be read is asked for again after this long.
RETRY_S = 0.1


class Onward(NamedTuple):
    """What follows an offset."""

    # Oldest first, without a hole between them.
    entries: list[Entry]
    # Where stands who has got these.
    reached: EntryId
    # What is missing between the offset and them; None: nothing.
    hole: Gap | None = None
    # The log has not got the entry of the offset, so that nobody knows what followed it: not a hole, but the end.
    gone: bool = False


class Paging:
    """For all rooms of a node. Waits for the broker: the caller brings a deadline. Raises BrokerRefused."""

    def __init__(self, broker: Broker, walks: Walks, outgoing_bytes_max: int) -> None:
        self._broker = broker
        self._walks = walks
        # A larger frame would put a live session behind.
        self._bytes_max = min(WALK_BYTES, outgoing_bytes_max)

    # ---- back ----

    async def page(self, session: Session, before: EntryId | None, entries_max: int) -> Page:
        """What the log has below `before`; None: up to where the session's messages began. To be told in a `turn`."""
        if before is None:
            # There may be no such entry yet; of which history it would be tells the one below.
            known = session.began
            end = EntryId(known.ms, known.n + 1)
        else:
            known = end = before
        return self._at_hand(session, end, known, entries_max) or await self._read(session, end, known, entries_max)

    def turn(self) -> AbstractAsyncContextManager[None]:
        """To make a page's frame and write it: a walk's turn, for it is as much work as a step of one."""
        return self._walks.turn()

    def _at_hand(self, session: Session, end: EntryId, known: EntryId, entries_max: int) -> Page | None:
        """From the room's tail, if it has the whole page and goes on below it."""
        back = Back(end, entries_max, self._bytes_max)
        recent = session.room.tail.until(known, entries_max + 2)
        if recent is None or not back.take(reversed(recent)):
            return None
        return back.page(session.room.feed.seams, more=True)

    async def _read(self, session: Session, end: EntryId, known: EntryId, entries_max: int) -> Page:
        reads = self._broker.reads
        while True:
            await self._broker.proof()
            try:
                async with reads.pages:
                    return await reads.before(session.room.feed, end, known, entries_max, self._bytes_max)
            except BrokerGone:
                await asyncio.sleep(RETRY_S)

    # ---- onwards ----

    async def reach_end(self, room: Room) -> None:
        """Read up to where the log is now: what was acknowledged before this was asked, by whichever node, is here."""
        end = None
        while end is None:
            await self._broker.proof()
            try:
                end = await self._broker.end(room.feed)
            except BrokerGone:
                await asyncio.sleep(RETRY_S)
        while room.top < end:
            self._broker.ring(room.feed)
            await room.top_moved()

    async def onward(self, room: Room, cursor: EntryId) -> Onward:
        """What follows a cursor, as far as this node has read: at most a page."""
        while True:
            recent = room.tail.after(cursor, PAGE_ENTRIES)
            if recent:
                return self._fitting(recent)
            if cursor == room.newest:
                return Onward([], cursor)
            await self._broker.proof()
            try:
                return await self._read_on(room, cursor)
            except BrokerGone:
                await asyncio.sleep(RETRY_S)

    async def _read_on(self, room: Room, cursor: EntryId) -> Onward:
        fit = self._bytes_max // room.feed.entry_bytes
        count = min(PAGE_ENTRIES, max(PAGE_ENTRIES_FIRST, fit))
        async with self._broker.reads.pages:
            pieces = await self._broker.reads.after(room.feed, cursor, room.top, count)
        if pieces and not isinstance(pieces[0], Gap):
            return self._fitting(room.unsaid(pieces[0]))
        gone = not await self._broker.has(room.feed, cursor)
        if not pieces and not gone:  # another node has read further
            return Onward([], cursor)
        hole, *rest = pieces or [room.nothing_left(cursor)]
        assert isinstance(hole, Gap)
        return self._behind(room, hole, rest, gone)

    def _behind(self, room: Room, hole: Gap, rest: list[Piece], gone: bool) -> Onward:
        if not rest or isinstance(rest[0], Gap):
            return Onward([], hole.before.before(), hole, gone)
        return self._fitting(room.unsaid(rest[0]))._replace(hole=hole, gone=gone)

    def _fitting(self, entries: list[Entry]) -> Onward:
        """As many of these as make a page."""
        size = 0
        for count, entry in enumerate(entries):
            size += len(entry.message)
            if count and size > self._bytes_max:
                entries = entries[:count]
                break
        return Onward(entries, entries[-1].id)
