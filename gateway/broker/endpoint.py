"""Where the broker is and how to get in: what redis-py parsed from the URL, for redis-py and for the lanes.

Where the URL names sentinels they say which server it is, at every connect; asking them is in sentinel.py.
"""

import asyncio
import ssl
from typing import Any

import redis.asyncio as redis
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from gateway.broker.errors import BrokerGone, BrokerRefused, closed_meanwhile, missing_rule
from gateway.broker.refusals import tell
from gateway.broker.sentinel import MasterPool, Sentinels
from gateway.urls import is_sentinel_url, sentinel_url


class Endpoint:
    """One broker's address. Names are resolved anew at every connect."""

    def __init__(self, url: str, timeout_s: float) -> None:
        named = sentinel_url(url) if is_sentinel_url(url) else None
        self._url = named.broker_url if named else url
        self._timeout_s = timeout_s
        options: dict[str, Any] = dict(parse_url(self._url))
        connection_class = options.pop("connection_class", None)
        self._path: str | None = options.get("path")
        self._host: str = options.pop("host", "localhost")
        self._port: int = int(options.pop("port", 6379))
        self.db = int(options.get("db", 0))
        self.username: str | None = options.get("username")
        self.password: str | None = options.get("password")
        self._sentinels = Sentinels(named, timeout_s) if named else None
        self._master_pool: MasterPool | None = None
        self._options = options
        self._ssl: ssl.SSLContext | None = None
        if connection_class is SSLConnection:
            # redis-py knows the ssl_… parameters of the URL and their defaults.
            self._ssl = SSLConnection(**options).ssl_context.get()

    def __str__(self) -> str:
        """The address without any secret, for logs."""
        return str(self._sentinels) if self._sentinels else self._path or f"{self._host}:{self._port}"

    @property
    def moves(self) -> bool:
        """Whether another server may be the broker from one moment to the next, and somebody knows which."""
        return self._sentinels is not None

    async def connect(self, protocol: asyncio.Protocol) -> str:
        """Open a transport for `protocol`; where it leads. Raises OSError (TLS errors are) or BrokerGone."""
        loop = asyncio.get_running_loop()
        if self._path:
            await loop.create_unix_connection(lambda: protocol, self._path)
            return self._path
        host, port = self._host, self._port
        if self._sentinels:
            host, port = await ask(self._sentinels.discover_master(self._sentinels.service))
        try:
            await loop.create_connection(
                lambda: protocol,
                host,
                port,
                ssl=self._ssl,
                server_hostname=host if self._ssl and self._ssl.check_hostname else None,
            )
        except OSError as exc:
            if self._sentinels:
                raise BrokerGone(f"the master {host}:{port}: {exc}") from exc
            raise
        return f"{host}:{port}"

    async def follow_master(self) -> str:
        """Where the broker is now, by its sentinels; `client()` lets go of a former one. Raises BrokerGone."""
        assert self._master_pool is not None, "moves, and has a client"
        host, port = await ask(self._master_pool.get_master_address())  # type: ignore[no-untyped-call]
        return f"{host}:{port}"

    def client(self, connections_max: int) -> "redis.Redis":
        """redis-py for everything off the hot road: bounded connections, no retries of its own, RESP3, bytes."""
        options: dict[str, Any] = {
            "max_connections": connections_max,
            "timeout": self._timeout_s,
            "socket_timeout": self._timeout_s,
            "socket_connect_timeout": self._timeout_s,
            "protocol": 3,
            # No CLIENT SETINFO: Redis 7.0 does not know it, and the gateway's user has no need of it.
            "lib_name": None,
            "lib_version": None,
            "retry": Retry(NoBackoff(), 0),
        }
        if self._sentinels:
            options = self._options | options
            service = self._sentinels.service
            self._master_pool = MasterPool(service, self._sentinels, **options)  # type: ignore[no-untyped-call]
            return redis.Redis.from_pool(self._master_pool)
        return redis.Redis.from_pool(redis.BlockingConnectionPool.from_url(self._url, **options))

    async def close(self) -> None:
        """Close the connections to the sentinels."""
        if self._sentinels:
            await self._sentinels.aclose()


async def ask(command: Any) -> Any:
    """Await a redis-py command; its errors become ours at this one seam."""
    try:
        return await command
    except (redis.ConnectionError, redis.TimeoutError, OSError) as exc:
        raise BrokerGone(str(exc)) from exc
    except RuntimeError as exc:
        if not closed_meanwhile(exc):  # while it lay in the pool
            raise
        raise BrokerGone(str(exc)) from exc
    except redis.RedisError as exc:
        if missing_rule(str(exc)):
            tell(str(exc))
        raise BrokerRefused(str(exc)) from exc
