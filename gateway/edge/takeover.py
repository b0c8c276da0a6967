"""How a connection leaves aiohttp's HTTP server: after the handshake its transport is ours.

aiohttp keeps the request, its parser and two nested tasks for as long as a handler runs: 12 KB for each idle
WebSocket. So the handler answers by itself (a 101, the head of a stream), takes the transport over, and returns.
"""

import asyncio

from aiohttp import web

from gateway.edge.listener import Listener


class Upgraded(web.StreamResponse):
    """What the handler returns: nothing is left to send."""

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


class _Tail:
    """Stands in for aiohttp's WebSocket parser to be given what came behind the request in the same read."""

    def __init__(self) -> None:
        self.data = b""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.data += data
        return False, b""

    def feed_eof(self) -> None:
        pass


# uvloop's transport keeps a method of the last protocol that was no BufferedProtocol: without this one in between, each
# connection holds aiohttp's handler for good, 1.8 KB (uvloop 0.23, 2026-11).
_NOBODY = asyncio.Protocol()


def take_over(request: web.Request, connection: Listener) -> web.StreamResponse:
    """Give the request's transport to `connection`, with what was read already, and make aiohttp forget it.

    The transport must still be there, and no await may lie between the answer and this.
    """
    http, transport = request.protocol, request.transport
    assert transport is not None
    tail = _Tail()
    http.set_parser(tail)  # type: ignore[arg-type]  # only these two methods are used
    transport.set_protocol(_NOBODY)
    transport.set_protocol(connection)
    http.transport = None  # else it would close what it forgets
    http.connection_lost(None)
    connection.connection_made(transport)
    if tail.data:
        connection.take(tail.data)
    return Upgraded()
