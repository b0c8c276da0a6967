"""The door of `/streams/chat/<room>`: a room as a Durable Stream (PROTOCOL.md of durable-streams; docs/protocol.md).

Reading: what there is, page by page; then waiting, request by request, or as an event stream. All three begin with the
page that follows the offset.
"""

import asyncio
import math
import random
import time
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import quote

from aiohttp import web

from gateway.broker.errors import BrokerRefused
from gateway.core import streams
from gateway.core.closes import Close
from gateway.core.entry import START, EntryId
from gateway.core.names import RoomName
from gateway.core.streams import BadRequest, Live, Named, Offset, Query, cursor_at, next_cursor, offset_of
from gateway.core.user import Grant
from gateway.core.wires import DURABLE, durable
from gateway.edge import appends, door
from gateway.edge.appends import JSON, Appends
from gateway.edge.door import Refused
from gateway.edge.edge import Edge
from gateway.edge.stream import EventStream, head
from gateway.edge.takeover import Upgraded, take_over
from gateway.edge.visits import Visit
from gateway.rooms.hub import Place
from gateway.rooms.paging import Onward
from gateway.rooms.room import Room
from gateway.telemetry.logs import access

METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT")
_METHODS = ", ".join(METHODS)
# Every `label` of a Refused here.
REASONS = ("path", "method", "offset", "gone", "configuration", "unsupported")
# The wire of who waits request by request, as metrics have it.
POLL = "poll"
# What a script may read of an answer (Fetch standard, section 3.3).
_EXPOSED = (
    "ETag, Location, Producer-Epoch, Producer-Expected-Seq, Producer-Received-Seq, Producer-Seq, Retry-After, "
    "Stream-Cursor, Stream-Lost, Stream-Next-Offset, Stream-Up-To-Date"
)
_TAKEN = (
    "Authorization, Cache-Control, Content-Type, If-None-Match, Producer-Epoch, Producer-Id, Producer-Seq, Stream-Seq"
)
_CACHED = {"Cache-Control": "private, no-cache"}
_NOT_CACHED = {"Cache-Control": "no-store"}
_GONE = "the log has nothing of this offset any more: begin with -1"


def routes(edge: Edge) -> list[web.AbstractRouteDef]:
    """`/streams/chat/<room>`; whatever else is asked for under `/streams/` is refused like one."""
    edge.metrics.known("handshakes_refused", (*REASONS, *appends.REASONS, *door.REASONS))
    edge.metrics.known("connections", (POLL,))
    writing = Appends(edge)

    async def stream(request: web.Request) -> web.StreamResponse:
        peer, began_at = edge.callers.peer(request), time.monotonic()
        try:
            response = await _answer(edge, writing, request, peer)
        except Refused as refused:
            door.rejected(edge, request, peer, refused, access.stream)
            response = refused.response()
        if not isinstance(response, Upgraded):
            response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
            response.headers.update(door.cors(edge, request, _EXPOSED))
            access.http(request.method, request.path, response.status, time.monotonic() - began_at, peer)
        return response

    return [web.route("*", path, stream) for path in ("/streams/chat/{room}", "/streams/{nothing:.*}")]


async def _answer(edge: Edge, writing: Appends, request: web.Request, peer: str) -> web.StreamResponse:
    if "room" not in request.match_info:
        raise Refused(404, "path", "no such address: /streams/chat/<room>")
    name = door.room_of(edge, request.match_info["room"])
    door.check_origin(edge, request)
    if request.method == "OPTIONS":
        return web.Response(status=204, headers=door.preflight(_METHODS, _TAKEN))
    if request.method not in METHODS:
        raise Refused(405, "method", "a room is read and written, not deleted", Allow=_METHODS)
    if request.method in ("POST", "PUT"):
        return await _write(edge, writing, request, name)
    return await _read(edge, request, peer, name)


# ---- reading ----


async def _read(edge: Edge, request: web.Request, peer: str, name: RoomName) -> web.StreamResponse:
    """Counts as a connection until it is answered; an event stream goes on counting."""
    query = _query(request)
    door.check_space(edge, request)
    edge.came()
    goes_on = None
    try:
        grant = await door.admit(edge, request, name)
        place = await door.enter(edge, grant, name, None, 0)
        try:
            if request.method == "HEAD":
                return await _metadata(edge, place.room)
            page = await door.within(edge, _page(edge, place.room, query))
            door.check_orders(edge, grant, name)
            if query.live is Live.EVENTS:
                goes_on = _let_in(edge, request, peer, place, grant, query, page)
                return Upgraded()
            if query.live is Live.POLL and not page.entries:
                page = await _poll(edge, request, place.room, grant, page)
                door.check_orders(edge, grant, name)
            edge.metrics.stream_reads += 1
            return _told(edge, request, place.room, query, page)
        finally:
            edge.context.hub.release(place.room)
    finally:
        if goes_on is None:
            edge.went()


