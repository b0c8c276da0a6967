"""`python -m bench.company PORT PREFIX ROOMS PRESENCE`: one connection that is in all rooms of a run of the driver.

Its token comes on standard input, a line. PRESENCE `yes`: it asks who is there. Says `ready` once it is in; ends when
its input does. It reads what comes and looks at no word of it, so that it is no load of its own.
"""

import asyncio
import base64
import json
import os
import sys
from typing import cast

import uvloop

_HANDSHAKE = (
    "GET /ws/ HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: {}\r\nSec-WebSocket-Protocol: hiroba.v1\r\nAuthorization: Bearer {}\r\n\r\n"
)
# A server's pings, empty: the answer to each is one frame.
_PING, _PONG = b"\x89\x00", b"\x8a\x80\x00\x00\x00\x00"
_JOINED = b'{"type":"joined"'


class Company(asyncio.Protocol):
    """The connection."""

    def __init__(self, token: str, joins: list[bytes]) -> None:
        self.joined: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._token = token
        self._joins = joins
        self._missing = len(joins)
        self._asked = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none of asyncio's classes
        key = base64.b64encode(os.urandom(16)).decode()
        self._transport.write(_HANDSHAKE.format(key, self._token).encode())

    def data_received(self, data: bytes) -> None:
        if not self._asked:
            self._asked = True
            self._transport.write(b"".join(self._joins))
        if data.endswith(_PING):
            self._transport.write(_PONG)
        if self._missing > 0:
            self._missing -= data.count(_JOINED)
            if self._missing <= 0 and not self.joined.done():
                self.joined.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.joined.done():
            self.joined.set_exception(exc or ConnectionError("the node closed the connection that is in all rooms"))


def _frame(payload: bytes) -> bytes:
    """A client's short text frame (RFC 6455 section 5.2), masked with zeros."""
    assert len(payload) < 126
    return bytes((0x81, 0x80 | len(payload))) + bytes(4) + payload


async def _stay(port: int, prefix: str, rooms: int, presence: bool) -> None:
    loop = asyncio.get_running_loop()
    token = (await loop.run_in_executor(None, sys.stdin.readline)).strip()
    asked = [{"type": "join", "room": f"{prefix}_{number}", "presence": presence} for number in range(rooms)]
    joins = [_frame(json.dumps(join).encode()) for join in asked]
    _, company = await loop.create_connection(lambda: Company(token, joins), "127.0.0.1", port)
    await company.joined
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)


def main() -> None:
    """Be there until our input ends."""
    port, prefix, rooms, presence = sys.argv[1:]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_stay(int(port), prefix, int(rooms), presence == "yes"))


if __name__ == "__main__":
    main()
