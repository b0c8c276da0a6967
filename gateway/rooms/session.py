"""One connection in one room: a cursor on the room's log. No I/O of its own; light, for a connection may have many."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from gateway.broker.publish import Refusal
from gateway.core.closes import Close
from gateway.core.entry import START, EntryId
from gateway.core.names import RoomName
from gateway.core.user import User
from gateway.core.wires import Ref, Wire

if TYPE_CHECKING:
    from gateway.rooms.room import Room


class Transport(Protocol):
    """The part of asyncio.Transport that a room needs."""

    def write(self, data: bytes) -> None: ...
    def get_write_buffer_size(self) -> int: ...


class Connection(Protocol):
    """Who has the socket, and a session in each room it joined: as much of it as rooms know."""

    @property
    def id(self) -> str:
        """Under which it publishes."""

    @property
    def user(self) -> User:
        """Who publishes."""

    @property
    def wire(self) -> Wire: ...

    @property
    def sessions(self) -> "Mapping[RoomName, Session]": ...

    @property
    def closing(self) -> Close | None:
        """Why it ends; None: it does not."""

    @property
    def transport(self) -> Transport: ...

    def write(self, data: bytes) -> None:
        """Give whole frames to the socket. A broken socket ends the connection instead of raising."""

    @property
    def turn(self) -> asyncio.Lock:
        """Held by the walk that fills the socket: one of its sessions at a time, in the order of asking."""

    async def drained(self) -> None:
        """Return when the socket's buffer is below its low-water mark, or when there is no socket any more."""

    def answered(self, outcome: bytes | Refusal, ref: Ref, room: RoomName) -> None:
        """The broker's answer to one publish in a room: its id, or why there is none."""

    def fell_behind(self) -> None:
        """One of its sessions did. It is now asked again and again whether it is `stalled`."""

    def caught_up(self) -> None:
        """One of its sessions that were behind is live, or left."""

    def stalled(self, now: float, stall_s: float) -> bool:
        """Whether bytes wait and none was taken for `stall_s`."""

    def dismiss(self, session: "Session", close: Close) -> None:
        """End one session, telling why; the connection too, where its client knows of no other room."""

    def end(self, close: Close) -> None:
        """End all its sessions and close the socket, telling why. The first reason counts."""


class Session:
    """What a connection is owed of one room's log, and how far it got. A live session stands where the room does."""

    __slots__ = (
        "began", "came_at", "came_behind", "connection", "cursor", "past", "room", "sent_bytes", "sent_entries",
        "transport",
    )  # fmt: skip

    def __init__(self, connection: Connection, room: "Room", cursor: EntryId = START) -> None:
        self.connection = connection
        # The connection's own: here too, for a room writes to thousands in one loop.
        self.transport = connection.transport
        self.room = room
        # The last entry written to the socket; of a live session the room's cursor counts instead.
        self.cursor = cursor
        # Where its messages began, live or walked: what is at or below, it asks for.
        self.began = cursor
        # Where the log stood when it came and asked for nothing by name: what was lost below is no loss of its.
        self.came_at: EntryId = START
        # The newest seam of the log that was known then: nothing that it took is a loss of this session's.
        self.came_behind = 0
        # The newest seam known to lie behind its cursor: for who is behind where ids do not tell.
        self.past = 0
        # While live these are offsets to the room's totals, see room.Live.
        self.sent_entries = 0
        self.sent_bytes = 0

    @property
    def wire(self) -> Wire:
        return self.connection.wire

    def answered(self, outcome: bytes | Refusal, ref: Ref) -> None:
        """The broker's answer to one publish, also when it has left meanwhile."""
        self.connection.answered(outcome, ref, self.room.name)
