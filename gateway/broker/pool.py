"""redis-py's pool of connections to a sentinel, opened as the lanes' are."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio.connection import AbstractConnection, BlockingConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

Open = Callable[[asyncio.Protocol], Awaitable[asyncio.Transport]]


class PoolConnection(AbstractConnection):
    """One of redis-py's connections. `open` brings its transport; `place` is where that leads, for error texts."""

    def __init__(self, *, open: Open, place: str, **options: Any) -> None:
        super().__init__(**options)
        self._open = open
        self._place = place

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        async with asyncio.timeout(self.socket_connect_timeout):
            transport = await self._open(protocol)
        self._reader, self._writer = reader, asyncio.StreamWriter(transport, protocol, reader, loop)

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
