"""A stream of server-sent events: a connection that is not spoken to. It is what an HTTP answer ends with.

Its end is the connection's: no chunks, which HAProxy holds back for up to 0.2 s to fill its packets (measured: 97 ms at
the median), and which would cost every event a length.
"""

import asyncio
import socket as sockets
from collections.abc import Mapping
from contextlib import suppress
from email.utils import formatdate
from socket import IPPROTO_TCP

from gateway.broker.publish import Refusal
from gateway.core.closes import Close
from gateway.core.names import RoomName
from gateway.core.wires import Ref, sse
from gateway.edge.listener import Listener
from gateway.edge.pages import SECURITY_HEADERS
from gateway.rooms.session import Session
from gateway.telemetry.logs import access

# How long what was sent may stay unacknowledged (tcp(7); Linux). Nobody answers a comment, so only TCP knows.
USER_TIMEOUT: int | None = getattr(sockets, "TCP_USER_TIMEOUT", None)
_HEADERS = SECURITY_HEADERS | {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    # nginx would keep what it reads until it is worth sending.
    "X-Accel-Buffering": "no",
    # The stream ends where the connection does.
    "Connection": "close",
}


def head(more: Mapping[str, str]) -> bytes:
    """Of the answer whose body is a stream, with more headers."""
    fields = {**_HEADERS, **more, "Date": formatdate(usegmt=True)}
    return "\r\n".join(("HTTP/1.1 200 OK", *(f"{name}: {value}" for name, value in fields.items()), "", "")).encode()


class EventStream(Listener):
    """One session, from the head of the answer to its end."""

    __slots__ = ()

    log = staticmethod(access.sse)

    def notice_death(self, within_s: float) -> None:
        """Have the kernel give the socket up when its peer acknowledges nothing for so long."""
        socket = self.transport.get_extra_info("socket")
        if socket is not None and USER_TIMEOUT is not None:
            with suppress(OSError):  # a Unix socket has no such option
                socket.setsockopt(IPPROTO_TCP, USER_TIMEOUT, int(within_s * 1000))

    def take(self, data: bytes | bytearray) -> None:
        """Dropped: another request behind this one would never be answered, as its answer says."""

    def eof_received(self) -> None:
        self.end(Close.CLIENT)

    def ask_for_life(self) -> None:
        """It can't be asked, but those between hear that it lives, and TCP whether the other end does."""
        self.quiet_looks = 0
        self.write(sse.COMMENT)

    def answered(self, outcome: bytes | Refusal, ref: Ref, room: RoomName) -> None:
        """Never: it publishes nothing."""

    def dismiss(self, session: Session, close: Close) -> None:
        self.end(close)

    def end(self, close: Close) -> None:
        """Nobody is told why, but that a node goes away: whatever it was, an EventSource comes back."""
        if self.closing is not None:
            return
        self.closing = close
        for session in list(self.sessions.values()):
            self.leave(session)
        if close in (Close.LOST, Close.DEAD):
            self.transport.abort()
            return
        self.transport.close()
        self._abort_timer = asyncio.get_running_loop().call_later(self._context.settings.close_s, self.transport.abort)

    def go_away(self, after_s: float) -> None:
        if self.closing is None:
            self.write(sse.reconnect(after_s))
            self.end(Close.DRAIN)
