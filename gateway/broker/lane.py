"""A hot connection to the broker, made anew whenever it is lost. Knows no command but its own."""

import asyncio
import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from gateway.broker import refusals
from gateway.broker.connection import Arg, Connection
from gateway.broker.endpoint import Endpoint
from gateway.broker.errors import BrokerGone, BrokerRefused, Demoted
from gateway.core.entry import server_of

BACKOFF_FIRST_S = 0.05
BACKOFF_MAX_S = 5.0
# A fruitless reconnect doubles the patience with a silent connection, up to this many times: a slow broker must not be
# made slower.
PATIENCE_MAX = 10
# Every server answers it, of whatever role, full or not, and says the role.
ROLE = ("INFO", "replication")


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
                    # Shielded: cancelled it would count as lost, and the socket stay open.
                    reason = str(await asyncio.shield(self._connection.lost))
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
