"""What one connection says in rooms where the site is asked: several questions may be under way, and whatever the site
takes its time for, what may be said is said in the order in which it came.

Made when its client first says something in such a room: who does not pays nothing.
"""

import asyncio
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from gateway.core.closes import Close
from gateway.core.user import Grant
from gateway.core.wires import Said
from gateway.edge.context import Context
from gateway.rooms.session import Session
from gateway.site.publishing import SENDER_REQUESTS_MAX, PublishHook, TurnedDown

if TYPE_CHECKING:
    from gateway.edge.connection import Connection


class _Saying(NamedTuple):
    session: Session
    said: Said
    word: "asyncio.Task[bytes | TurnedDown]"


class Sayings:
    """Those of one connection; the window bounds how many."""

    __slots__ = ("_connection", "_context", "_hook", "_telling", "_turns", "_waiting")

    def __init__(self, connection: "Connection", context: Context, hook: PublishHook) -> None:
        self._connection = connection
        self._context = context
        self._hook = hook
        self._turns = asyncio.Semaphore(SENDER_REQUESTS_MAX)
        self._waiting: deque[_Saying] = deque()
        # Says what may be said, while there is something.
        self._telling: asyncio.Task[None] | None = None

    def say(self, session: Session, said: Said) -> None:
        """Once the site lets it pass, also if its session has ended by then; who said it is answered later."""
        word = asyncio.create_task(self._word(session, said), name="ask the site")
        self._waiting.append(_Saying(session, said, word))
        if self._telling is None:
            self._telling = self._context.keep(f"sayings {self._connection.id}", self._tell())
            self._context.saying.add(self._telling)
            self._telling.add_done_callback(self._told)

    async def _word(self, session: Session, said: Said) -> bytes | TurnedDown:
        try:
            return await self._hook.word(session.room.name, self._connection.user, said.message, self._turns)
        except TurnedDown as why:
            return why

    async def _tell(self) -> None:
        try:
            while self._waiting:
                session, said, word = self._waiting[0]
                outcome = await word
                publisher, sender = self._context.broker.publisher, self._connection.id
                while isinstance(outcome, bytes) and publisher.full(sender):
                    await publisher.space(sender)
                outcome = self._still(session, outcome)
                self._waiting.popleft()
                if isinstance(outcome, bytes):
                    self._context.hub.publish(session, outcome, said.ref)
                else:
                    self._connection.turned_down(outcome, said.ref, session.room.name)
            self._telling = None
        finally:
            for saying in self._waiting:  # the node ends
                saying.word.cancel()

    def _told(self, task: asyncio.Task[None]) -> None:
        """One that failed is a bug, and logged; what waits would never be answered."""
        self._context.saying.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._connection.end(Close.ERROR)

    def _still(self, session: Session, outcome: bytes | TurnedDown) -> bytes | TurnedDown:
        """What was allowed when it was said may not be now."""
        grant: Grant = self._connection.grant
        room = session.room.name
        if "w" not in grant.rights.of(room) or self._context.broker.control.bars(grant, room) is not None:
            return TurnedDown("forbidden", "this user may not write in that room any more")
        return outcome
