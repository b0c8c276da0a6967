"""A session on a WebSocket: what comes in, what goes out beside the room's frames, and how it ends.

Every data frame is core's, written straight to the transport; aiohttp parses what comes in. aiohttp's own close()
would wait for a client that reads nothing, so `Socket` hands every close to the client's `end`.
"""

import asyncio
import random
import time

from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from gateway.core import frames, wires
from gateway.core.bucket import TokenBucket
from gateway.core.closes import Close
from gateway.core.wires import BadMessage, Wire
from gateway.edge.context import Context
from gateway.rooms.room import Room
from gateway.rooms.session import Session

# How often a connection that lingers after a parser error is looked at.
LINGER_LOOK_S = 0.1

# What aiohttp's parser found wrong, by its close code (RFC 6455 §7.4.1).
_PARSER_CLOSES = {
    WSCloseCode.PROTOCOL_ERROR: Close.PROTOCOL,
    WSCloseCode.INVALID_TEXT: Close.BAD_DATA,
    WSCloseCode.MESSAGE_TOO_BIG: Close.TOO_LONG,
}


class Socket(web.WebSocketResponse):
    """aiohttp's WebSocket without its closing: `close` only passes the reason on."""

    def __init__(self, wire: Wire, compress: bool, message_bytes_max: int) -> None:
        super().__init__(
            autoping=False,
            autoclose=False,
            compress=compress,
            protocols=(wire.subprotocol,) if wire.subprotocol else (),
            # The first length refused, before the frame's payload is read; of what it inflates to as well.
            max_msg_size=message_bytes_max + 1,
        )
        self.client: Client | None = None

    async def close(self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True) -> bool:
        if self.client is None or self.client.closing is not None:
            return False
        self.client.end(_PARSER_CLOSES.get(WSCloseCode(code), Close.LOST))
        return True


class Client(Session):
    """One connection. Lives from the 101 until its handler returns."""

    __slots__ = (
        "_abort_timer", "_bucket", "_context", "_request", "heard", "opened_at", "peer", "pinged", "received",
        "received_bytes", "room", "slot", "socket",
    )  # fmt: skip

    def __init__(
        self,
        context: Context,
        request: web.Request,
        transport: asyncio.Transport,
        peer: str,
        socket: Socket,
        wire: Wire,
        room: Room,
    ) -> None:
        super().__init__(wire, transport)
        self.peer = peer
        self.room = room
        self.socket = socket
        self.opened_at = time.monotonic()
        self.received = 0
        self.received_bytes = 0
        # Whether the client spoke since the wheel last looked, and whether a ping waits for its pong.
        self.heard = True
        self.pinged = False
        # Where the wheel has this client.
        self.slot = 0
        self._context = context
        self._request = request
        # Made at the first message: most clients only listen.
        self._bucket: TokenBucket | None = None
        self._abort_timer: asyncio.TimerHandle | None = None

    @property
    def path(self) -> str:
        return self._request.path

    async def drained(self) -> None:
        await self._request.writer.drain()

    # ---- what comes in ----

    async def listen(self) -> None:
        """Serve what the client sends until the connection is over."""
        while True:
            message = await self.socket.receive()
            if message.type is WSMsgType.TEXT:
                self.heard = True
                if self.closing is None:
                    await self._say(message.data)
            elif message.type is WSMsgType.PING:
                self.heard = True
                if self.closing is None:
                    self.write(frames.pong(bytes(message.data)))
            elif message.type is WSMsgType.PONG:
                self.pinged = False
            elif message.type is WSMsgType.BINARY:
                self.end(Close.BINARY)
            else:
                return await self._over(message)
            if self.waiting_bytes() > self._context.settings.outgoing_bytes_max and self.closing is None:
                # Acks and pongs to somebody who sends and never reads must not pile up.
                await self.drained()

    async def _over(self, message: WSMessage) -> None:
        if message.type is WSMsgType.CLOSE:
            self.end(Close.CLIENT)
        elif message.type is WSMsgType.ERROR and not self.transport_closing():
            # The client may still be sending what was refused: a reset now would destroy the close frame.
            # Its abort timer ends this wait at the latest.
            while not self.transport_closing():  # noqa: ASYNC110  # nothing tells: aiohttp has the transport
                await asyncio.sleep(LINGER_LOOK_S)

    async def _say(self, text: str) -> None:
        context = self._context
        size = len(text) if text.isascii() else len(text.encode())
        self.received += 1
        self.received_bytes += size
        context.metrics.received += 1
        context.metrics.received_bytes += size
        if not self._may_speak():
            self.end(Close.RATE)
            return
        try:
            message, ref = self.wire.parse(text)
        except BadMessage as exc:
            if self.wire.answers:
                self.write(wires.error("bad_json", exc.args[0], exc.ref))
            else:
                self.end(Close.BAD_DATA, exc.args[0])
            return
        if self.in_flight >= context.settings.publish_window:
            context.metrics.window_full += 1
            await self._window()
        if context.broker.publisher.full:
            await context.broker.publisher.room()
        if self.closing is None:
            context.hub.publish(self.room, self, message, ref)

    def _may_speak(self) -> bool:
        rate = self._context.settings.messages_per_s
        if not rate:
            return True
        now = self._context.clock.now()
        if self._bucket is None:
            self._bucket = TokenBucket(rate, self._context.settings.messages_burst, now)
        return self._bucket.take(now)

    async def _window(self) -> None:
        """Wait until a publish of this client is answered. Nothing is read from its socket meanwhile."""
        while self.in_flight >= self._context.settings.publish_window and self.closing is None:
            self.window_open = asyncio.get_running_loop().create_future()
            await self.window_open

    # ---- how it ends ----

    def transport_closing(self) -> bool:
        transport = self._request.transport
        return transport is None or transport.is_closing()

    def end(self, close: Close, text: str | None = None) -> None:
        if self.closing is not None:
            return
        self.closing = close
        self._context.hub.leave(self.room, self)
        if self.window_open is not None and not self.window_open.done():
            self.window_open.set_result(None)
        if close in (Close.LOST, Close.DEAD):
            self._abort()
            return
        after_s = random.uniform(0, self._context.settings.close_s) if close is Close.GAP else 0.0
        loop = asyncio.get_running_loop()
        if after_s:
            # A gap hits a whole room at once; its sessions must not come back all at once.
            loop.call_later(after_s, self._write_close, close, text)
        else:
            self._write_close(close, text)
        self._abort_timer = loop.call_later(after_s + self._context.settings.close_s, self._abort)

    def _write_close(self, close: Close, text: str | None) -> None:
        self.write(frames.close(close.code, close.text if text is None else text))

    def go_away(self, after_s: float) -> None:
        """This node drains: come back elsewhere."""
        if self.closing is None:
            if self.wire.answers:
                self.write(wires.reconnect(after_s))
            self.end(Close.DRAIN)

    def forget(self) -> None:
        """The handler returned; aiohttp closes the transport once what was written is sent."""
        if self._abort_timer is not None and self.transport_closing():
            self._abort_timer.cancel()

    def _abort(self) -> None:
        transport = self._request.transport
        if transport is not None:
            transport.abort()
