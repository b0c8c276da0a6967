"""Paging back: what lies below the place where a session's messages began, page by page, for who asks.

A page is bounded like a step of a walk, and read and written at its turn among them: it costs others no more.
"""

import asyncio
from contextlib import AbstractAsyncContextManager

from gateway.broker.broker import Broker
from gateway.broker.errors import BrokerGone
from gateway.core.entry import EntryId
from gateway.core.paging import Back, Page
from gateway.rooms.session import Session
from gateway.rooms.walks import WALK_BYTES, Walks

# A page that could not be read is asked for again after this long.
RETRY_S = 0.1


class Paging:
    """For all rooms of a node."""

    def __init__(self, broker: Broker, walks: Walks, outgoing_bytes_max: int) -> None:
        self._broker = broker
        self._walks = walks
        # A larger frame would put a live session behind.
        self._bytes_max = min(WALK_BYTES, outgoing_bytes_max)

    async def page(self, session: Session, before: EntryId | None, entries_max: int) -> Page:
        """What the log has below `before`; None: up to where the session's messages began. To be told in a `turn`.

        Waits for the broker: the caller brings a deadline. Raises BrokerRefused.
        """
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