def _query(request: web.Request) -> Query:
    query = request.query
    try:
        return streams.parse_query(query.getall("offset", ()), query.getall("live", ()), query.getall("cursor", ()))
    except BadRequest as exc:
        raise Refused(400, "offset", exc.args[0]) from None


async def _metadata(edge: Edge, room: Room) -> web.Response:
    await door.within(edge, edge.context.hub.paging.reach_end(room))
    headers = {**_NOT_CACHED, "Stream-Next-Offset": offset_of(room.newest)}
    return web.Response(content_type=JSON, headers=headers)


async def _page(edge: Edge, room: Room, query: Query) -> Onward:
    """What follows the offset; nobody waits here for a message, but for those that the log has."""
    paging, offset = edge.context.hub.paging, query.offset
    if query.live is None or offset != room.newest:
        await paging.reach_end(room)
    if offset is Named.NOW:
        return Onward([], room.newest)
    cursor = START if offset is Named.BEGINNING else offset
    assert isinstance(cursor, EntryId)
    page = await paging.onward(room, cursor)
    if offset is Named.BEGINNING and page.gone:
        return page._replace(hole=None, gone=False)  # where the log begins now
    return _here(page)


def _here(page: Onward) -> Onward:
    if page.gone:
        raise Refused(410, "gone", _GONE)
    return page


async def _poll(edge: Edge, request: web.Request, room: Room, grant: Grant, page: Onward) -> Onward:
    """Wait for a message: at most ping_s, until its grant ends, the node drains or the client is gone. Then the page is
    empty."""
    left_s = math.inf if grant.expires_at is None else max(0.0, grant.expires_at - time.time())
    deadline = asyncio.timeout(min(edge.settings.ping_s, left_s))
    visit = request.protocol
    assert isinstance(visit, Visit)
    visit.on_lost = lambda: _over(deadline)
    edge.metrics.connections[POLL] += 1
    try:
        async with deadline:
            edge.entering.add(deadline)
            while not page.entries:
                top = room.top
                following = _here(await edge.context.hub.paging.onward(room, page.reached))
                page = following._replace(hole=following.hole or page.hole)
                if not page.entries and room.top == top:
                    await room.top_moved()
    except TimeoutError:
        pass
    except BrokerRefused:
        raise door.busy("broker", "the broker refuses to tell what the room has") from None
    finally:
        visit.on_lost = None
        edge.entering.discard(deadline)
        edge.metrics.connections[POLL] -= 1
    return page


def _over(deadline: asyncio.Timeout) -> None:
    if not deadline.expired():
        deadline.reschedule(asyncio.get_running_loop().time())


def _told(edge: Edge, request: web.Request, room: Room, query: Query, page: Onward) -> web.Response:
    headers = _headers(room, page)
    if query.live is Live.POLL:
        headers["Stream-Cursor"] = str(_cursor(query))
        if not page.entries:
            waited = web.Response(status=204, headers=headers | _NOT_CACHED)
            if edge.draining:
                waited.force_close()  # the next one goes to another node
            return waited
    if query.offset is Named.NOW:
        return web.Response(body=durable.array(page.entries), content_type=JSON, headers=headers | _NOT_CACHED)
    # What is deleted later makes another answer of it.
    deleted = sum(not entry.message for entry in page.entries)
    etag = f'"{_text(query.offset)}:{offset_of(page.reached)}{f":{deleted}" if deleted else ""}"'
    headers |= {**_CACHED, "ETag": etag}
    if query.live is None and etag in (known.strip() for known in request.headers.get("If-None-Match", "").split(",")):
        return web.Response(status=304, headers=headers)
    return web.Response(body=durable.array(page.entries), content_type=JSON, headers=headers)


def _headers(room: Room, page: Onward) -> dict[str, str]:
    headers = {"Stream-Next-Offset": offset_of(page.reached)}
    if page.reached == room.newest:
        headers["Stream-Up-To-Date"] = "true"
    if page.hole is not None:
        headers["Stream-Lost"] = "unknown" if page.hole.lost is None else str(page.hole.lost)
    return headers


