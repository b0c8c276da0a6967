"""`python -m bench.watchers PORT PREFIX ROOMS CONNECTIONS`: connections that watch all rooms of a run of the driver.

Says `ready` once each has its first `tops`. When its input ends it says how many frames of them came, and ends.
It reads what comes and looks at no word of it, so that it is no load of its own.
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
    "Sec-WebSocket-Key: {}\r\nSec-WebSocket-Protocol: hiroba.v1\r\n\r\n"
)
# A server's pings, empty: the answer to each is one frame.
_PING, _PONG = b"\x89\x00", b"\x8a\x80\x00\x00\x00\x00"
_TOPS = b'{"type":"tops"'
_AT_ONCE = 50


class Watcher(asyncio.Protocol):
    """One connection."""

    def __init__(self, watch: bytes) -> None:
        loop = asyncio.get_running_loop()
        self.watching: asyncio.Future[None] = loop.create_future()
        self.tops = 0
        self._watch = watch
        self._asked = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none of asyncio's classes
        self._transport.write(_HANDSHAKE.format(base64.b64encode(os.urandom(16)).decode()).encode())

    def data_received(self, data: bytes) -> None:
        if not self._asked:
            self._asked = True
            self._transport.write(self._watch)
        if data.endswith(_PING):
            self._transport.write(_PONG)
        if _TOPS in data:
            self.tops += 1
            if not self.watching.done():
                self.watching.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.watching.done():
            self.watching.set_exception(exc or ConnectionError("the node closed a connection that watches"))


def _frame(payload: bytes) -> bytes:
    """A client's text frame (RFC 6455 section 5.2), masked with zeros."""
    length = len(payload)
    assert 126 <= length < 65_536
    return b"\x81\xfe" + length.to_bytes(2, "big") + bytes(4) + payload


async def _watch(port: int, prefix: str, rooms: int, connections: int) -> None:
    names = [f"{prefix}_{number}" for number in range(rooms)]
    watch = _frame(json.dumps({"type": "watch", "rooms": names}).encode())
    loop = asyncio.get_running_loop()
    watchers: list[Watcher] = []
    while len(watchers) < connections:
        wave = [loop.create_connection(lambda: Watcher(watch), "127.0.0.1", port) for _ in range(_AT_ONCE)]
        came = [watcher for _, watcher in await asyncio.gather(*wave[: connections - len(watchers)])]
        await asyncio.gather(*(watcher.watching for watcher in came))
        watchers += came
    before = sum(watcher.tops for watcher in watchers)
    _say("ready")
    await loop.run_in_executor(None, sys.stdin.read)
    _say(str(sum(watcher.tops for watcher in watchers) - before))


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    """Watch until our input ends."""
    port, prefix, rooms, connections = sys.argv[1:]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_watch(int(port), prefix, int(rooms), int(connections)))


if __name__ == "__main__":
    main()
