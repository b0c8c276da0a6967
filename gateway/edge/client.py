"""A session on a WebSocket: what comes in, what goes out beside the room's frames, and how it ends.

Every frame is core's, written straight to the transport; aiohttp's parser reads what comes in. One task per client
listens; nothing else here waits.
"""

import asyncio
import random
import time

from aiohttp import WSCloseCode, WSMessage, WSMsgType
from aiohttp._websocket.models import WSMessageTextBytes
from aiohttp._websocket.reader import WebSocketDataQueue  # aiohttp.http has the reader, but not what it feeds
from aiohttp.http import WebSocketError, WebSocketReader
from aiohttp.streams import EofStream

from gateway.core import frames, wires
from gateway.core.bucket import TokenBucket
from gateway.core.closes import Close
from gateway.core.wires import Asked, BadMessage, Wire
from gateway.edge.context import Context
from gateway.rooms.room import Room
from gateway.rooms.session import Session

# Parsed frames that may wait while the window is full; above twice that the socket is not read.
INBOX_BYTES = 65_536

# What aiohttp's parser found wrong, by its close code (RFC 6455 §7.4.1).
_PARSER_CLOSES = {
    WSCloseCode.PROTOCOL_ERROR: Close.PROTOCOL,
    WSCloseCode.INVALID_TEXT: Close.BAD_DATA,
    WSCloseCode.MESSAGE_TOO_BIG: Close.TOO_LONG,
}


