"""What is left of aiohttp once a connection's transport is ours: nothing."""

import asyncio
import gc
from typing import Any, cast

import uvloop
from aiohttp import web

from gateway.edge.takeover import take_over
from tests.support.until import until


class Echo(asyncio.BufferedProtocol):
    """Ours, as far as the takeover needs it."""

    def __init__(self) -> None:
        self._buffer = bytearray(100)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._transport.write(bytes(self._buffer[:nbytes]))


def test_aiohttps_handler_does_not_outlive_the_takeover() -> None:
    """It and its queue are 1.8 KB of each idle connection; uvloop's transport kept the way back to it."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_taken_over())


async def _taken_over() -> None:
    async def upgrade(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        return take_over(request, cast(Any, Echo()))

    app = web.Application()
    app.router.add_get("/", upgrade)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    reader, writer = await asyncio.open_connection(*runner.addresses[0])
    writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")

    def gone() -> bool:
        gc.collect()
        return not any(isinstance(thing, web.RequestHandler) for thing in gc.get_objects())

    await until(gone, "nothing holds the handler", within_s=20)
    writer.write(b"still here")
    assert await reader.readexactly(10) == b"still here"
    writer.close()
    await runner.cleanup()
