"""HTTP connections: how many one port may have, which are cut off, and what is answered to what is no request.

A *visit* is one connection until it ends or becomes a WebSocket, which is a client's and none of these any more.
"""

import socket as sockets
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from socket import IPPROTO_TCP
from typing import Any

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from gateway.edge.callers import shown
from gateway.edge.context import Context
from gateway.edge.pages import SECURITY_HEADERS
from gateway.edge.takeover import Upgraded

# An HTTP connection may stay so long for its next request: longer than the 60 s for which nginx means to use it.
KEEPALIVE_S = 75.0
# Bytes that the kernel may hold for a connection beyond what is on its way (tcp(7), TCP_NOTSENT_LOWAT; Linux, macOS).
NOTSENT_BYTES = 16_384
NOTSENT_LOWAT: int | None = getattr(sockets, "TCP_NOTSENT_LOWAT", None)
# Every `reason` of hiroba_requests_refused_total.
REASONS = ("head", "malformed")
_WHY_CHARS_MAX = 200
_HEAD_TOO_LARGE = "the head of the request is too large: head_bytes_max"

log = structlog.get_logger()


class Visits(web.Server):
    """Those of one port. Who comes when it is full takes the place of the one that has idled longest."""

    def __init__(self, app: web.Server, context: Context, space: Callable[[], int]) -> None:
        """Serves what `app` does. `space` is how many there may be now."""
        super().__init__(app.request_handler, request_factory=_answered_at_once(app.request_factory), **app._kwargs)
        self.head_bytes_max = context.settings.head_bytes_max
        self._timeout_s = context.settings.handshake_timeout_s
        self._metrics = context.metrics
        self._metrics.known("requests_refused", REASONS)
        self._clock = context.clock
        self._space = space
        # Who asked last, last.
        self._visits: dict[Visit, None] = {}
        # What still waits in a connection's buffer, and since when.
        self._still: dict[Visit, tuple[int, float]] = {}

    def __call__(self) -> "Visit":
        return Visit(self, loop=self._loop, **self._kwargs)

    def __len__(self) -> int:
        return len(self._visits)

    # ---- what a visit tells ----

    def connection_made(self, visit: "Visit", transport: Any) -> None:  # type: ignore[override]
        super().connection_made(visit, transport)
        _hold_little(transport.get_extra_info("socket"))
        self._visits[visit] = None
        if len(self._visits) > self._space():
            self._displace(visit)

    def connection_lost(self, visit: "Visit", exc: BaseException | None = None) -> None:  # type: ignore[override]
        super().connection_lost(visit, exc)
        self._visits.pop(visit, None)
        if visit.on_lost is not None:
            visit.on_lost()

    def asked(self, visit: "Visit") -> None:
        """A request came."""
        self._visits[visit] = self._visits.pop(visit, None)

    def refused(self, visit: "Visit", status: int, why: str) -> None:
        """It sent what is no request. How many lines say so is bounded where all lines are."""
        reason = "head" if status == 431 else "malformed"
        self._metrics.requests_refused[reason] += 1
        log.info("not a request", reason=reason, status=status, why=why, peer=visit.peer)

    # ---- who has to go ----

    def _displace(self, newcomer: "Visit") -> None:
        """Who idles; else who has not taken its answer; else who just came. Handshakes under way are bounded by
        connections_max."""
        goes = self._first(Visit.idles, newcomer) or self._first(Visit.is_answered, newcomer) or newcomer
        self._metrics.displaced += 1
        del self._visits[goes]
        goes.cut()

    def _first(self, goes: Callable[["Visit"], bool], newcomer: "Visit") -> "Visit | None":
        return next((visit for visit in self._visits if visit is not newcomer and goes(visit)), None)

    def cut_stalled(self) -> None:
        """Cut off who asks for nothing (not a byte, or a head byte by byte), or takes nothing of what it asked for.

        Called again and again. Who idles between two requests has a bound of its own: KEEPALIVE_S.
        """
        now = self._clock.now()
        before, self._still = self._still, {}
        for visit in list(self._visits):
            waiting = visit.waiting_bytes()
            if visit.has_asked and not waiting:
                continue
            bytes_then, since = before.get(visit, (waiting, now))
            if bytes_then != waiting:
                since = now
            elif now - since > self._timeout_s:
                self._metrics.stalled_visits += 1
                visit.cut()
                continue
            self._still[visit] = waiting, since


