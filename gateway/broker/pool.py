"""redis-py's pool for what is not hot, over connections that the endpoint opens as it opens the lanes'."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio.connection import AbstractConnection, BlockingConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

# A connection that lay in the pool for so long is not used again: a firewall may have forgotten it without a word, and
# whoever asks over it waits for broker_timeout_s. None forgets so soon, and a new connection costs a millisecond.
IDLE_S = 10.0

Open = Callable[[asyncio.Protocol], Awaitable[asyncio.Transport]]


class PoolConnection(AbstractConnection):
    """One of redis-py's connections. `open` brings its transport; `place` is where that leads, for error texts."""

    def __init__(self, *, open: Open, place: str, **options: Any) -> None:
        super().__init__(**options)
        self._open = open
        self._place = place
        # The loop's clock when it came back to the pool.
        self.released_at = 0.0
        # Left by the pool while it was in use.
        self.left = False

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        async with asyncio.timeout(self.socket_connect_timeout):
            transport = await self._open(protocol)
        self._reader, self._writer = reader, asyncio.StreamWriter(transport, protocol, reader, loop)
        self.released_at, self.left = loop.time(), False

    def repr_pieces(self) -> list[tuple[str, object]]:
        return [("place", self._place), ("db", self.db)]

    def _host_error(self) -> str:
        return self._place


class Pool(BlockingConnectionPool):
    """At most `connections_max` connections; who finds none free waits. No retries: whoever asks knows what to do."""

    def __init__(self, open: Open, place: str, connections_max: int, timeout_s: float, **options: Any) -> None:
        super().__init__(
            max_connections=connections_max,
            timeout=timeout_s,
            connection_class=PoolConnection,
            open=open,
            place=place,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            # No CLIENT SETINFO: Redis 7.0 does not know it, and the gateway's user has no need of it.
            lib_name=None,
            lib_version=None,
            retry=Retry(NoBackoff(), 0),
            **options,
        )

    async def ensure_connection(self, connection: Any) -> None:
        if asyncio.get_running_loop().time() - connection.released_at > IDLE_S:
            await connection.disconnect(nowait=True)
        await super().ensure_connection(connection)

    async def release(self, connection: Any) -> None:
        if connection.left:
            await connection.disconnect(nowait=True)
        connection.released_at = asyncio.get_running_loop().time()
        await super().release(connection)

    async def leave(self) -> None:
        """Use none of these connections again: the idle ones end now, the others when they are released."""
        connections: Any = self._in_use_connections
        for connection in connections:
            connection.left = True
        await self.disconnect(inuse_connections=False)
