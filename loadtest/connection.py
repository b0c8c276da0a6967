"""One WebSocket, from the TCP connection to the close. Knows bytes and frames, neither rooms nor messages.

A plain asyncio protocol on uvloop instead of a WebSocket library: the harness compares a socket's bytes with
the room's tape, so most frames need no parsing at all (figures in docs/load-testing.md).
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from loadtest import frames
from loadtest.spec import Endpoint
from loadtest.wires import Heard, Wire

# How long a server may take for TCP, TLS, the 101 and the welcome together.
HANDSHAKE_S = 10.0
# How long it may take to answer a close frame.
CLOSE_S = 2.0
# A slow reader's kernel must not read ahead for it.
SLOW_RECEIVE_BYTES = 4_096

_NO_CODE = 1006  # the connection ended without a close frame (RFC 6455, 7.1.5)


class Refused(Exception):
    """No WebSocket came about. `status`: of the HTTP answer, 0 where there was none; `retry_after_s`: what it wants."""

    def __init__(self, status: int, text: str, retry_after_s: float = 0.0) -> None:
        super().__init__(text)
        self.status = status
        self.retry_after_s = retry_after_s


class NotThisWire(Refused):
    """The server answers, but does not speak the wire that was asked for."""


@dataclass(slots=True)
class Opened:
    joined_us: int  # when the 101 was read
    welcome: Heard | None  # v1's first frame


class Connection(asyncio.Protocol):
    """`open` once, then `adopt`; what comes between the two waits."""

    def __init__(self, wire: Wire, now_us: Callable[[], int], read_bytes_s: float | None = None) -> None:
        self._feed: Callable[[bytes, int], None] = self._handshake
        self._on_closed: Callable[[int, str], None] = lambda code, reason: None
        self.on_writable: Callable[[], None] = lambda: None
        self.congested = False  # the server reads too slowly: hold what you want to send
        self.closed = asyncio.get_running_loop().create_future()
        self._wire = wire
        self._now_us = now_us
        self._read_bytes_s = read_bytes_s
        self._transport: asyncio.Transport | None = None
        self._key = frames.new_key()
        self._request = b""
        self._head = b""
        self._joined_us = 0
        self._opened: asyncio.Future[Opened] = asyncio.get_running_loop().create_future()
        self._end = (_NO_CODE, "")

    async def open(
        self, endpoint: Endpoint, address: str, path: str, tls: ssl.SSLContext | None, token: str | None = None
    ) -> Opened:
        """Connect and shake hands; `token`: who one is. Raises Refused, OSError (no TCP connection) or TimeoutError."""
        self._request = frames.handshake_request(endpoint.authority, path, self._key, self._wire.subprotocol, token)
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                sock = await _connected(address, endpoint.port, self._read_bytes_s is not None)
                hostname = endpoint.host if tls else None
                await asyncio.get_running_loop().create_connection(
                    lambda: self, sock=sock, ssl=tls, server_hostname=hostname
                )
                return await self._opened
        except BaseException:
            self.abort()
            raise

    def adopt(self, feed: Callable[[bytes, int], None], on_closed: Callable[[int, str], None]) -> None:
        """From now on bytes go to `feed` and the end of the connection to `on_closed` (code, reason)."""
        self._feed, self._on_closed = feed, on_closed
        if self._head:
            held, self._head = self._head, b""
            self.data_received(held)
        if self.closed.done():
            on_closed(*self._end)

    def send(self, payload: bytes) -> None:
        """One text frame. Silently nothing on a connection that just died: `on_closed` tells."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frames.client_frame(frames.TEXT, payload))

    async def close(self) -> None:
        """The closing handshake, and the end of the connection if the server does not answer it."""
        if self._transport is None or self._transport.is_closing():
            return
        self.read_freely()
        self._transport.write(frames.client_frame(frames.CLOSE, frames.close_payload(1000)))
        try:
            async with asyncio.timeout(CLOSE_S):
                await asyncio.shield(self.closed)
        except TimeoutError:
            self.abort()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def read_freely(self) -> None:
        """End of a slow reader's slowness."""
        self._read_bytes_s = None
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def on_control(self, opcode: int, payload: bytes) -> None:
        """Given to whoever reads the frames: answers pings, keeps the server's close code."""
        if self._transport is None or self._transport.is_closing():
            return
        if opcode == frames.PING:
            self._transport.write(frames.client_frame(frames.PONG, payload))
        elif opcode == frames.CLOSE:
            self._end = frames.read_close(payload)
            self._transport.write(frames.client_frame(frames.CLOSE, payload[:2]))
            self._transport.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not asyncio.Transport by inheritance.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        try:
            self._feed(data, self._now_us())
        except frames.BadFrame as exc:
            self._end = (1002, str(exc))
            self._fail(NotThisWire(0, str(exc)))
            self.abort()
        if self._read_bytes_s is not None and self._opened.done():
            self._slow_down(len(data) / self._read_bytes_s)

    def pause_writing(self) -> None:
        self.congested = True

    def resume_writing(self) -> None:
        self.congested = False
        self.on_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(Refused(0, "the connection broke before the handshake was over"))
        if not self.closed.done():
            self.closed.set_result(None)
        code, reason = self._end
        self._on_closed(code, reason or (str(exc) if exc else ""))

    def _slow_down(self, rest_s: float) -> None:
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(rest_s, self._read_on)

    def _read_on(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _handshake(self, data: bytes, now_us: int) -> None:
        self._head += data
        if not self._joined_us:
            head, end, rest = self._head.partition(b"\r\n\r\n")
            if not end:
                if len(self._head) > 65_536 or not b"HTTP/".startswith(self._head[:5]):
                    raise frames.BadFrame("the answer to the handshake is not HTTP")
                return
            self._check(*frames.read_response(head))
            self._head, self._joined_us = rest, max(now_us, 1)
        if self._opened.done():
            return
        if self._wire.subprotocol is None:
            self._opened.set_result(Opened(self._joined_us, None))
        elif (bounds := frames.split(self._head, 0)) is not None:
            welcome = self._wire.hear(self._head[bounds[0] : bounds[1]])
            if welcome.kind != "welcome":
                raise frames.BadFrame("the server's first frame is not hiroba.v1's welcome")
            self._head = self._head[bounds[1] :]
            self._opened.set_result(Opened(self._joined_us, welcome))

    def _check(self, status: int, headers: dict[str, str]) -> None:
        if status != 101:
            # RFC 9110, 10.2.3: seconds, or a date, which nobody here is answered with.
            retry_after = headers.get("retry-after", "")
            retry_after_s = float(retry_after) if re.fullmatch("[0-9]{1,5}", retry_after) else 0.0
            self._fail(Refused(status, f"the handshake was answered {status}", retry_after_s))
        elif headers.get("sec-websocket-accept") != frames.accept_of(self._key):
            self._fail(NotThisWire(status, "the server's Sec-WebSocket-Accept is wrong: no WebSocket server"))
        elif headers.get("sec-websocket-protocol") != self._wire.subprotocol:
            self._fail(NotThisWire(status, f"the server does not speak {self._wire.subprotocol or 'plain'}"))

    def _fail(self, exc: Refused) -> None:
        if not self._opened.done():
            self._opened.set_exception(exc)
            # Whoever stopped waiting (a timeout) has its own exception.
            self._opened.exception()


async def _connected(address: str, port: int, slow: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if slow:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_RECEIVE_BYTES)
        await asyncio.get_running_loop().sock_connect(sock, (address, port))
    except BaseException:
        sock.close()
        raise
    return sock
