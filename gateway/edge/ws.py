"""The WebSocket's door: every handshake is answered here, with a 101 or with the reason why not."""

import structlog
from aiohttp import HttpVersion11, web

from gateway.core import handshake
from gateway.core.closes import Close
from gateway.core.entry import EntryId, cursor_of
from gateway.core.names import RoomName
from gateway.core.user import Grant
from gateway.core.wires import DEFLATING, PLAIN, PLAIN_USERS, WIRES, Wire, v1
from gateway.edge import door
from gateway.edge.connection import Connection
from gateway.edge.door import Refused
from gateway.edge.edge import Edge
from gateway.edge.takeover import Upgraded, take_over
from gateway.rooms.hub import Place
from gateway.settings.urls import masked
from gateway.telemetry.logs import access

log = structlog.get_logger()

# Every `label` of a Refused here.
REASONS = ("path", "subprotocol", "http_version", "no_websocket", "version", "key")


def routes(edge: Edge) -> list[web.AbstractRouteDef]:
    """`/ws/chat/<room>/` and `/ws/`; what else is asked for under `/ws/` is a handshake too, and refused like one."""
    edge.metrics.known("handshakes_refused", (*REASONS, *door.REASONS))

    async def shake(request: web.Request) -> web.StreamResponse:
        peer = edge.callers.peer(request)
        access.ws("HANDSHAKING", request.path, peer)
        try:
            return await _answer(edge, request, peer)
        except Refused as refused:
            door.rejected(edge, request, peer, refused, access.ws)
            return refused.response()

    return [web.route("*", path, shake) for path in ("/ws/chat/{room}/", "/ws/{nothing:.*}")]


async def _answer(edge: Edge, request: web.Request, peer: str) -> web.StreamResponse:
    name = _checked(edge, request)
    wire = _wire(edge, request)
    if name is None:
        if not wire.answers:
            raise Refused(400, "subprotocol", "/ws/ is for the subprotocol hiroba.v1: Sec-WebSocket-Protocol")
    else:
        after, history = _start(edge, request)
    edge.came()
    place: Place | None = None
    try:
        grant = await door.admit(edge, request, name)
        if name is not None:
            place = await door.enter(edge, grant, name, after, history)
    except BaseException:
        edge.went()
        raise
    try:
        return _let_in(edge, request, peer, wire, place, grant)
    finally:
        if place is not None:
            edge.context.hub.release(place.room)


def _checked(edge: Edge, request: web.Request) -> RoomName | None:
    """Everything that can be judged without the broker. The room of its address; None: it begins in none."""
    name = _room(edge, request)
    door.check_origin(edge, request)
    if request.version < HttpVersion11:  # may not upgrade (RFC 9110 §7.8); nginx's default towards a node
        raise Refused(426, "http_version", "a WebSocket needs HTTP/1.1; nginx: proxy_http_version 1.1")
    upgrades = "websocket" in _tokens(request, "Upgrade") and "upgrade" in _tokens(request, "Connection")
    if request.method != "GET" or not upgrades:
        raise Refused(426, "no_websocket", "this is a WebSocket's address", Upgrade="websocket", Connection="Upgrade")
    if request.headers.get("Sec-WebSocket-Version") != "13":
        raise Refused(426, "version", "WebSocket version 13 only", **{"Sec-WebSocket-Version": "13"})
    if not handshake.good_key(request.headers.get("Sec-WebSocket-Key", "")):
        raise Refused(400, "key", "Sec-WebSocket-Key is not 16 bytes in base64")
    door.check_space(edge, request)
    return name


def _room(edge: Edge, request: web.Request) -> RoomName | None:
    if request.match_info.get("nothing") == "":
        return None
    if "room" not in request.match_info:
        raise Refused(404, "path", "no such address: /ws/chat/<room>/ or /ws/")
    return door.room_of(edge, request.match_info["room"])


def _wire(edge: Edge, request: web.Request) -> Wire:
    """The first subprotocol of the client's that we speak; `plain` if none (RFC 6455 §4.2.2)."""
    offered = [part.strip() for part in _lines(request, "Sec-WebSocket-Protocol").split(",")]
    wire = next((wire for name in offered for wire in WIRES if wire.subprotocol == name), None)
    if wire is None:
        wire = PLAIN_USERS if edge.settings.plain_users else PLAIN
    deflates = handshake.deflate_offered(_lines(request, "Sec-WebSocket-Extensions"))
    return DEFLATING[wire] if deflates else wire


def _lines(request: web.Request, header: str) -> str:
    """A header's value; sent in several lines it is one list (RFC 9110 §5.3, RFC 6455 §11.3.4)."""
    return ",".join(request.headers.getall(header, ()))


def _tokens(request: web.Request, header: str) -> list[str]:
    return [token.strip().lower() for token in _lines(request, header).split(",")]


def _start(edge: Edge, request: web.Request) -> tuple[EntryId | None, int]:
    after = cursor_of(request.query["after"]) if "after" in request.query else None
    return after, door.history_of(edge, request)


def _let_in(
    edge: Edge, request: web.Request, peer: str, wire: Wire, place: Place | None, grant: Grant
) -> web.StreamResponse:
    """From the 101 to the room, if there is one, without an await between: the cursor was fixed before the 101."""
    transport = request.transport
    if transport is None or transport.is_closing():  # gone while we asked the broker
        edge.went()
        return Upgraded()
    room = place.room.name if place is not None else None
    connection = Connection(edge.context, transport, request.path, peer, wire, room, grant)
    session = connection.enter(place) if place is not None else None
    transport.write(handshake.switching(request.headers["Sec-WebSocket-Key"], wire.subprotocol, wire.deflates))
    if wire.answers:
        last_id, recovered = (place.room.newest, bool(place.recovered)) if place is not None else (None, False)
        ping_s = edge.settings.ping_s
        told = v1.welcome(connection.id, edge.context.node, room, last_id, recovered, ping_s, connection.grant)
        connection.write(told)
    if wire.subprotocol is None and "Sec-WebSocket-Protocol" in request.headers:
        edge.metrics.unspoken += 1
        offered = masked(door.told(request, "Sec-WebSocket-Protocol") or "")
        log.info("no subprotocol in common: browsers hang up", session=connection.id, peer=peer, offered=offered)
    edge.welcome(connection)
    response = take_over(request, connection)
    if connection.closing is None and place is not None and session is not None:
        place.room.admit(session)
        if wire.gap is None and place.recovered is False:
            connection.end(Close.GAP)
    return response
