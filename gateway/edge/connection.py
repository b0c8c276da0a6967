"""A WebSocket: a listener that speaks. What it says, what it hears beside its rooms' frames, and how it ends.

Every frame is core's, written straight to the transport. What comes in is read and held back by `intake.py`. A client
that only listens has neither a task nor a buffer.
"""

import asyncio
import random
from contextlib import suppress

from gateway.broker.publish import Refusal
from gateway.core import frames, inbound
from gateway.core.closes import Close
from gateway.core.entry import entry_id
from gateway.core.inbound import Frame, Opcode
from gateway.core.names import BadRoomName, RoomName, room_name
from gateway.core.user import Grant
from gateway.core.wires import Asked, BadMessage, Ping, Ref, Said, Types, Wire, v1
from gateway.edge.context import Context
from gateway.edge.intake import READ_BYTES, Intake
from gateway.edge.listener import Listener
from gateway.edge.requests import Requests
from gateway.edge.sayings import Sayings
from gateway.rooms.session import Session
from gateway.site.publishing import TurnedDown
from gateway.telemetry.logs import access


class Connection(Listener):
    """One connection, from the 101 to its last byte."""

    __slots__ = ("_close_written", "_intake", "_sayings", "_window_open", "in_flight", "requests")

    log = staticmethod(access.ws)

    def __init__(
        self,
        context: Context,
        transport: asyncio.Transport,
        path: str,
        peer: str,
        wire: Wire,
        room: RoomName | None,
        grant: Grant,
    ) -> None:
        super().__init__(context, transport, path, peer, wire, room, grant)
        # Publishes sent to the broker and not answered yet; who reads the socket waits for `window`.
        self.in_flight = 0
        # What it asked beside saying something; None: nothing yet.
        self.requests: Requests | None = None
        # What it said in rooms where the site is asked; None: nothing yet.
        self._sayings: Sayings | None = None
        self._intake: Intake | None = None
        self._window_open: asyncio.Future[None] | None = None
        self._close_written = False

    # ---- the transport's protocol ----

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

    def ask_for_life(self) -> None:
        self.write(frames.PING)

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
        elif isinstance(said, Types):
            self._type(said)
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
        if "w" not in self.grant.rights.of(session.room.name):
            self._may_not_write(said.ref, session.room.name)
            return
        self.in_flight += 1
        hook = self._context.hook
        if hook is not None and hook.asks(session.room.name):
            if self._sayings is None:
                self._sayings = Sayings(self, self._context, hook)
            self._sayings.say(session, said)
        else:
            self._context.hub.publish(session, said.message, said.ref)

    def _may_not_write(self, ref: Ref, room: RoomName) -> None:
        if self.wire.answers:
            self.refuse("forbidden", "this user may not write in that room", ref, room)
        else:
            self.end(Close.FORBIDDEN)

    def _type(self, said: Types) -> None:
        session = self.session(said.room)
        if session is None:
            self.refuse("not_joined", _elsewhere(said.room, len(self.sessions)), said.ref, self.named(said.room))
        elif "w" not in self.grant.rights.of(session.room.name):
            self._may_not_write(said.ref, session.room.name)
        else:
            self._context.hub.typing.say(session)

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
        self._one_less_in_flight()
        if self.closing is not None:
            return
        if self.wire.answers:
            if isinstance(outcome, Refusal):
                self.refuse(outcome.code, outcome.value, ref, room)
            elif ref is not None:
                self.write(v1.ack(ref, room, entry_id(outcome)))
        elif isinstance(outcome, Refusal):
            self.end(Close.BROKER)

    def turned_down(self, why: TurnedDown, ref: Ref, room: RoomName) -> None:
        """The site's word on one message: it is not said. Who speaks `plain` knows no other answer than a close."""
        self._one_less_in_flight()
        if self.closing is not None:
            return
        if self.wire.answers:
            self.refuse(why.code, why.args[0], ref, room)
        else:
            self.end(Close.SITE if why.code == "site" else Close.FORBIDDEN, why.args[0])

    def _one_less_in_flight(self) -> None:
        self.in_flight -= 1
        if self._window_open is not None and not self._window_open.done():
            self._window_open.set_result(None)

    async def window(self) -> None:
        """Wait until a publish of this client is answered."""
        if self.closing is None:
            self._window_open = asyncio.get_running_loop().create_future()
            await self._window_open

    # ---- how a session ends, and how all do ----

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
            self._context.watchers.forget(self)
            self._context.readers.forget(self)
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