class Client(Session, asyncio.Protocol):
    """One connection, from the 101 to its last byte."""

    __slots__ = (
        "_abort_timer", "_bucket", "_context", "_inbox", "_lost", "_parser", "_reading_paused", "_writable",
        "heard", "opened_at", "path", "peer", "pinged", "received", "received_bytes", "room", "slot",
    )  # fmt: skip

    transport: asyncio.Transport

    def __init__(
        self, context: Context, transport: asyncio.Transport, path: str, peer: str, wire: Wire, room: Room
    ) -> None:
        super().__init__(wire, transport)
        loop = asyncio.get_running_loop()
        self.path = path
        self.peer = peer
        self.room = room
        self.opened_at = time.monotonic()
        self.received = 0
        self.received_bytes = 0
        # Whether the client spoke since the wheel last looked, and whether a ping waits for its pong.
        self.heard = True
        self.pinged = False
        # Where the wheel has this client.
        self.slot = 0
        self._context = context
        # The parser's queue asks its protocol (us) not to read on; it looks at `_reading_paused`.
        self._reading_paused = False
        self._inbox = WebSocketDataQueue(self, INBOX_BYTES, loop=loop)  # type: ignore[arg-type]
        # The first length refused, before the frame's payload is read; of what it inflates to as well.
        too_long = context.settings.message_bytes_max + 1
        self._parser = WebSocketReader(self._inbox, too_long, compress=wire.deflates, decode_text=True)
        # While the socket's buffer is above its high-water mark: done when it is below the low one.
        self._writable: asyncio.Future[None] | None = None
        self._lost: asyncio.Future[None] | None = None
        # Made at the first message: most clients only listen.
        self._bucket: TokenBucket | None = None
        self._abort_timer: asyncio.TimerHandle | None = None

    # ---- the transport's protocol ----

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def eof_received(self) -> None:
        return None  # the transport closes itself; connection_lost follows

    def connection_lost(self, exc: Exception | None) -> None:
        self._inbox.feed_eof()
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        for waiter in (self._writable, self._lost):
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
        self.end(Close.LOST)

    def pause_writing(self) -> None:
        if self._writable is None or self._writable.done():
            self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def pause_reading(self) -> None:
        self._reading_paused = True
        self.transport.pause_reading()

    def resume_reading(self) -> None:
        self._reading_paused = False
        if not self.transport.is_closing():
            self.transport.resume_reading()

    async def drained(self) -> None:
        if self._writable is not None:
            await asyncio.shield(self._writable)

    # ---- what comes in ----

    async def listen(self) -> None:
        """Serve what the client sends until the connection is over. Never raises for what a client does."""
        try:
            while await self._hear(await self._inbox.read()):
                if self.waiting_bytes() > self._context.settings.outgoing_bytes_max and self.closing is None:
                    # Acks and pongs to somebody who sends and never reads must not pile up.
                    await self.drained()
        except EofStream:
            return
        except WebSocketError as exc:
            self.end(_PARSER_CLOSES.get(WSCloseCode(exc.code), Close.PROTOCOL))
        # The client may still be sending what was refused: closing now would reset it before it reads our close
        # frame (RFC 6455 §7.1.1). It closes, or the abort timer does.
        if self.transport.is_closing():
            return
        self.transport.write_eof()
        self._lost = asyncio.get_running_loop().create_future()
        await self._lost

    async def _hear(self, message: WSMessage | WSMessageTextBytes) -> bool:
        """One frame. False: it was the last."""
        if message.type is WSMsgType.CLOSE:
            self.end(Close.CLIENT)
            return False
        if message.type is WSMsgType.PONG:
            self.pinged = False
        if self.closing is not None:
            return True
        if message.type is WSMsgType.TEXT:
            self.heard = True
            await self._say(message.data)
        elif message.type is WSMsgType.PING:
            self.heard = True
            self.write(frames.pong(bytes(message.data)))
        elif message.type is WSMsgType.BINARY:
            self.end(Close.BINARY)
        return True

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
            said = self.wire.parse(text)
        except BadMessage as exc:
            if self.wire.answers:
                self.write(wires.error("bad_json", exc.args[0], exc.ref))
            else:
                self.end(Close.BAD_DATA, exc.args[0])
            return
        if isinstance(said, Asked):
            self.write(wires.pong(said.ref))
            return
        if self.in_flight >= context.settings.publish_window:
            context.metrics.window_full += 1
            await self._window()
        if context.broker.publisher.full(self.id):
            await context.broker.publisher.space(self.id)
        if self.closing is None:
            context.hub.publish(self.room, self, said.message, said.ref)

    def _may_speak(self) -> bool:
        rate = self._context.settings.messages_per_s
        if not rate:
            return True
        # The world's clock, not the node's: what a client sent while this process was paused was no burst of its.
        now = time.monotonic()
        if self._bucket is None:
            self._bucket = TokenBucket(rate, self._context.settings.messages_burst, now)
        return self._bucket.take(now)

    async def _window(self) -> None:
        """Wait until a publish of this client is answered. Nothing more is read from it meanwhile."""
        while self.in_flight >= self._context.settings.publish_window and self.closing is None:
            self.window_open = asyncio.get_running_loop().create_future()
            await self.window_open

    # ---- how it ends ----

    def end(self, close: Close, text: str | None = None) -> None:
        if self.closing is not None:
            return
        self.closing = close
        self._context.hub.leave(self.room, self)
        if self.window_open is not None and not self.window_open.done():
            self.window_open.set_result(None)
        if close in (Close.LOST, Close.DEAD):
            self.transport.abort()
            return
        # A gap hits a whole room at once; its sessions must not come back all at once.
        close_s = self._context.settings.close_s
        after_s = random.uniform(0, close_s) if close is Close.GAP else 0.0
        loop = asyncio.get_running_loop()
        if after_s:
            loop.call_later(after_s, self._write_close, close, text)
        else:
            self._write_close(close, text)
        self._abort_timer = loop.call_later(after_s + close_s, self.transport.abort)

    def _write_close(self, close: Close, text: str | None) -> None:
        self.write(frames.close(close.code, close.text if text is None else text))

    def go_away(self, after_s: float) -> None:
        """This node drains: come back elsewhere."""
        if self.closing is None:
            if self.wire.answers:
                self.write(wires.reconnect(after_s))
            self.end(Close.DRAIN)