class Visit(web.RequestHandler):
    """One HTTP connection."""

    __slots__ = ("_head_bytes", "_visits", "on_lost")

    def __init__(self, visits: Visits, **options: Any) -> None:
        super().__init__(visits, **options)
        self._visits = visits
        # Of a request whose head is not whole yet.
        self._head_bytes = 0
        # Told when the client is gone, while somebody waits on its behalf: aiohttp tells no handler.
        self.on_lost: Callable[[], None] | None = None

    # ---- what it does ----

    @property
    def has_asked(self) -> bool:
        return self._request_count > 0

    @property
    def peer(self) -> str:
        return shown(self.peername)

    def idles(self) -> bool:
        """No request of it waits or is being served: none came yet, or none came since."""
        # aiohttp's own word for it, `_request_in_progress`, comes a turn of the loop after it took the request.
        return not self._messages and (self._waiter is not None or not self.has_asked)

    def is_answered(self) -> bool:
        """Some of an answer waits for the client to take it."""
        return self.waiting_bytes() > 0

    def waiting_bytes(self) -> int:
        return self.transport.get_write_buffer_size() if self.transport is not None else 0

    def cut(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    # ---- aiohttp's ----

    def data_received(self, data: bytes) -> None:
        idled, asked_before = self.idles(), self._request_count
        if idled and self._head_bytes + len(data) > self._visits.head_bytes_max and self._head_is_too_large(data):
            return
        super().data_received(data)
        if self._request_count != asked_before:
            self._head_bytes = 0
            self._visits.asked(self)
        elif idled:
            self._head_bytes += len(data)

    def _head_is_too_large(self, data: bytes) -> bool:
        """The parser bounds each line, and their number, but not the whole. If so, it is answered."""
        end = data.find(b"\r\n\r\n")
        if 0 <= end <= self._visits.head_bytes_max - self._head_bytes or self.transport is None:
            return False
        self._visits.refused(self, 431, _HEAD_TOO_LARGE)
        self.transport.write(_last_answer(431, _HEAD_TOO_LARGE))
        self.force_close()
        return True

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """What the parser refused is the client's fault. Anything else is a bug, and aiohttp logs it."""
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        status, why = (431, _HEAD_TOO_LARGE) if isinstance(exc, LineTooLong) else (400, _first_line(exc.message))
        self._visits.refused(self, status, why)
        answer = web.Response(status=status, text=f"{why}\n")
        answer.force_close()
        return answer

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Every answer has them, whoever made it: a page, aiohttp's router, its handler of errors."""
        if not isinstance(resp, Upgraded):
            for name, value in SECURITY_HEADERS.items():
                resp.headers.setdefault(name, value)
        return await super().finish_response(request, resp, start_time)


def _hold_little(socket: Any) -> None:
    """The kernel is a buffer too (4 MB a socket): what is not sent stays where our bounds count it, also once this
    connection is a WebSocket. Who asks and takes nothing is found out after an answer or two."""
    if socket is not None and NOTSENT_LOWAT is not None:
        with suppress(OSError):  # a Unix socket has no such option
            socket.setsockopt(IPPROTO_TCP, NOTSENT_LOWAT, NOTSENT_BYTES)


def _answered_at_once(factory: Callable[..., web.BaseRequest]) -> Callable[..., web.BaseRequest]:
    """`factory` without the header Expect: nobody here reads a body, so nobody is told to go on and send it
    (RFC 9110 §10.1.1). aiohttp's own 100 and 417 end in a traceback when the client is gone or writes no UTF-8."""

    def request(message: Any, *rest: Any, **options: Any) -> web.BaseRequest:
        if "Expect" in message.headers:
            headers = message.headers.copy()
            del headers["Expect"]
            message = message._replace(headers=headers)
        return factory(message, *rest, **options)

    return request


def _first_line(text: str) -> str:
    return text.partition("\n")[0].rstrip(" :")[:_WHY_CHARS_MAX] or "not HTTP"


def _last_answer(status: int, text: str) -> bytes:
    """A response, whole, to somebody whose request the parser still waits for."""
    body = f"{text}\n".encode()
    fields = SECURITY_HEADERS | {
        "Content-Type": "text/plain; charset=utf-8",
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    head = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join((*head, "", "")).encode() + body
