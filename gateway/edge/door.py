"""What every way into a room asks of who comes: which room, from where on, whose page, is there space."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from aiohttp import web

from gateway.auth.auth import Credentials
from gateway.auth.denied import Denied
from gateway.auth.guests import COOKIE as GUEST_COOKIE
from gateway.auth.site import Visitor
from gateway.broker.errors import BrokerGone, BrokerRefused
from gateway.core.closes import Close
from gateway.core.entry import EntryId
from gateway.core.names import BadRoomName, RoomName, room_name
from gateway.core.user import Grant
from gateway.edge.callers import NoOrigin
from gateway.edge.edge import Edge
from gateway.rooms.hub import HubFull, Place

T = TypeVar("T")

RETRY_AFTER_S = 2
# Of what a client wrote, in a log line.
TOLD_CHARS_MAX = 200
# Every `label` of a Refused here.
REASONS = (
    "room_name", "bad_origin", "origin", "body", "draining", "connections", "history", "forbidden", "revoked", "kicked",
    "rooms", "broker",
)  # fmt: skip


class Refused(Exception):
    """Not this one. `label` is the metric's reason."""

    def __init__(self, status: int, label: str, text: str, **headers: str) -> None:
        super().__init__(text)
        self.status = status
        self.label = label
        self.headers = headers

    def response(self) -> web.Response:
        return web.Response(status=self.status, text=f"{self.args[0]}\n", headers=self.headers)


def busy(label: str, text: str) -> Refused:
    return Refused(503, label, text, **{"Retry-After": str(RETRY_AFTER_S)})


def _draining() -> Refused:
    return busy("draining", "this node is going away")


# ---- what can be judged without the broker ----


def room_of(edge: Edge, text: str) -> RoomName:
    try:
        return room_name(text, edge.settings.room_name_chars_max)
    except BadRoomName as exc:
        raise Refused(404, "room_name", str(exc)) from None


def check_origin(edge: Edge, request: web.Request) -> None:
    try:
        if not edge.callers.may_come(request):
            raise Refused(403, "origin", "this page may not come in here: allowed_origins")
    except NoOrigin as exc:
        raise Refused(400, "bad_origin", str(exc)) from None


def check_space(edge: Edge, request: web.Request) -> None:
    if request.body_exists:  # its bytes would stand where frames do
        raise Refused(400, "body", "a handshake has no body: Content-Length, Transfer-Encoding")
    check_places(edge)


def check_places(edge: Edge) -> None:
    """Whether one more may come."""
    if edge.draining:
        raise _draining()
    if edge.overloaded:
        raise busy("connections", "this node is full: connections_max")


def history_of(edge: Edge, request: web.Request) -> int:
    history, history_max = request.query.get("history", "0"), edge.settings.history_max
    if not (history.isascii() and history.isdigit() and len(history) <= 9 and int(history) <= history_max):
        raise Refused(400, "history", f"history is a number from 0 to {history_max}")
    return int(history)


def rejected(edge: Edge, request: web.Request, peer: str, refused: Refused, log: Callable[..., None]) -> None:
    """Count it, and say in a line of `log` who was refused and why."""
    edge.metrics.handshakes_refused[refused.label] += 1
    log(
        "REJECT",
        request.path,
        peer,
        reason=refused.label,
        status=refused.status,
        origin=told(request, "Origin"),
        host=told(request, "Host"),
    )


def told(request: web.Request, header: str) -> str | None:
    """As a log line has it."""
    value = request.headers.get(header)
    return None if value is None else value[:TOLD_CHARS_MAX]


def cors(edge: Edge, request: web.Request, exposed: str = "Retry-After") -> Mapping[str, str]:
    """What lets a page of another origin read the answer, if it may come in (Fetch standard, section 3.3), with these
    headers of it."""
    vary = {"Vary": "Origin"}
    try:
        if "Origin" not in request.headers or not edge.callers.may_come(request):
            return vary
    except NoOrigin:
        return vary
    allowed = {"Access-Control-Allow-Origin": request.headers["Origin"], "Access-Control-Allow-Credentials": "true"}
    return {**vary, **allowed, "Access-Control-Expose-Headers": exposed}


def preflight(methods: str, taken: str) -> Mapping[str, str]:
    """What a page of another origin is told before its script asks, beside `cors`: with which methods and headers it
    may."""
    return {
        "Allow": methods,
        "Access-Control-Allow-Methods": methods,
        "Access-Control-Allow-Headers": taken,
        "Access-Control-Max-Age": "7200",
    }


# ---- who it is ----

# Of a WebSocket, for pages whose script can set no header: offered beside hiroba.v1 (docs/protocol.md).
TOKEN_SUBPROTOCOL = "hiroba.token."
TOKEN_COOKIE = "hiroba_token"


