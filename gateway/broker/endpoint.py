"""Where the broker is and how to get in: one way for all lanes.

Everything that may change under a running node is looked up at every connect: the name's addresses, the files of TLS,
and where the URL names sentinels, which server is the master (sentinel.py).
"""

import asyncio
import ssl
from typing import Any

import redis.asyncio as redis
from redis.asyncio.connection import SSLConnection, parse_url

from gateway.broker.dial import Dial
from gateway.broker.errors import BrokerGone, BrokerRefused, closed_meanwhile, missing_rule
from gateway.broker.refusals import tell
from gateway.broker.sentinel import Sentinels
from gateway.settings.urls import is_sentinel_url, sentinel_url

# Of the options of TLS those that no log is shown: a secret, and a whole file.
_UNSHOWN = ("ssl_password", "ssl_ca_data")


class Endpoint:
    """One broker's address. `url` was checked (gateway/settings/urls.py)."""

    def __init__(self, url: str, timeout_s: float) -> None:
        named = sentinel_url(url) if is_sentinel_url(url) else None
        options: dict[str, Any] = dict(parse_url(named.broker_url if named else url))
        self._timeout_s = timeout_s
        self._path: str | None = options.get("path")
        self._host: str = options.get("host", "localhost")
        self._port: int = int(options.get("port", 6379))
        self.db = int(options.get("db", 0))
        self.username: str | None = options.get("username")
        self.password: str | None = options.get("password")
        # What the URL says of TLS, as redis-py takes it; None: there is none.
        self._tls: dict[str, Any] | None = None
        if options.get("connection_class") is SSLConnection:
            self._tls = {name: value for name, value in options.items() if name.startswith("ssl_")}
        self._dial = Dial()
        self._sentinels = Sentinels(named, self._dial, timeout_s) if named else None

    def __str__(self) -> str:
        """The address without any secret, for logs."""
        return str(self._sentinels) if self._sentinels else self._path or f"{self._host}:{self._port}"

    @property
    def moves(self) -> bool:
        """Whether another server may be the broker from one moment to the next, and somebody knows which."""
        return self._sentinels is not None

    async def connect(self, protocol: asyncio.Protocol) -> tuple[asyncio.Transport, str]:
        """Open a transport for `protocol`; it, and where it leads. Raises OSError (TLS errors are) or BrokerGone."""
        if self._path:
            transport, _ = await asyncio.get_running_loop().create_unix_connection(lambda: protocol, self._path)
            return transport, self._path
        host, port = self._host, self._port
        if self._sentinels:
            host, port = await ask(self._sentinels.master())
        context = None if self._tls is None else await asyncio.to_thread(_context, self._tls)
        try:
            return await self._dial.open(host, port, protocol, context), f"{host}:{port}"
        except OSError as exc:
            if self._sentinels:
                raise BrokerGone(f"the master {host}:{port}: {exc}") from exc
            raise

    def doubt(self, peer: object) -> None:
        """Who answers there is of no use: where the name has other addresses, the next connection tries them first."""
        self._dial.doubt(peer)

    async def master(self) -> str:
        """Where the broker is now, by its sentinels. Raises BrokerGone."""
        assert self._sentinels is not None, "moves"
        host, port = await ask(self._sentinels.master())
        return f"{host}:{port}"

    async def close(self) -> None:
        """Close the connections to the sentinels."""
        if self._sentinels:
            await self._sentinels.aclose()


def _context(options: dict[str, Any]) -> ssl.SSLContext:
    """A TLS context from the files as they are now: certificates are rotated. Reads disks: not on the loop."""
    try:
        # redis-py knows the ssl_… parameters and their defaults.
        return SSLConnection(**options).ssl_context.get()
    # SSLError is an OSError and names no file; the others: a key without its certificate, text that is no PEM.
    except (OSError, TypeError, ValueError) as exc:
        named = ", ".join(name if name in _UNSHOWN else f"{name}={value}" for name, value in options.items())
        why = getattr(exc, "strerror", None) or exc
        raise BrokerGone(f"no TLS with what broker_url names ({named}): {why}") from exc


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
