"""Where the broker is and how to get in: what redis-py parsed from the URL, for redis-py and for the lanes."""

import asyncio
import ssl
from typing import Any

import redis.asyncio as redis
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from gateway.broker.errors import BrokerGone, BrokerRefused
from gateway.broker.refusals import missing_rule, tell


class Endpoint:
    """One broker's address. Names are resolved anew at every connect."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s
        options: dict[str, Any] = dict(parse_url(url))
        connection_class = options.pop("connection_class", None)
        self._path: str | None = options.get("path")
        self._host: str = options.get("host", "localhost")
        self._port: int = int(options.get("port", 6379))
        self.db = int(options.get("db", 0))
        self.username: str | None = options.get("username")
        self.password: str | None = options.get("password")
        self._ssl: ssl.SSLContext | None = None
        if connection_class is SSLConnection:
            # redis-py knows the ssl_… parameters of the URL and their defaults.
            self._ssl = SSLConnection(**options).ssl_context.get()

    def __str__(self) -> str:
        """The address without any secret, for logs."""
        return self._path or f"{self._host}:{self._port}"

    async def connect(self, protocol: asyncio.Protocol) -> None:
        """Open a transport for `protocol`. Raises OSError or ssl.SSLError (an OSError too)."""
        loop = asyncio.get_running_loop()
        if self._path:
            await loop.create_unix_connection(lambda: protocol, self._path)
        else:
            await loop.create_connection(
                lambda: protocol,
                self._host,
                self._port,
                ssl=self._ssl,
                server_hostname=self._host if self._ssl and self._ssl.check_hostname else None,
            )

    def client(self, connections_max: int) -> "redis.Redis":
        """redis-py for everything off the hot road: bounded connections, no retries of its own, RESP3, bytes."""
        pool = redis.BlockingConnectionPool.from_url(
            self._url,
            max_connections=connections_max,
            timeout=self._timeout_s,
            socket_timeout=self._timeout_s,
            socket_connect_timeout=self._timeout_s,
            protocol=3,
            # No CLIENT SETINFO: Redis 7.0 does not know it, and the gateway's user has no need of it.
            lib_name=None,
            lib_version=None,
            retry=Retry(NoBackoff(), 0),
        )
        return redis.Redis.from_pool(pool)


async def ask(command: Any) -> Any:
    """Await a redis-py command; its errors become ours at this one seam."""
    try:
        return await command
    # RuntimeError: redis-py writes to a connection that broke while it lay in the pool, and uvloop raises that.
    except (redis.ConnectionError, redis.TimeoutError, OSError, RuntimeError) as exc:
        raise BrokerGone(str(exc)) from exc
    except redis.RedisError as exc:
        if missing_rule(str(exc)):
            tell(str(exc))
        raise BrokerRefused(str(exc)) from exc
