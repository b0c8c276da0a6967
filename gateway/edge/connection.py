"""A WebSocket: its socket, its sessions, what it says, what it hears beside its rooms' frames, and how it ends.

Every frame is core's, written straight to the transport. What comes in is read and held back by `intake.py`. A client
that only listens has neither a task nor a buffer.
"""

import asyncio
import random
import secrets
import time
from collections.abc import Callable
from contextlib import suppress

from gateway.broker.publisher import Refusal
from gateway.core import frames, inbound
from gateway.core.closes import Close
from gateway.core.entry import entry_id
from gateway.core.inbound import Frame, Opcode
from gateway.core.names import BadRoomName, RoomName, room_name
from gateway.core.wires import Asked, BadMessage, Ping, Ref, Said, Wire, v1
from gateway.edge.context import Context
from gateway.edge.intake import READ_BYTES, Intake
from gateway.edge.requests import Requests
from gateway.rooms.hub import Place
from gateway.rooms.session import Session

# What the loop reads into, of every socket: it is taken out before the next one is read.
_READ = bytearray(READ_BYTES)


class Connection(asyncio.BufferedProtocol):
    """One connection, from the 101 to its last byte."""

    __slots__ = (
        "_abort_timer", "_behind", "_close_written", "_context", "_intake", "_stuck_bytes", "_stuck_since",
        "_turn", "_window_open", "_writable", "closing", "entered", "gone", "id", "in_flight", "opened_at", "path",
        "peer",
        "quiet_looks", "received", "received_bytes", "requests", "room", "sent_bytes", "sent_entries", "sessions",
        "slot", "transport", "wire",
    )  # fmt: skip

    def __init__(
        self, context: Context, transport: asyncio.Transport, path: str, peer: str, wire: Wire, room: RoomName | None
    ) -> None:
        # Under which it publishes; clients and logs call it the session.
        self.id = secrets.token_urlsafe(9)
        self.wire = wire
        self.transport = transport
        self.path = path
        self.peer = peer
        # Of its address, for the log; None: of none.
        self.room = room
        # What it is in. Rooms serve these, and end the connection where one of them cannot go on.
        self.sessions: dict[RoomName, Session] = {}
        # How many it had in all.
        self.entered = 0
        self.opened_at = time.monotonic()
        self.received = 0
        self.received_bytes = 0
        # Of the sessions that it had.
        self.sent_entries = 0
        self.sent_bytes = 0
        # Publishes sent to the broker and not answered yet; who reads the socket waits for `window`.
        self.in_flight = 0
        # Why it ends; None: it does not.
        self.closing: Close | None = None
        # How often the wheel looked since the last byte came.
        self.quiet_looks = 0
        # Where the wheel has this connection.
        self.slot = 0
        # Told once, when the socket is closed.
        self.gone: Callable[[Connection], None] | None = None
        # What it asked beside saying something; None: nothing yet.
        self.requests: Requests | None = None
        self._context = context
        self._intake: Intake | None = None
        # While the socket's buffer is above its high-water mark: done when it is below the low one.
        self._writable: asyncio.Future[None] | None = None
        # Made when one of its sessions is first walked.
        self._turn: asyncio.Lock | None = None
        self._window_open: asyncio.Future[None] | None = None
        # How many of its sessions are behind.
        self._behind = 0
        # What waited in the socket when it last took anything, and when that was.
        self._stuck_bytes = 0
        self._stuck_since = 0.0
        self._abort_timer: asyncio.TimerHandle | None = None
        self._close_written = False

    # ---- the transport's protocol ----

    def get_buffer(self, sizehint: int) -> bytearray:
        return _READ

    def buffer_updated(self, nbytes: int) -> None:
        self.take(_READ[:nbytes])

    def take(self, data: bytes | bytearray) -> None:
        """What was read of the socket, at most READ_BYTES."""
        self.quiet_looks = 0
        if self.closing is not None:
            # Dropped unparsed: it is the client's own close frame, or of no interest.
            self._say_no_more()
            return
        if len(data) > READ_BYTES:  # behind the handshake, in the same read
            self.end(Close.PROTOCOL, "wait for the 101 (RFC 6455 section 4.1)")
            return
        if self._intake is None:
            self._intake = Intake(self, self._context)
        self._intake.take(data)

    def eof_received(self) -> None:
        return None  # the transport closes itself; connection_lost follows

    def connection_lost(self, exc: Exception | None) -> None:
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        self.resume_writing()
        self.end(Close.LOST)
        if self.gone is not None:
            self.gone(self)

    def pause_writing(self) -> None:
        if self._writable is None or self._writable.done():
            self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    @property
    def turn(self) -> asyncio.Lock:
        """Of its sessions that are walked, each of which may fill the socket by itself."""
        if self._turn is None:
            self._turn = asyncio.Lock()
        return self._turn

    async def drained(self) -> None:
        if self._writable is not None:
            await asyncio.shield(self._writable)

    @property
    def held(self) -> bool:
        """Whether its socket is not read at present, so that its silence means nothing."""
        return self._intake is not None and self._intake.held

    def stop_reading(self) -> None:
        """Leave to the kernel what the client sends. The caller owes it `read_on()`."""
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def read_on(self) -> None:
        """Read the socket again; only a socket that is read hears of its end."""
        if not self.transport.is_closing():
            self.transport.resume_reading()

    # ---- what goes out ----

    def write(self, data: bytes) -> None:
        """Give whole frames to the socket. A broken socket ends the connection instead of raising."""
        try:
            self.transport.write(data)
        except Exception:  # uvloop raises RuntimeError on a transport that was closed in this very turn
            self.end(Close.LOST)

    def waiting_bytes(self) -> int:
        """What the socket was given and has not sent."""
        return self.transport.get_write_buffer_size()

    def fell_behind(self) -> None:
        """One of its sessions did. Nobody looked at the first one yet: the first look begins the wait, by the clock of
        whoever looks."""
        if not self._behind:
            self._stuck_bytes = -1
        self._behind += 1

    def caught_up(self) -> None:
        """One of its sessions that were behind is live, or left."""
        self._behind -= 1

    def stalled(self, now: float, stall_s: float) -> bool:
        """Whether bytes wait and none was taken for `stall_s`. To be asked again and again."""
        waiting = self.waiting_bytes()
        if waiting == 0 or waiting != self._stuck_bytes:
            self._stuck_bytes = waiting
            self._stuck_since = now
        return now - self._stuck_since > stall_s

    # ---- what comes in ----

    def hear(self, frame: Frame) -> None:
        """One frame that is neither a ping nor broken. Raises Broken if what it says is."""
        if frame.opcode is Opcode.TEXT:
            self._say(frame.payload)
        elif frame.opcode is Opcode.BINARY:
            self.end(Close.BINARY)
        elif frame.opcode is Opcode.CLOSE:
            self._answer_close(frame.payload)

    def _answer_close(self, payload: bytes) -> None:
        """RFC 6455 §5.5.1: the client's code comes back to it."""
        code, reason = inbound.close_code(payload)
        if code is None:
            self.end(Close.CLIENT)
        else:
            self.end(Close.CLIENT, reason, code)
        self._say_no_more()

    def _say(self, payload: bytes) -> None:
        context = self._context
        self.received += 1
        self.received_bytes += len(payload)
        context.metrics.received += 1
        context.metrics.received_bytes += len(payload)
        try:
            said = self.wire.parse(inbound.text(payload))
        except BadMessage as exc:
            if self.wire.answers:
                self.refuse("bad_json", exc.args[0], exc.ref)
            else:
                self.end(Close.BAD_DATA, exc.args[0])
            return
        if isinstance(said, Said):
            self._publish(said)
        elif isinstance(said, Ping):
            self.write(v1.pong(said.ref))
        else:
            self._ask(said)

    def _publish(self, said: Said) -> None:
        sessions = self.sessions
        if said.room is not None:
            session = self.session(said.room)
        else:
            session = next(iter(sessions.values())) if len(sessions) == 1 else None
        if session is None:
            self.refuse("not_joined", _elsewhere(said.room, len(sessions)), said.ref, self.named(said.room))
            return
        self.in_flight += 1
        self._context.hub.publish(session, said.message, said.ref)

    def _ask(self, request: Asked) -> None:
        if self.requests is None:
            self.requests = Requests(self, self._context)
        if isinstance(request, v1.Join) and self._intake is not None:
            self._intake.charge_join()
        self.requests.ask(request)

    def session(self, room: str) -> Session | None:
        """In the room of this name, as a client wrote it; None: it is not in there."""
        session = self.sessions.get(RoomName(room))
        if session is None and (name := self.named(room)) is not None:  # two spellings may be one room
            session = self.sessions.get(name)
        return session

    def named(self, room: str | None) -> RoomName | None:
        """The room that a client means; None: it names none."""
        if room is not None:
            with suppress(BadRoomName):
                return room_name(room, self._context.settings.room_name_chars_max)
        return None

    def refuse(self, code: str, text: str, ref: Ref, room: RoomName | None = None) -> None:
        """A request, of a room or of none, failed; v1 is told."""
        self._context.metrics.errors_told[code] += 1
        self.write(v1.error(code, text, ref, room))

    def answered(self, outcome: bytes | Refusal, ref: Ref, room: RoomName) -> None:
        """The broker's answer to one publish in a room: its id, or why there is none."""
        self.in_flight -= 1
        if self._window_open is not None and not self._window_open.done():
            self._window_open.set_result(None)
        if self.closing is not None:
            return
        if self.wire.answers:
            if isinstance(outcome, Refusal):
                self.refuse(outcome.code, outcome.value, ref, room)
            elif ref is not None:
                self.write(v1.ack(ref, room, entry_id(outcome)))
        elif isinstance(outcome, Refusal):
            self.end(Close.BROKER)

    async def window(self) -> None:
        """Wait until a publish of this client is answered."""
        if self.closing is None:
            self._window_open = asyncio.get_running_loop().create_future()
            await self._window_open

    # ---- how a session begins and ends, and how all do ----

    def enter(self, place: Place) -> Session:
        """A session in a room that it is not in. The caller tells the client, and admits it, in this turn."""
        session = self.sessions[place.room.name] = place.session(self)
        self.entered += 1
        return session

    def leave(self, session: Session) -> None:
        """End one session: from here on nothing of its room comes. The others, and the connection, stay."""
        self._context.hub.leave(session)
        del self.sessions[session.room.name]
        self.sent_entries += session.sent_entries
        self.sent_bytes += session.sent_bytes

    def dismiss(self, session: Session, close: Close) -> None:
        """End one session, telling why. Who never asked for a room may know no `left`: its connection ends."""
        if self.requests is None:
            self.end(close)
        elif self.closing is None:
            self.leave(session)
            self.write(v1.left(session.room.name, reason=close.label))

    def end(self, close: Close, text: str | None = None, code: int | None = None) -> None:
        if self.closing is not None:
            return
        self.closing = close
        for session in list(self.sessions.values()):
            self.leave(session)
        if self._intake is not None:
            self._intake.end()
        if self.requests is not None:
            self.requests.end()
        if close in (Close.LOST, Close.DEAD):
            self.transport.abort()
            return
        self.read_on()
        farewell = frames.close(code or close.code, close.text if text is None else text)
        # A gap hits a whole room at once; its sessions must not come back all at once.
        close_s = self._context.settings.close_s
        after_s = random.uniform(0, close_s) if close is Close.GAP else 0.0
        loop = asyncio.get_running_loop()
        if after_s:
            loop.call_later(after_s, self._write_close, farewell)
        else:
            self._write_close(farewell)
        self._abort_timer = loop.call_later(after_s + close_s, self.transport.abort)

    def _write_close(self, farewell: bytes) -> None:
        self.write(farewell)
        self._close_written = True

    def _say_no_more(self) -> None:
        """Behind our close frame comes our FIN, and we read on: closing now would reset a client that is still sending
        before it reads that frame (RFC 6455 §7.1.1). It closes, or the abort timer does. Idempotent."""
        if self._close_written and not self.transport.is_closing():
            self.transport.write_eof()

    def go_away(self, after_s: float) -> None:
        """This node drains: come back elsewhere."""
        if self.closing is None:
            if self.wire.answers:
                self.write(v1.reconnect(after_s))
            self.end(Close.DRAIN)


def _elsewhere(room: str | None, joined: int) -> str:
    """Why a message is for no room that its connection is in."""
    if room is not None:
        return "this connection is not in that room: join it first"
    return (
        "this connection is in no room" if not joined else f"this connection is in {joined} rooms: say which (`room`)"
    )
