"""The door of `/sse/chat/<room>/`: each request is answered here, with the room as it goes on or with why not."""

import random

from aiohttp import web

from gateway.core.entry import EntryId, cursor_of
from gateway.core.names import RoomName
from gateway.core.user import Grant
from gateway.core.wires import SSE, sse, v1
from gateway.edge import door
from gateway.edge.door import Refused
from gateway.edge.edge import Edge
from gateway.edge.stream import EventStream, head
from gateway.edge.takeover import Upgraded, take_over
from gateway.rooms.hub import Place
from gateway.telemetry.logs import access

METHODS = "GET, HEAD, OPTIONS"
# Every `label` of a Refused here.
REASONS = ("path", "method")
# An EventSource always waits the same time, and knows no chance: so each is told another one. As long as anybody who
# comes back waits at most in the first minute (docs/protocol.md).
COME_BACK_MIN_S, COME_BACK_MAX_S = 1.0, 5.0
_TAKEN = "Last-Event-ID, Authorization, Cache-Control"


def routes(edge: Edge) -> list[web.AbstractRouteDef]:
    """`/sse/chat/<room>/`; whatever else is asked for under `/sse/` is refused like one."""
    edge.metrics.known("handshakes_refused", (*REASONS, *door.REASONS))

    async def chat(request: web.Request) -> web.StreamResponse:
        peer = edge.callers.peer(request)
        try:
            return await _chat(edge, request, peer)
        except Refused as refused:
            door.rejected(edge, request, peer, refused, access.sse)
            return _refusal(edge, request, refused)

    return [web.route("*", path, chat) for path in ("/sse/chat/{room}/", "/sse/{nothing:.*}")]


async def _chat(edge: Edge, request: web.Request, peer: str) -> web.StreamResponse:
    name = _checked(edge, request)
    if request.method == "OPTIONS":
        # For scripts that read a stream with fetch(): an EventSource asks for none.
        headers = {**door.cors(edge, request), **door.preflight(METHODS, _TAKEN)}
        return web.Response(status=204, headers=headers)
    history = door.history_of(edge, request)
    if request.method == "HEAD":  # told what a GET would be told, and let in nowhere
        await door.admit(edge, request, name)
        return _whole(edge, request, b"")
    edge.came()
    try:
        grant = await door.admit(edge, request, name)
        place = await door.enter(edge, grant, name, _after(request), history)
    except BaseException:
        edge.went()
        raise
    try:
        return _let_in(edge, request, peer, place, grant)
    finally:
        edge.context.hub.release(place.room)


def _checked(edge: Edge, request: web.Request) -> RoomName:
    if "room" not in request.match_info:
        raise Refused(404, "path", "no such address: /sse/chat/<room>/")
    name = door.room_of(edge, request.match_info["room"])
    door.check_origin(edge, request)
    if request.method not in METHODS.split(", "):
        raise Refused(405, "method", "an event stream is only read: a WebSocket is spoken to", Allow=METHODS)
    door.check_space(edge, request)
    return name


def _after(request: web.Request) -> EntryId | None:
    """Where it goes on. An EventSource that comes back repeats its URL, so what it says beside it is newer."""
    text = request.headers.get("Last-Event-ID") or request.query.get("after")
    return None if text is None else cursor_of(text)


def _let_in(edge: Edge, request: web.Request, peer: str, place: Place, grant: Grant) -> web.StreamResponse:
    """From the head to the room without an await between: the cursor was fixed before the head."""
    transport = request.transport
    if transport is None or transport.is_closing():  # gone while we asked the broker
        edge.went()
        return Upgraded()
    stream = EventStream(edge.context, transport, request.path, peer, SSE, place.room.name, grant)
    session = stream.enter(place)
    stream.notice_death(edge.settings.stall_s)
    told = v1.welcome_payload(
        stream.id,
        edge.context.node,
        place.room.name,
        place.room.newest,
        bool(place.recovered),
        edge.settings.ping_s,
        stream.grant,
    )
    retry_s = random.uniform(COME_BACK_MIN_S, COME_BACK_MAX_S)
    stream.write(head(door.cors(edge, request)) + sse.welcome(place.cursor, retry_s, told))
    edge.welcome(stream)
    response = take_over(request, stream)
    if stream.closing is None:
        place.room.admit(session)
    return response


# ---- answers ----


def _whole(edge: Edge, request: web.Request, events: bytes) -> web.StreamResponse:
    """A stream that is over as soon as it has begun."""
    if request.transport is not None and not request.transport.is_closing():
        request.transport.write(head(door.cors(edge, request)) + events)
        request.transport.close()
    return Upgraded()


def _refusal(edge: Edge, request: web.Request, refused: Refused) -> web.StreamResponse:
    """Any status but 200 ends an EventSource for ever, a stream that ends does not. A proxy is told the status all the
    same: it has other nodes."""
    reads_events = "text/event-stream" in request.headers.get("Accept", "")
    if refused.status == 503 and reads_events and not _came_by_a_proxy(request):
        retry_s = random.uniform(door.RETRY_AFTER_S, COME_BACK_MAX_S)
        return _whole(edge, request, sse.refused(retry_s, refused.label, refused.args[0]))
    response = refused.response()
    response.headers.update(door.cors(edge, request))
    return response


def _came_by_a_proxy(request: web.Request) -> bool:
    return any(header in request.headers for header in ("X-Forwarded-For", "Forwarded", "Via"))
