"""Sockets below any WebSocket library: for clients by the thousand, for ones that never read, for garbage."""

import asyncio
import socket
import struct
from collections.abc import Iterator
from typing import cast
from urllib.parse import quote, urlencode

from tests.support.node import Node
from tests.support.until import BUDGET_S, until

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA


def handshake(room: str, *, v1: bool = False, headers: str = "", **query: object) -> bytes:
    """The request of RFC 6455 §4.1."""
    path = f"/ws/chat/{quote(room)}/" + (f"?{urlencode(query)}" if query else "")
    protocol = "Sec-WebSocket-Protocol: hiroba.v1\r\n" if v1 else ""
    return (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{protocol}{headers}\r\n"
    ).encode()


def frame(payload: bytes, opcode: int = TEXT, *, fin: bool = True, length: int | None = None) -> bytes:
    """A client's frame (§5.2), masked with zeros: the bytes stay legible. `length` may lie."""
    size = len(payload) if length is None else length
    first = opcode | (0x80 if fin else 0)
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 65_536:
        head = struct.pack("!BBH", first, 0xFE, size)
    else:
        head = struct.pack("!BBQ", first, 0xFF, size)
    return head + bytes(4) + payload


def frames_in(data: bytes | bytearray) -> Iterator[tuple[int, bytes]]:
    """(opcode, payload) of each whole frame that a server sent: unmasked, unfragmented."""
    at, end = 0, len(data)
    while at + 2 <= end:
        opcode, size, start = data[at] & 0x0F, data[at + 1], at + 2
        if size == 126:
            size, start = int.from_bytes(data[at + 2 : at + 4]), at + 4
        elif size == 127:
            size, start = int.from_bytes(data[at + 2 : at + 10]), at + 10
        if start + size > end:
            return
        yield opcode, bytes(data[start : start + size])
        at = start + size


class Raw(asyncio.Protocol):
    """One TCP connection to a node's public port. `data` is what came after the response's head."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.head = b""
        self.data = bytearray()
        # Set when the connection is over; the exception tells a reset.
        self.over = asyncio.get_running_loop().create_future()
        self._answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # ---- asyncio.Protocol ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.data += data
        if not self.head and b"\r\n\r\n" in self.data:
            head, _, rest = bytes(self.data).partition(b"\r\n\r\n")
            self.head, self.data = head, bytearray(rest)
            if not self._answered.done():
                self._answered.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.over.set_result(exc)
        if not self._answered.done():
            self._answered.set_result(None)

    # ---- for tests ----

    @property
    def status(self) -> int:
        return int(self.head[9:12])

    async def ask(self, request: bytes, within_s: float = BUDGET_S) -> int:
        """Sends a request; the status of its answer."""
        self.transport.write(request)
        async with asyncio.timeout(within_s):
            await self._answered
        assert self.head, "the connection closed without an answer"
        return self.status

    async def enter(self, room: str, *, v1: bool = False, **query: object) -> None:
        """Joins a room."""
        assert await self.ask(handshake(room, v1=v1, **query)) == 101, self.head

    def payloads(self) -> list[bytes]:
        """Of the text frames so far."""
        return [payload for opcode, payload in frames_in(self.data) if opcode == TEXT]

    def close_frame(self) -> tuple[int, str] | None:
        for opcode, payload in frames_in(self.data):
            if opcode == CLOSE:
                return int.from_bytes(payload[:2]), payload[2:].decode()
        return None

    async def closed(self, within_s: float = BUDGET_S) -> tuple[int, str] | None:
        """Waits for a close frame, or the end of the connection without one (None)."""
        await until(lambda: self.close_frame() or self.over.done(), "the server closes", within_s)
        return self.close_frame()

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    def reset(self) -> None:
        """RST: gone without a word."""
        sock = self.transport.get_extra_info("socket")
        if sock is not None:  # else the server closed first
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


async def connect(node: Node, receive_bytes: int | None = None) -> Raw:
    """The caller ends it (Crowd does). `receive_bytes`: a receive buffer so small that a node soon notices
    that nobody reads."""
    sock = socket.socket()
    sock.setblocking(False)
    if receive_bytes is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_connect(sock, ("127.0.0.1", node.port))
    except OSError:
        sock.close()
        raise
    _, raw = await loop.create_connection(Raw, sock=sock)
    return raw
