"""The WebSocket's door: every handshake is answered here, with a 101 or with the reason why not."""

import asyncio
import time

from aiohttp import web

from gateway.broker.errors import BrokerGone, BrokerRefused
from gateway.core import wires
from gateway.core.closes import Close
from gateway.core.entry import EntryId, parse_id
from gateway.core.names import BadRoomName, RoomName, room_name
from gateway.core.wires import DEFLATING, PLAIN, WIRES, Wire
from gateway.edge.client import Client, Socket
from gateway.edge.edge import Edge
from gateway.logs import access
from gateway.rooms.hub import HubFull, Place

RETRY_AFTER_S = 2
# An id above every possible one: what a malformed `after` becomes, for nothing can be recovered from it.
_NOWHERE = EntryId(2**62, 0)


class Refused(Exception):
    """No 101 for this one. `label` is the metric's reason."""

    def __init__(self, status: int, label: str, text: str, **headers: str) -> None:
        super().__init__(text)
        self.status = status
        self.label = label
        self.headers = headers

    def response(self) -> web.Response:
        return web.Response(status=self.status, text=f"{self.args[0]}\n", headers=self.headers)


def _busy(label: str, text: str) -> Refused:
    return Refused(503, label, text, **{"Retry-After": str(RETRY_AFTER_S)})


def routes(edge: Edge) -> list[web.AbstractRouteDef]:
    """`/ws/chat/<room>/`."""

    async def chat(request: web.Request) -> web.StreamResponse:
        access.ws("HANDSHAKING", request.path, edge.callers.peer(request))
        try:
            return await _chat(edge, request)
        except Refused as refused:
            edge.metrics.handshakes_refused[refused.label] += 1
            access.ws("REJECT", request.path, edge.callers.peer(request), reason=refused.label, status=refused.status)
            return refused.response()

    return [web.get("/ws/chat/{room}/", chat)]


async def _chat(edge: Edge, request: web.Request) -> web.StreamResponse:
    name = _checked(edge, request)
    wire = _wire(request)
    after, history = _start(edge, request)
    edge.came()
    try:
        place = await _enter(edge, name, after, history)
        try:
            socket = Socket(wire, _deflate_offered(request), edge.settings.message_bytes_max)
            await socket.prepare(request)
            if socket.compress:
                wire = DEFLATING[wire]
            client = _client(edge, request, socket, wire, place)
        finally:
            edge.hub.release(place.room)
        await _serve(edge, client)
        return socket
    finally:
        edge.went()


def _checked(edge: Edge, request: web.Request) -> RoomName:
    """Everything that can be judged without the broker."""
    try:
        name = room_name(request.match_info["room"], edge.settings.room_name_chars_max)
    except BadRoomName as exc:
        raise Refused(404, "room_name", str(exc)) from None
    if not edge.callers.may_come(request):
        raise Refused(403, "origin", "this page may not open a WebSocket here: allowed_origins")
    upgrade = request.headers.get("Upgrade", "").lower()
    if upgrade != "websocket" or "upgrade" not in request.headers.get("Connection", "").lower():
        raise Refused(426, "no_websocket", "this is a WebSocket's address", Upgrade="websocket", Connection="Upgrade")
    if request.headers.get("Sec-WebSocket-Version") != "13":
        raise Refused(426, "version", "WebSocket version 13 only", **{"Sec-WebSocket-Version": "13"})
    if edge.draining:
        raise _busy("draining", "this node is going away")
    if edge.overloaded:
        raise _busy("connections", "this node is full: connections_max")
    return name


def _wire(request: web.Request) -> Wire:
    """The first subprotocol of the client's that we speak; `plain` if none (RFC 6455 §4.2.2)."""
    offered = [part.strip() for part in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
    return next((wire for name in offered for wire in WIRES if wire.subprotocol == name), PLAIN)


def _deflate_offered(request: web.Request) -> bool:
    """permessage-deflate as browsers offer it (RFC 7692 §7.1). An offer that limits our window is not taken up:
    frames are shared, and a smaller window would need its own.
    """
    offers = request.headers.get("Sec-WebSocket-Extensions", "").split(",")
    return any(
        offer.split(";")[0].strip() == "permessage-deflate" and "server_max_window_bits" not in offer
        for offer in offers
    )


async def answer_deflate(_request: web.Request, response: web.StreamResponse) -> None:
    """Signal on_response_prepare: neither side keeps a context between messages (RFC 7692 §7.1.1)."""
    if isinstance(response, Socket) and "Sec-WebSocket-Extensions" in response.headers:
        response.headers["Sec-WebSocket-Extensions"] = (
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
        )


def _start(edge: Edge, request: web.Request) -> tuple[EntryId | None, int]:
    after = None
    if "after" in request.query:
        try:
            after = parse_id(request.query["after"])
        except ValueError:
            after = _NOWHERE
    history = request.query.get("history", "0")
    if not (history.isascii() and history.isdigit() and int(history[:9]) <= edge.settings.history_max):
        raise Refused(400, "history", f"history is a number from 0 to {edge.settings.history_max}")
    return after, int(history)


async def _enter(edge: Edge, name: RoomName, after: EntryId | None, history: int) -> Place:
    started_at = time.monotonic()
    try:
        async with asyncio.timeout(edge.settings.handshake_timeout_s):
            return await edge.hub.enter(name, after, history)
    except HubFull:
        raise _busy("rooms", "this node has too many rooms open: rooms_max") from None
    except TimeoutError:
        waited_s = time.monotonic() - started_at
        raise _busy("broker", f"the broker did not answer within {waited_s:.1f} s") from None
    except (BrokerGone, BrokerRefused):
        raise _busy("broker", "the broker is away") from None


def _client(edge: Edge, request: web.Request, socket: Socket, wire: Wire, place: Place) -> Client:
    """From the 101 to the room without an await between: the cursor was fixed before the 101."""
    transport = request.transport
    assert transport is not None
    edge.tune(transport)
    client = Client(edge.context, request, transport, edge.callers.peer(request), socket, wire, place.room)
    socket.client = client
    client.cursor = place.cursor
    if wire.answers:
        recovered = bool(place.recovered)
        client.write(wires.welcome(client.id, edge.context.node, place.room.name, place.room.top, recovered))
    place.room.admit(client)
    if wire.gap is None and place.recovered is False:
        client.end(Close.GAP)
    return client


async def _serve(edge: Edge, client: Client) -> None:
    edge.welcome(client)
    try:
        await client.listen()
    except ConnectionError:
        pass  # the socket broke while we waited for it to drain
    except Exception:
        client.end(Close.ERROR)
        raise
    finally:
        if client.closing is None:
            client.end(Close.LOST)
        client.forget()
        edge.farewell(client)
