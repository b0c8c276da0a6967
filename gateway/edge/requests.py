"""What a v1 connection asks beside saying something: done in the order of asking, answered in frames.

Made when its client first asks: who only speaks and listens pays nothing. A request that fails is an `error`, and the
connection stays.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from gateway.core.closes import Close
from gateway.core.wires import Asked, v1
from gateway.edge import joins, markers, paging, presence, refreshes, watches
from gateway.edge.context import Context

if TYPE_CHECKING:
    from gateway.edge.connection import Connection

# Does requests of one kind that were asked next to each other, in their order, and writes each one's answer.
Do = Callable[["Connection", Context, list[Any]], Awaitable[None]]

# Whatever a client may ask, and who does it.
DOERS: Mapping[type[Asked], Do] = {
    v1.Join: joins.join,
    v1.Leave: joins.leave,
    v1.History: paging.history,
    v1.Watch: watches.watch,
    v1.Unwatch: watches.unwatch,
    v1.Read: markers.read,
    v1.Presence: presence.presence,
    v1.Refresh: refreshes.refresh,
}


class Requests:
    """The queue of one connection, and the task that empties it while there is something to do."""

    __slots__ = ("_connection", "_context", "_doing", "_space", "_waiting")

    def __init__(self, connection: "Connection", context: Context) -> None:
        self._connection = connection
        self._context = context
        # At most `requests_max`: above it the connection's socket is not read.
        self._waiting: deque[Asked] = deque()
        self._doing: asyncio.Task[None] | None = None
        self._space: asyncio.Future[None] | None = None

    @property
    def full(self) -> bool:
        return len(self._waiting) >= self._context.settings.requests_max

    async def space(self) -> None:
        """Wait until fewer wait."""
        if self.full:
            self._space = asyncio.get_running_loop().create_future()
            await self._space

    def ask(self, request: Asked) -> None:
        """Its answer comes when those before it are answered."""
        self._waiting.append(request)
        if self._doing is None:
            self._doing = self._context.keep(f"requests {self._connection.id}", self._do_all())
            self._doing.add_done_callback(self._done)

    def end(self) -> None:
        """Nobody listens any more. Idempotent."""
        self._waiting.clear()
        doing, self._doing = self._doing, None
        if doing is not None:
            doing.cancel()

    async def _do_all(self) -> None:
        while self._waiting:
            await self._connection.drained()  # answers to somebody who never reads must not pile up
            run = self._next()
            if run:
                await DOERS[type(run[0])](self._connection, self._context, run)
        self._doing = None  # here, not when the task is seen to be done: a request may come in between

    def _next(self) -> list[Asked]:
        """The oldest request, and those of its kind right behind it."""
        run: list[Asked] = []
        while self._waiting and (not run or type(self._waiting[0]) is type(run[0])):
            run.append(self._waiting.popleft())
        if self._space is not None and not self._space.done():
            self._space.set_result(None)
        return run

    def _done(self, task: "asyncio.Task[None]") -> None:
        """A request that raised is a bug, and logged; those behind it would never be answered."""
        if not task.cancelled() and task.exception() is not None:
            self._connection.end(Close.ERROR)
