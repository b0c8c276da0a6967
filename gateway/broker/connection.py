"""One transport to the broker: requests out, replies back in order, pushes aside. Knows no command.

redis-py costs 20 µs a command more than this, and a command under way on a shared connection must never be
cancelled half-way: here the reply is awaited by its place in a queue whether or not somebody still wants it.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import hiredis

from gateway.broker import refusals
from gateway.broker.errors import BrokerGone, BrokerRefused, Demoted, Fault, fault_of

# The longest that a connection which is given up waits for what it was asked.
GIVE_UP_S = 1.0

_INCOMPLETE = object()

Arg = bytes | str | int


class Connection(asyncio.Protocol):
    """One transport's life. Closed by itself on protocol errors and on replies that say 'not me' (Fault.GONE)."""

    def __init__(self, on_push: Callable[[list[Any]], None], on_stray: Callable[[BrokerRefused], None]) -> None:
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[BrokerGone] = loop.create_future()
        self._on_lost: Callable[[BrokerGone], None] = lambda reason: None
        self._loop = loop
        self._on_push = on_push
        self._on_stray = on_stray
        self._transport: asyncio.Transport | None = None
        # Who waits for which reply, oldest first; a number: so many pushes are still to come for what was told.
        # Bounded by its users: one publish, one read, opens under way.
        self._asked: deque[asyncio.Future[Any] | int] = deque()
        # Why this connection ends once all that was asked is answered.
        self._given_up: BrokerGone | None = None
        self._parser = hiredis.Reader(protocolError=BrokerGone, replyError=BrokerRefused, notEnoughData=_INCOMPLETE)

    def ask(self, *args: Arg) -> "asyncio.Future[Any]":
        """Send one command. The future holds its reply, BrokerRefused, or BrokerGone."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if self.lost.done():
            future.set_exception(self.lost.result())
            future.exception()  # whoever asks by the way may never look
            return future
        assert self._transport is not None
        self._asked.append(future)
        self._transport.write(hiredis.pack_command(args))  # type: ignore[arg-type]
        return future

    def tell(self, *args: Arg) -> None:
        """Send a command answered by pushes, one for each argument (pub/sub); an error reply goes to `on_stray`."""
        if self._transport is not None and not self.lost.done():
            self._asked.append(len(args) - 1)
            self._transport.write(hiredis.pack_command(args))  # type: ignore[arg-type]

    def when_lost(self, told: Callable[[BrokerGone], None]) -> None:
        """`told` is called in the very turn in which the connection is given up: nobody may ask it once more. At once,
        if it was: what ends it may come in one read with the answer that its owner waited for."""
        self._on_lost = told
        if self.lost.done():
            told(self.lost.result())

    def give_up(self, reason: BrokerGone) -> None:
        """Give up as soon as all that was asked is answered, or after GIVE_UP_S. The caller asks no more."""
        self._given_up = reason
        if self._asked:
            self._loop.call_later(GIVE_UP_S, self.abort, reason)
        else:
            self.abort(reason)

    def abort(self, reason: BrokerGone) -> None:
        """Give up: everyone who waits hears `reason`. Idempotent."""
        if self.lost.done():
            return
        self.lost.set_result(reason)
        self._on_lost(reason)
        if self._transport is not None:
            self._transport.abort()
        for future in self._asked:
            if not isinstance(future, int) and not future.done():
                future.set_exception(reason)
                future.exception()  # a caller that left may never look
        self._asked.clear()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit
        if self.lost.done():  # given up while connecting
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.abort(BrokerGone(f"connection lost: {exc or 'closed by the broker'}"))

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed(data)
            while (reply := self._parser.gets()) is not _INCOMPLETE:
                self._sort(reply)
        except BrokerGone as exc:
            self.abort(exc)

    def _sort(self, reply: Any) -> None:
        if isinstance(reply, hiredis.PushNotification):
            self._on_push(reply)
            if not self._asked or reply[0] == b"smessage":
                return
            self._confirmed()
        else:
            if isinstance(reply, BrokerRefused):
                self._look_at(reply)
            self._answer(reply)
        if self._given_up is not None and not self._asked:
            self.abort(self._given_up)

    def _answer(self, reply: Any) -> None:
        if isinstance(reply, BrokerRefused) and (not self._asked or isinstance(self._asked[0], int)):
            if self._asked:
                self._asked.popleft()
            self._on_stray(reply)
            return
        asked: asyncio.Future[Any] | int = 0
        while isinstance(asked, int) and self._asked:  # what was told is answered so only when it is refused
            asked = self._asked.popleft()
        if isinstance(asked, int) or asked.done():
            pass  # who asked waits no longer
        elif isinstance(reply, BrokerRefused):
            asked.set_exception(reply)
        else:
            asked.set_result(reply)

    def _confirmed(self) -> None:
        """One more of what was told is answered: pushes of this kind come in the order of the replies."""
        told = self._asked[0]
        if isinstance(told, int):
            if told > 1:
                self._asked[0] = told - 1
            else:
                self._asked.popleft()

    def _look_at(self, refused: BrokerRefused) -> None:
        fault = fault_of(refused.code)
        if fault is Fault.DEMOTED:
            raise Demoted(str(refused))
        if fault is Fault.GONE:
            raise BrokerGone(str(refused))
        if fault is Fault.DENIED:
            refusals.tell(str(refused))
