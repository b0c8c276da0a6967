"""One client in a room: a cursor on the room's log, and a socket that takes so much and no more. No I/O of its own."""

import asyncio
import secrets
from abc import ABC, abstractmethod
from typing import Protocol

from gateway.broker.publisher import Refusal
from gateway.core.closes import Close
from gateway.core.entry import START, EntryId, entry_id
from gateway.core.wires import Ref, Wire, v1


class Transport(Protocol):
    """The part of asyncio.Transport that a session needs."""

    def write(self, data: bytes) -> None: ...
    def get_write_buffer_size(self) -> int: ...


class Session(ABC):
    """What one client is owed, and how far it got. A live session stands where the room does."""

    __slots__ = (
        "came_at", "came_behind", "closing", "cursor", "id", "in_flight", "past", "sent_bytes", "sent_entries",
        "stuck_bytes", "stuck_since", "transport", "walk", "window_open", "wire",
    )  # fmt: skip

    def __init__(self, wire: Wire, transport: Transport) -> None:
        self.id = secrets.token_urlsafe(9)
        self.wire = wire
        self.transport = transport
        # The last entry written to the socket; of a live session the room's cursor counts instead.
        self.cursor: EntryId = START
        # Where the log stood when it came and asked for nothing by name: what was lost below is no loss of its.
        self.came_at: EntryId = START
        # The newest seam of the log that was known then: nothing that it took is a loss of this session's.
        self.came_behind = 0
        # The newest seam known to lie behind its cursor: for who is behind where ids do not tell.
        self.past = 0
        # The task that walks this session to the top; None: live, or not in a room.
        self.walk: asyncio.Task[None] | None = None
        # What waited in the socket when it last took anything, and when that was.
        self.stuck_bytes = 0
        self.stuck_since = 0.0
        # Publishes sent to the broker and not answered yet; who reads the socket waits for `window_open`.
        self.in_flight = 0
        self.window_open: asyncio.Future[None] | None = None
        # Why it ends; None: it does not.
        self.closing: Close | None = None
        # While live these are offsets to the room's totals, see room.Live.
        self.sent_entries = 0
        self.sent_bytes = 0

    @abstractmethod
    async def drained(self) -> None:
        """Return when the socket's buffer is below its low-water mark, or when there is no socket any more."""

    @abstractmethod
    def end(self, close: Close) -> None:
        """Leave the room and close the connection, telling why. The first reason counts."""

    def write(self, data: bytes) -> None:
        """Give whole frames to the socket. A broken socket ends the session instead of raising."""
        try:
            self.transport.write(data)
        except Exception:  # uvloop raises RuntimeError on a transport that was closed in this very turn
            self.end(Close.LOST)

    def waiting_bytes(self) -> int:
        """What the socket was given and has not sent."""
        return self.transport.get_write_buffer_size()

    def stalled(self, now: float, stall_s: float) -> bool:
        """Whether bytes wait and none was taken for `stall_s`. To be asked again and again."""
        waiting = self.waiting_bytes()
        if waiting == 0 or waiting != self.stuck_bytes:
            self.stuck_bytes = waiting
            self.stuck_since = now
        return now - self.stuck_since > stall_s

    def answered(self, outcome: bytes | Refusal, ref: Ref) -> None:
        """The broker's answer to one publish: its id, or why there is none."""
        self.in_flight -= 1
        if self.window_open is not None and not self.window_open.done():
            self.window_open.set_result(None)
        if self.closing is not None:
            return
        if self.wire.answers:
            if isinstance(outcome, Refusal):
                self.write(v1.error(outcome.code, outcome.value, ref))
            elif ref is not None:
                self.write(v1.ack(ref, entry_id(outcome)))
        elif isinstance(outcome, Refusal):
            self.end(Close.BROKER)
