"""The browser's road to a node, with faults on demand: a same-origin reverse proxy that knows messages apart.

`tests.support.proxy` cuts and delays bytes; this one can lose exactly the acknowledgement of the next message.
"""

import asyncio
import json
import ssl
import time
from types import TracebackType
from typing import Any

import aiohttp
from aiohttp import WSMsgType, web

# Headers that belong to one hop (RFC 9110, section 7.6.1), and what aiohttp says by itself.
_OWN = {"connection", "content-length", "content-encoding", "transfer-encoding", "date", "server"}


class Door:
    """`async with Door(node.port) as door`, then the browser goes to `door.url("/chat/部屋/")`."""

    def __init__(self, node_port: int, tls: ssl.SSLContext | None = None) -> None:
        # May be changed: the next connection goes to that node, as behind a load balancer.
        self.node_port = node_port
        # Handshakes are answered 503.
        self.refusing = False
        # (monotonic seconds, query) of each handshake, refused ones too.
        self.handshakes: list[tuple[float, dict[str, str]]] = []
        # Messages that browsers sent, in order, and how many pings besides.
        self.sent: list[dict[str, Any]] = []
        self.pings = 0
        # The next message of a browser does not reach the node; the connection breaks.
        self.lose_next_message = False
        # The next message reaches the log, but nothing said from then on reaches the browser; then it breaks.
        self.lose_next_ack = False
        # The next entry that a browser should see is lost, without a word.
        self.lose_next_entry = False
        # What browsers say goes nowhere.
        self.withhold = False
        # Nor does what nodes say.
        self.silent = False
        self._tls = tls
        self._links: set[_Link] = set()
        self._runner: web.AppRunner | None = None
        self._http: aiohttp.ClientSession | None = None
        self._origin = ""

    async def __aenter__(self) -> "Door":
        app = web.Application()
        app.router.add_get("/ws/chat/{room}/", self._websocket)
        app.router.add_get("/{path:.*}", self._page)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls).start()
        self._origin = f"{'https' if self._tls else 'http'}://127.0.0.1:{self._runner.addresses[0][1]}"
        self._http = aiohttp.ClientSession(auto_decompress=False)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._runner is not None and self._http is not None
        self.cut()
        await self._http.close()
        await self._runner.cleanup()

    def url(self, path: str) -> str:
        return self._origin + path

    def cut(self) -> None:
        """Breaks every connection, as when the network goes away."""
        for link in self._links:
            link.cut()

    async def tell(self, **frame: object) -> None:
        """A frame to every browser, as if the node had said it."""
        for link in list(self._links):
            await link.browser.send_json(frame)

    async def close(self, code: int, reason: str = "") -> None:
        """A close frame to every browser, as if the node had sent it."""
        for link in list(self._links):
            await link.browser.close(code=code, message=reason.encode())

    async def _page(self, request: web.Request) -> web.StreamResponse:
        assert self._http is not None
        url = f"http://127.0.0.1:{self.node_port}{request.raw_path}"
        async with self._http.get(url, headers=request.headers, allow_redirects=False) as answer:
            headers = {key: value for key, value in answer.headers.items() if key.lower() not in _OWN}
            return web.Response(status=answer.status, body=await answer.read(), headers=headers)

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        assert self._http is not None
        self.handshakes.append((time.monotonic(), dict(request.query)))
        if self.refusing:
            raise web.HTTPServiceUnavailable(headers={"Retry-After": "1"})
        # Host and Origin stay the browser's own, as with any reverse proxy that a node is behind.
        headers = {"Host": request.host, "Origin": request.headers["Origin"]}
        protocols = [name.strip() for name in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        url = f"http://127.0.0.1:{self.node_port}{request.raw_path}"
        try:
            node = await self._http.ws_connect(url, protocols=protocols, headers=headers)
        except aiohttp.ClientError as exc:
            raise web.HTTPBadGateway from exc
        browser = web.WebSocketResponse(protocols=protocols, compress=False)
        await browser.prepare(request)
        link = _Link(self, request, browser, node)
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)
        return browser


class _Link:
    """One browser's connection and the node's end of it."""

    def __init__(
        self,
        door: Door,
        request: web.Request,
        browser: web.WebSocketResponse,
        node: aiohttp.ClientWebSocketResponse,
    ) -> None:
        self.browser = browser
        self._door = door
        self._request = request
        self._node = node
        # The ref whose acknowledgement is awaited and withheld; None: nothing is withheld.
        self._awaited: object = None

    def cut(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()

    async def run(self) -> None:
        ways = [asyncio.create_task(self._up(), name="up"), asyncio.create_task(self._down(), name="down")]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        await self._node.close()
        if not self.browser.closed and self._node.close_code is not None:
            await self.browser.close(code=self._node.close_code)

    async def _up(self) -> None:
        async for frame in self.browser:
            if frame.type is not WSMsgType.TEXT:
                continue
            said = json.loads(frame.data)
            is_message = said["type"] == "message"
            if is_message:
                self._door.sent.append(said)
            self._door.pings += said["type"] == "ping"
            if self._door.withhold:
                continue
            if not is_message:
                await self._node.send_str(frame.data)
                continue
            if self._door.lose_next_message:
                self._door.lose_next_message = False
                self.cut()
                return
            if self._door.lose_next_ack:
                self._door.lose_next_ack = False
                self._awaited = said["ref"]
            await self._node.send_str(frame.data)

    async def _down(self) -> None:
        async for frame in self._node:
            if frame.type is not WSMsgType.TEXT:
                continue
            heard = json.loads(frame.data)
            if self._door.silent:
                continue
            if self._awaited is not None:
                if heard.get("type") == "ack" and heard["ref"] == self._awaited:
                    self.cut()
                    return
            elif heard.get("type") == "message" and self._door.lose_next_entry:
                self._door.lose_next_entry = False
            else:
                await self.browser.send_str(frame.data)