def _text(offset: Offset) -> str:
    return offset_of(offset) if isinstance(offset, EntryId) else offset.value


def _cursor(query: Query) -> int:
    return next_cursor(_now_ms(), query.cursor, random.randint(1, streams.CURSOR_JITTER_MAX))


def _now_ms() -> int:
    return int(time.time() * 1000)


# ---- writing ----


async def _write(edge: Edge, writing: Appends, request: web.Request, name: RoomName) -> web.StreamResponse:
    """Counts as a connection until it is answered."""
    door.check_places(edge)
    edge.came()
    try:
        grant = await door.admit(edge, request, name)
        await door.within(edge, edge.context.broker.control.known())
        door.check_orders(edge, grant, name)  # by all that stands: nobody waits for the room here
        if "w" not in grant.rights.of(name):
            raise Refused(403, "forbidden", "this user may not write in that room")
        if request.method == "PUT":
            return await _create(edge, writing, request, name, grant)
        written = await writing.append(request, name, grant)
        assert written is not None
        return appends.answer(*written)
    finally:
        edge.went()


async def _create(edge: Edge, writing: Appends, request: web.Request, name: RoomName, grant: Grant) -> web.Response:
    """A room exists by being named. Who creates one in which nobody spoke may be the first to speak there."""
    _check_configuration(request)
    place = await door.enter(edge, grant, name, None, 0)
    try:
        await door.within(edge, edge.context.hub.paging.reach_end(place.room))
        end = place.room.newest
    finally:
        edge.context.hub.release(place.room)
    headers = {**_NOT_CACHED, "Stream-Next-Offset": offset_of(end)}
    if end != START:
        return web.Response(content_type=JSON, headers=headers)
    written = await writing.append(request, name, grant, creates=True)
    if written is not None:
        _, done = written
        headers["Stream-Next-Offset"] = offset_of(done.end)
    headers["Location"] = quote(name)  # beside the address that was asked, whatever a proxy made of that
    return web.Response(status=201, content_type=JSON, headers=headers)


def _check_configuration(request: web.Request) -> None:
    """Section 5.1: 409 for what a room has not got."""
    try:
        wanted = streams.configuration(request.headers.get)
    except BadRequest as exc:
        raise Refused(400, "configuration", exc.args[0]) from None
    if wanted is streams.Wanted.FORK:
        raise Refused(501, "unsupported", "rooms have no forks")
    if (
        wanted is streams.Wanted.OTHER
        or request.headers.get("Content-Type", JSON).partition(";")[0].strip().lower() != JSON
    ):
        raise Refused(409, "configuration", f"a room is a stream of {JSON}, open, which expires as all rooms do")


# ---- the event stream ----


class RoomEvents(EventStream):
    """A reader of one room that stays."""

    __slots__ = ()

    log = staticmethod(access.stream)

    def caught_up(self) -> None:
        super().caught_up()
        if self.closing is None:
            for session in self.sessions.values():
                self.write(durable.control(session.cursor, cursor_at(_now_ms()), True))

    def go_away(self, after_s: float) -> None:
        """It comes back by itself, with the offset that it was told last."""
        self.end(Close.DRAIN)


def _let_in(
    edge: Edge, request: web.Request, peer: str, place: Place, grant: Grant, query: Query, page: Onward
) -> RoomEvents | None:
    """From the page to the room without an await between. None: the client was gone before."""
    room, transport = place.room, request.transport
    if transport is None or transport.is_closing():
        return None
    stream = RoomEvents(edge.context, transport, request.path, peer, DURABLE, room.name, grant)
    resumed = True if isinstance(query.offset, EntryId) else None
    session = stream.enter(replace(place, cursor=page.reached, recovered=resumed, past=room.feed.past))
    stream.notice_death(edge.settings.stall_s)
    stream.write(head(_stream_headers(edge, request, room, page)) + _events(room, query, page))
    edge.welcome(stream)
    take_over(request, stream)
    if stream.closing is None:
        room.admit(session)
    return stream


def _stream_headers(edge: Edge, request: web.Request, room: Room, page: Onward) -> Mapping[str, str]:
    more = {"Cache-Control": "no-cache, no-store", "Cross-Origin-Resource-Policy": "same-origin"}
    return {**_headers(room, page), **door.cors(edge, request, _EXPOSED), **more}


def _events(room: Room, query: Query, page: Onward) -> bytes:
    told = durable.data(page.entries) if page.entries else b""
    return told + durable.control(page.reached, _cursor(query), page.reached == room.newest)
