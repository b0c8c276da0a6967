"""Who listens to rooms: its socket, its sessions, what it was sent, since when it takes nothing. How each kind of
connection speaks, is asked whether it lives, and ends, is its own.
"""

import asyncio
import secrets
import select
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from gateway.broker.publish import Refusal
from gateway.core.closes import Close
from gateway.core.names import RoomName
from gateway.core.rights import Rights
from gateway.core.user import Grant, User
from gateway.core.wires import Ref, Wire
from gateway.edge.context import Context
from gateway.edge.intake import READ_BYTES
from gateway.rooms.hub import Place
from gateway.rooms.session import Session

# A client's FIN, as poll(2) tells it; 0: this system does not.
_FIN = getattr(select, "POLLRDHUP", 0)
# What the loop reads into, of every socket: it is taken out before the next one is read.
_READ = bytearray(READ_BYTES)

# So late may an end be noticed where the loop's clock and the world's part.
EXPIRY_LOOK_S = 60.0


class Listener(ABC, asyncio.BufferedProtocol):
    """One connection, from its answer's head to its last byte."""

    __slots__ = (
        "_abort_timer", "_behind", "_context", "_expiry", "_stuck_bytes", "_stuck_since", "_turn", "_writable",
        "closing", "entered", "gone", "grant", "id", "opened_at", "path", "peer", "quiet_looks", "received",
        "received_bytes", "room", "sent_bytes", "sent_entries", "sessions", "slot", "transport", "wire",
    )  # fmt: skip

    # Of logs.access: the lines that say how connections of this kind come and go.
    log: ClassVar[Callable[..., None]]

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
        # Under which it publishes; clients and logs call it the session.
        self.id = secrets.token_urlsafe(9)
        # Who speaks and listens here, what they may do, until when.
        self.grant = grant
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
        # Of what it said.
        self.received = 0
        self.received_bytes = 0
        # Of the sessions that it had.
        self.sent_entries = 0
        self.sent_bytes = 0
        # Why it ends; None: it does not.
        self.closing: Close | None = None
        # How often the wheel looked since the last byte came.
        self.quiet_looks = 0
        # Where the wheel has this connection.
        self.slot = 0
        # Told once, when the socket is closed.
        self.gone: Callable[[Listener], None] | None = None
        self._context = context
        # While the socket's buffer is above its high-water mark: done when it is below the low one.
        self._writable: asyncio.Future[None] | None = None
        # Made when one of its sessions is first walked.
        self._turn: asyncio.Lock | None = None
        # How many of its sessions are behind.
        self._behind = 0
        # What waited in the socket when it last took anything, and when that was.
        self._stuck_bytes = 0
        self._stuck_since = 0.0
        self._abort_timer: asyncio.TimerHandle | None = None
        # Looks whether its grant has ended; None: it has no end.
        self._expiry: asyncio.TimerHandle | None = None

    @property
    def user(self) -> User:
        return self.grant.user

    @property
    def rights(self) -> Rights:
        return self.grant.rights

    def opened_at_ms(self, now_ms: float) -> float:
        """When it came, by the clock that says `now_ms`."""
        return now_ms - (time.monotonic() - self.opened_at) * 1000

    # ---- the transport's protocol ----

    def get_buffer(self, sizehint: int) -> bytearray:
        return _READ

    def buffer_updated(self, nbytes: int) -> None:
        self.take(_READ[:nbytes])

    @abstractmethod
    def take(self, data: bytes | bytearray) -> None:
        """What was read of the socket: at most READ_BYTES, more only behind the request, in the same read."""

    def connection_lost(self, exc: Exception | None) -> None:
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        if self._expiry is not None:
            self._expiry.cancel()
        self.resume_writing()
        # The kernel gave it up (TCP_USER_TIMEOUT): nobody acknowledged what was sent.
        self.end(Close.DEAD if isinstance(exc, TimeoutError) else Close.LOST)
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

    @property
    def held(self) -> bool:
        """Whether its socket is not read at present, so that its silence means nothing."""
        return False

    @abstractmethod
    def ask_for_life(self) -> None:
        """It was quiet for almost ping_s. Who may be asked owes a byte within as long again."""

    def look_for_end(self) -> None:
        """Hear of a socket that is not read what the kernel knows of its end. To be called every so often.

        After a reset nobody is there. Behind a FIN somebody may still read: a client that does not answers whatever it
        is sent by a reset.
        """
        ends = _ends_of(self.transport)
        if ends & ~_FIN:
            self.end(Close.LOST)
        elif ends:
            self.ask_for_life()

    # ---- how a session begins and ends, and how all do ----

    def end_in_time(self) -> None:
        """End it when its grant does. To be called when it has another grant."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if self.grant.expires_at is None or self.closing is not None:
            return
        left_s = self.grant.expires_at - time.time()
        if left_s <= 0:
            self.end(Close.EXPIRED)
        else:
            # The loop's clock stands still while a machine sleeps, the world's does not.
            look_in_s = min(left_s, EXPIRY_LOOK_S)
            self._expiry = asyncio.get_running_loop().call_later(look_in_s, self.end_in_time)

    def enter(self, place: Place) -> Session:
        """A session in a room that it is not in. The caller tells the client, and admits it, in this turn."""
        session = self.sessions[place.room.name] = place.session(self)
        self.entered += 1
        if session.room.here is not None:
            self._context.presence.entered(session.room.here, session)
        return session

    def leave(self, session: Session) -> None:
        """End one session: from here on nothing of its room comes. The others, and the connection, stay."""
        self._context.hub.leave(session)
        if session.room.here is not None:
            self._context.presence.left(session.room.here, session)
        del self.sessions[session.room.name]
        self.sent_entries += session.sent_entries
        self.sent_bytes += session.sent_bytes

    @abstractmethod
    def dismiss(self, session: Session, close: Close) -> None:
        """End one session, telling why; the connection too, where its client knows of no other room."""

    @abstractmethod
    def end(self, close: Close) -> None:
        """End all its sessions and close the socket, telling why. The first reason counts."""

    @abstractmethod
    def answered(self, outcome: bytes | Refusal, ref: Ref, room: RoomName) -> None:
        """The broker's answer to one publish in a room: its id, or why there is none."""

    @abstractmethod
    def go_away(self, after_s: float) -> None:
        """This node drains: come back elsewhere after so many seconds."""


def _ends_of(transport: asyncio.Transport) -> int:
    """_FIN of a socket whose client says no more; POLLHUP, POLLERR too after a reset; 0: it has not ended."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return 0
    poll = select.poll()
    poll.register(sock.fileno(), _FIN)
    return sum(events for _, events in poll.poll(0))