def credentials_of(edge: Edge, request: web.Request) -> Credentials:
    """What it says of who comes; nothing, where nobody would look at it."""
    auth = edge.context.auth
    guest = cookie_of(request, GUEST_COOKIE) if auth.guests is not None else None
    visitor = _visitor(edge, request) if auth.asks_site else None
    if not auth.takes_tokens:
        return Credentials(None, guest, visitor)
    scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
    token = bearer.strip() if scheme.lower() == "bearer" else None
    token = token or request.query.get("token") or _offered_token(request) or cookie_of(request, TOKEN_COOKIE)
    return Credentials(token, guest, visitor)


def _visitor(edge: Edge, request: web.Request) -> Visitor:
    headers = request.headers
    return Visitor(
        cookie="; ".join(headers.getall("Cookie", ())),
        authorization=headers.get("Authorization", ""),
        user_agent=headers.get("User-Agent", ""),
        address=edge.callers.address(request),
    )


def _offered_token(request: web.Request) -> str | None:
    for line in request.headers.getall("Sec-WebSocket-Protocol", ()):
        for name in line.split(","):
            if name.strip().startswith(TOKEN_SUBPROTOCOL):
                return name.strip().removeprefix(TOKEN_SUBPROTOCOL)
    return None


def cookie_of(request: web.Request, name: str) -> str | None:
    """The first of this name: browsers send the one of the longest path first (RFC 6265 §5.4)."""
    for line in request.headers.getall("Cookie", ()):
        for pair in line.split(";"):
            key, _, value = pair.strip().partition("=")
            if key == name:
                return value.strip('"') or None
    return None


async def admit(edge: Edge, request: web.Request, room: RoomName | None) -> Grant:
    """What it may come in with, to this room; None: to none yet."""
    deadline = asyncio.timeout(None)
    try:
        async with deadline:
            edge.entering.add(deadline)
            grant = await edge.context.auth.grant(credentials_of(edge, request))
    except Denied as denied:
        raise _refused(denied) from None
    except TimeoutError:
        raise _draining() from None
    finally:
        edge.entering.discard(deadline)
    if edge.draining:  # since just now: nobody would send this one away
        raise _draining()
    if room is not None and "r" not in grant.rights.of(room):
        raise Refused(403, "forbidden", "this user may not read that room")
    check_orders(edge, grant, room)
    return grant


def _refused(denied: Denied) -> Refused:
    headers = {}
    if denied.status == 401:  # RFC 9110 §15.5.2 wants one, RFC 6750 §3 says which
        error = ' error="invalid_token"' if denied.reason.startswith("token") else ""
        headers = {"WWW-Authenticate": f"Bearer{error}"}
    elif denied.status == 503:
        headers = {"Retry-After": str(RETRY_AFTER_S)}
    return Refused(denied.status, denied.reason, denied.args[0], **headers)


def check_orders(edge: Edge, grant: Grant, room: RoomName | None) -> None:
    """Whether an order stands against who comes with this, to a room; None: to none yet."""
    why = edge.context.broker.control.bars(grant, room or "")
    if why is Close.EXPIRED:
        bearer = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
        raise Refused(401, "revoked", "what you came with is revoked: log in again", **bearer)
    if why is not None:
        raise Refused(403, "kicked", "this user is put out of that room, or of all, for a time")


# ---- what the broker is asked ----


async def enter(edge: Edge, grant: Grant, name: RoomName, after: EntryId | None, history: int) -> Place:
    """Find a place in the room, within handshake_timeout_s. The caller owes `hub.release`, as hub.enter's does."""
    place = await within(edge, edge.context.hub.enter(name, after, history))
    try:  # since just now: nobody would send this one away
        if edge.draining:
            raise _draining()
        check_orders(edge, grant, name)
    except Refused:
        edge.context.hub.release(place.room)
        raise
    return place


async def within(edge: Edge, work: Awaitable[T]) -> T:
    """What the broker has to be asked before somebody can be answered, within handshake_timeout_s; or Refused."""
    started_at = time.monotonic()
    deadline = asyncio.timeout(edge.settings.handshake_timeout_s)
    try:
        async with deadline:
            edge.entering.add(deadline)
            return await work
    except HubFull:
        raise busy("rooms", "this node has too many rooms open: rooms_max") from None
    except TimeoutError:
        if edge.draining:
            raise _draining() from None
        waited_s = time.monotonic() - started_at
        raise busy("broker", f"the broker did not answer within {waited_s:.1f} s") from None
    except (BrokerGone, BrokerRefused):
        raise busy("broker", "the broker is away") from None
    finally:
        edge.entering.discard(deadline)
