"""TCP to a name: one look-up for all who ask at once, every address tried, the first that answers taken."""

import asyncio
import os
import socket
import ssl
from collections.abc import Sequence
from typing import Any

import aiohappyeyeballs

# An address that says nothing for so long has the next one tried beside it (RFC 8305, section 5).
NEXT_ADDRESS_S = 0.25
# More than one name has; where addresses come and go (Kubernetes), old ones are forgotten.
DOUBTS_MAX = 32
# Seconds of silence before the kernel asks whether the other end is there, between two such questions, and how many.
KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}

_Found = Sequence[aiohappyeyeballs.AddrInfoType]


class Dial:
    """Names are looked up anew for each connection. A look-up belongs to no try: it may outlast several of them."""

    def __init__(self) -> None:
        self._looking: dict[tuple[str, int], asyncio.Task[_Found]] = {}
        # Addresses that answered and were of no use, the last of them last; at most DOUBTS_MAX.
        self._doubted: dict[Any, None] = {}

    async def open(
        self, host: str, port: int, protocol: asyncio.Protocol, tls: ssl.SSLContext | None = None
    ) -> asyncio.Transport:
        """A transport for `protocol`. Raises OSError (TLS errors are). The caller brings a deadline."""
        found = await self._look_up(host, port)
        try:
            sock = await aiohappyeyeballs.start_connection(self._best_first(found), happy_eyeballs_delay=NEXT_ADDRESS_S)
        except OSError as exc:
            if exc.errno is None:  # each address has a reason of its own
                raise
            # Not asyncio's own words: "Connect call failed".
            raise OSError(exc.errno, os.strerror(exc.errno)) from exc
        address, loop, named = _prepare(sock), asyncio.get_running_loop(), host if tls else None
        try:
            return (await loop.create_connection(lambda: protocol, sock=sock, ssl=tls, server_hostname=named))[0]
        except BaseException:
            self.doubt(address)
            raise

    def doubt(self, address: Any) -> None:
        """Try other addresses before this one: it accepts connections, and is frozen, a replica, somebody else."""
        self._doubted.pop(address, None)
        self._doubted[address] = None
        if len(self._doubted) > DOUBTS_MAX:
            del self._doubted[next(iter(self._doubted))]

    def _best_first(self, found: _Found) -> _Found:
        doubted = {address: at for at, address in enumerate(self._doubted, 1)}
        return sorted(found, key=lambda info: doubted.get(info[4], 0))

    async def _look_up(self, host: str, port: int) -> _Found:
        place = (host, port)
        task = self._looking.get(place)
        if task is None:
            task = self._looking[place] = asyncio.create_task(_addresses(host, port), name=f"look up {host}")
            task.add_done_callback(lambda done: self._found(place, done))
        return await asyncio.shield(task)

    def _found(self, place: tuple[str, int], task: "asyncio.Task[_Found]") -> None:
        del self._looking[place]
        if not task.cancelled():
            task.exception()  # everybody who asked may have left


def _prepare(sock: socket.socket) -> Any:
    """Options of a connection that may lie idle; whom it leads to. Raises OSError: the other end may be gone again."""
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE.items():
            if hasattr(socket, option):  # macOS has no TCP_KEEPIDLE
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        return sock.getpeername()
    except OSError:
        sock.close()
        raise


async def _addresses(host: str, port: int) -> _Found:
    """getaddrinfo(3). Raises OSError."""
    try:
        return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as exc:  # Python's own, before anybody is asked: an empty label, or more than 63 characters
        raise OSError(f"'{host}' is no name of a host") from exc
