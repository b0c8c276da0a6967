"""A hot connection to the broker: requests out, replies back in order, pushes aside. Knows no command but its own.

redis-py costs 20 µs a command more than this, and a command under way on a shared connection must never be
cancelled half-way: here the reply is awaited by its place in a queue whether or not somebody still wants it.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, cast

import hiredis

from gateway.broker import refusals
from gateway.broker.endpoint import Endpoint
from gateway.broker.errors import BrokerGone, BrokerRefused, Demoted, Fault, fault_of
from gateway.core.entry import server_of

BACKOFF_FIRST_S = 0.05
BACKOFF_MAX_S = 5.0
# The longest that a connection which is given up waits for what it was asked.
GIVE_UP_S = 1.0
# A fruitless reconnect doubles the patience with a silent connection, up to this many times: a slow broker must not be
# made slower.
PATIENCE_MAX = 10
# Every server answers it, of whatever role, full or not, and says the role.
ROLE = ("INFO", "replication")

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


class Lane:
    """A connection that comes back by itself: jittered, capped backoff, the address resolved anew each time."""

    def __init__(
        self,
        name: str,
        node: str,
        endpoint: Endpoint,
        timeout_s: float,
        silence_s: float,
        on_change: Callable[[str, str | None], None],
    ) -> None:
        self.name = name
        self._node = node
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        # Told the lane's name, and why it is down or None when it came up.
        self._on_change = on_change
        # For whoever owns this lane: a new connection, a push, an error reply that nothing was asked for.
        self.on_up: Callable[[], None] = lambda: None
        self.on_push: Callable[[list[Any]], None] = lambda push: None
        self.on_stray: Callable[[BrokerRefused], None] = lambda refused: None
        # For who knows of other connections to this server: it is no master any more, and why we say so.
        self.on_demoted: Callable[[str], None] = lambda reason: None
        # A connection that leaves a question open for so long is silent.
        self._silence_s = self._patience_s = silence_s
        # Which connection was asked whether it is there, and when; None: it answered.
        self._doubted: tuple[Connection, float] | None = None
        self._connection: Connection | None = None
        self._up = asyncio.Event()
        self._hurry = asyncio.Event()
        # Redis' id of the last connection; a request of it that arrives late must not be served any more.
        self._client_id: int | None = None
        # Changes when another server answers (restart, failover): INFO server, run_id.
        self.run_id = b""
        # The head of the epochs that the server gives its entries: whose history it is in.
        self.server = b""
        # Connections made so far.
        self.connections = 0
        # Where the last connection led.
        self.address = ""

    @property
    def is_up(self) -> bool:
        return self._up.is_set()

    async def up(self) -> None:
        """Wait until the lane can be asked."""
        await self._up.wait()

    def ask(self, *args: Arg) -> "asyncio.Future[Any]":
        """Send one command now. Raises BrokerGone when the lane is down; see Connection.ask for the future."""
        if self._connection is None or not self._up.is_set():
            raise BrokerGone(f"the {self.name} lane is down")
        return self._connection.ask(*args)

    def tell(self, *args: Arg) -> None:
        """Send a pub/sub command now. Raises BrokerGone when the lane is down; see Connection.tell."""
        if self._connection is None or not self._up.is_set():
            raise BrokerGone(f"the {self.name} lane is down")
        self._connection.tell(*args)

    def drop(self, reason: str) -> None:
        """Give this connection up and make another."""
        if self._connection is not None:
            self._connection.abort(BrokerGone(reason))

    def give_up(self, reason: str) -> None:
        """Give up a server that may be well, and make another connection: what was asked is answered first.

        A lane that is down tries again at once: the caller knows of another server.
        """
        self._hurry.set()
        if self._connection is not None:
            self._up.clear()
            self._connection.give_up(BrokerGone(reason))

    def prove(self, now: float) -> bool:
        """Ask whether the connection is there and leads to a master; give it up when the last answer is overdue.

        False: it was given up. To be called every so often; `now` in seconds, by a clock that stands still while we do.
        """
        connection = self._connection
        if connection is None or not self.is_up:
            return True
        if self._doubted is None or self._doubted[0] is not connection:
            self._doubted = connection, now
            connection.ask(*ROLE).add_done_callback(lambda role: self._answered(connection, role))
        elif now - self._doubted[1] >= self._patience_s:
            silent_s, self._patience_s = self._patience_s, min(self._patience_s * 2, self._silence_s * PATIENCE_MAX)
            self.drop(f"the {self.name} lane is silent: no answer within {silent_s:g} s")
            return False
        return True

    def _answered(self, connection: Connection, role: "asyncio.Future[Any]") -> None:
        if role.cancelled() or isinstance(role.exception(), BrokerGone):
            return
        if self._doubted is not None and self._doubted[0] is connection:
            self._doubted = None
            self._patience_s = self._silence_s
        if role.exception() is None:
            self._judge(connection, role.result())

    def _judge(self, connection: Connection, role: bytes) -> None:
        """Give up a server that became a replica: what only reads it would answer for ever, from what it has."""
        if b"role:slave" in role:
            connection.abort(Demoted(f"{self.address} is a replica now"))

    async def ask_master(self, *args: Arg) -> Any:
        """The reply of a server that is a master as it replies. Raises BrokerGone, BrokerRefused."""
        (reply,) = await self.ask_master_all([args])
        if isinstance(reply, BrokerRefused):
            raise reply
        return reply

    async def ask_master_all(self, commands: Iterable[tuple[Arg, ...]]) -> list[Any]:
        """The replies of a server that is a master as it replies, in one round trip; BrokerRefused as values. Raises
        BrokerGone."""
        connection = self._connection
        asked = [self.ask(*ROLE), *(self.ask(*command) for command in commands)]
        try:
            await asyncio.wait(asked[-1:])  # replies come in order, so all others are there
        except asyncio.CancelledError:
            for future in asked:
                future.cancel()
            raise
        assert connection is not None, "it was asked"
        role, *replies = (future.exception() or future.result() for future in asked)
        if isinstance(role, bytes):
            self._judge(connection, role)
        if connection.lost.done():
            raise connection.lost.result()
        return replies

    def _lost(self, reason: BrokerGone) -> None:
        known = not self.is_up  # given up before
        self._up.clear()
        if isinstance(reason, Demoted) and not known:
            self.on_demoted(str(reason))

    async def run(self) -> None:
        """Stay connected until cancelled."""
        backoff_s = BACKOFF_FIRST_S
        try:
            while True:
                try:
                    self._connection = await self._connect()
                except (OSError, BrokerGone, BrokerRefused) as exc:
                    reason = str(exc) or type(exc).__name__
                else:
                    connected_at = asyncio.get_running_loop().time()
                    self.connections += 1
                    self._up.set()
                    self._connection.when_lost(self._lost)
                    if self.is_up:
                        self._on_change(self.name, None)
                        self.on_up()
                    reason = str(await self._connection.lost)
                    self._up.clear()
                    # Not at once: a server that lets in and hangs up (maxclients, a demoted master, a balancer with
                    # nobody behind it) would be called every 50 ms. Who lasts longer than the longest wait is well.
                    if asyncio.get_running_loop().time() - connected_at > BACKOFF_MAX_S:
                        backoff_s = BACKOFF_FIRST_S
                self._on_change(self.name, reason)
                backoff_s = await self._back_off(backoff_s)
        finally:
            self._up.clear()
            self.drop("the node is stopping")

    async def _back_off(self, backoff_s: float) -> float:
        """Wait before the next try, unless told to hurry; how long to wait before the one after it."""
        self._hurry.clear()
        try:
            async with asyncio.timeout(random.uniform(backoff_s / 2, backoff_s)):
                await self._hurry.wait()
            return BACKOFF_FIRST_S
        except TimeoutError:
            return min(BACKOFF_MAX_S, backoff_s * 2)

    async def _connect(self) -> Connection:
        connection = Connection(self.on_push, self.on_stray)
        peer = None
        try:
            async with asyncio.timeout(self._timeout_s):
                transport, self.address = await self._endpoint.connect(connection)
                peer = transport.get_extra_info("peername")  # a closed one would not say it any more
                await self._greet(connection)
        except BaseException as exc:
            if peer is not None:
                self._endpoint.doubt(peer)
            connection.abort(BrokerGone("could not connect"))
            if isinstance(exc, TimeoutError):
                raise BrokerGone(f"no answer from {self._endpoint} within {self._timeout_s} s") from None
            raise
        return connection

    async def _greet(self, connection: Connection) -> None:
        """HELLO (RESP3, AUTH), SELECT; then make sure that nothing of our former connection is still to come."""
        hello: list[Arg] = ["HELLO", 3]
        if self._endpoint.password is not None:
            hello += ["AUTH", self._endpoint.username or "default", self._endpoint.password]
        server = await connection.ask(*hello, "SETNAME", f"hiroba-{self._node}-{self.name}")
        if not isinstance(server, dict):
            raise BrokerGone(f"{self.address} is no broker: it answers HELLO with {str(server)[:50]}")
        if server.get(b"mode") == b"cluster":
            raise BrokerGone(
                f"{self.address} runs in cluster mode, which this version can't speak to: name another server"
            )
        if self._endpoint.db:
            await connection.ask("SELECT", self._endpoint.db)
        info: bytes = await connection.ask("INFO", "server", "replication")
        if b"role:slave" in info:
            raise BrokerGone(f"{self.address} is a replica: only a master takes messages")
        run_id = info.partition(b"run_id:")[2][:40]
        if self._client_id is not None and run_id == self.run_id:  # another server gives the same ids to others
            with suppress(BrokerRefused):  # No such client is the usual case, and a denial is told
                await connection.ask("CLIENT", "KILL", "ID", self._client_id)
        try:
            self._client_id = await connection.ask("CLIENT", "ID")
        except BrokerRefused as exc:  # what it is for can't be had; all else can
            self._client_id = None
            refusals.tell(str(exc))
        self.run_id = run_id
        self.server = server_of(info)
