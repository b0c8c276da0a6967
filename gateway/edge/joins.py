"""Into rooms and out of them: `join` and `leave` of a connection that is there. A handshake's own is `ws.py`'s."""

import asyncio
from collections.abc import Collection
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING

from gateway.core.entry import EntryId, cursor_of
from gateway.core.names import BadRoomName, RoomName, room_name
from gateway.core.wires import v1
from gateway.edge.context import Context
from gateway.rooms.hub import HubFull, Place, Unplaced
from gateway.rooms.session import Session

if TYPE_CHECKING:
    from gateway.edge.connection import Connection


class _Failed(Exception):
    """A join that can't be done: `code` and `args[0]` for the client."""

    def __init__(self, code: str, text: str, room: RoomName | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.room = room


async def join(connection: "Connection", context: Context, asked: list[v1.Join]) -> None:
    """All at once; then answered in their order, each admitted in the turn in which its `joined` is written."""
    wanted = _wanted(connection, context, asked)
    entering = {name: request for request, name in wanted if isinstance(name, str) and name not in connection.sessions}
    if connection.closing is not None:
        return
    names = {name for _, name in wanted if isinstance(name, str)}
    seen = {name for request, name in wanted if isinstance(name, str) and _may_see(connection, request, name)}
    async with context.readers.asking(connection, names) as known, _looking(context, seen):
        places = await _enter(context, entering)
        try:
            await known.loaded()
            _turn_away(connection, context, places)
            for request, name in wanted:
                if connection.closing is not None:
                    return
                if isinstance(name, _Failed):
                    connection.refuse(name.code, name.args[0], request.ref, name.room)
                    continue
                place, read = places.get(name), known.markers.get(name)
                if isinstance(place, Place):
                    del places[name]
                    _admit(connection, context, place, request, read)
                elif isinstance(place, _Failed):  # also for who asks twice
                    connection.refuse(place.code, place.args[0], request.ref, name)
                elif name in connection.sessions:
                    _say_again(connection, context, request, name, read)
                else:  # the server ended it while others were entered
                    connection.refuse("refused", "the session has just ended: join again", request.ref, name)
        finally:
            for place in places.values():
                if isinstance(place, Place):
                    context.hub.release(place.room)


async def leave(connection: "Connection", context: Context, asked: list[v1.Leave]) -> None:
    """From `left` on nothing of the room comes."""
    for request in asked:
        session = connection.session(request.room)
        if session is None:
            room = connection.named(request.room)
            connection.refuse("not_joined", "this connection is not in that room", request.ref, room)
        else:
            connection.leave(session)
            connection.write(v1.left(session.room.name, request.ref))


def _wanted(
    connection: "Connection", context: Context, asked: list[v1.Join]
) -> list[tuple[v1.Join, RoomName | _Failed]]:
    """Which room each one means, or why it can't be joined, for all that can be judged without the broker."""
    rooms_max = context.settings.rooms_per_connection_max
    names = set(connection.sessions)
    wanted: list[tuple[v1.Join, RoomName | _Failed]] = []
    for request in asked:
        outcome: RoomName | _Failed
        try:
            outcome = _checked(connection, context, request)
            if outcome not in names and len(names) >= rooms_max:
                outcome = _Failed("too_many_rooms", f"a connection may be in {rooms_max} rooms", outcome)
            else:
                names.add(outcome)
        except _Failed as failed:
            outcome = failed
        wanted.append((request, outcome))
    return wanted


def _checked(connection: "Connection", context: Context, request: v1.Join) -> RoomName:
    settings = context.settings
    try:
        name = room_name(request.room, settings.room_name_chars_max)
    except BadRoomName as exc:
        raise _Failed("room_name", str(exc)) from None
    if "r" not in connection.rights.of(name):
        raise _Failed("forbidden", "this user may not read that room", name)
    if context.broker.control.bars(connection.grant, name) is not None:
        raise _kicked(name)
    if not 0 <= request.history <= settings.history_max:
        raise _Failed("history", f"history is a number from 0 to {settings.history_max}", name)
    return name


async def _enter(context: Context, requests: dict[RoomName, v1.Join]) -> dict[RoomName, Place | _Failed]:
    """Where each begins; the caller owes the hub the release of each place."""
    wanted = {
        name: (None if request.after is None else cursor_of(request.after), request.history)
        for name, request in requests.items()
    }
    wait_s = context.settings.handshake_timeout_s
    try:
        async with asyncio.timeout(wait_s):
            places = await context.hub.enter_all(wanted)
    except TimeoutError:
        late = _Failed("timeout", f"the broker did not answer within {wait_s:g} s: try again later")
        return dict.fromkeys(requests, late)
    return {name: place if isinstance(place, Place) else _unplaced(place) for name, place in places.items()}


def _turn_away(connection: "Connection", context: Context, places: dict[RoomName, Place | _Failed]) -> None:
    """Of the rooms out of which it was put while it waited."""
    for name, place in places.items():
        if isinstance(place, Place) and context.broker.control.bars(connection.grant, name) is not None:
            context.hub.release(place.room)
            places[name] = _kicked(name)


def _kicked(room: RoomName) -> _Failed:
    return _Failed("kicked", "this user is put out of that room for a time", room)


def _unplaced(why: Unplaced) -> _Failed:
    if isinstance(why, HubFull):
        return _Failed("busy", "this node has too many rooms open (rooms_max): try again later")
    return _Failed("refused", "the broker refuses the room: its node's log says why")


def _admit(connection: "Connection", context: Context, place: Place, request: v1.Join, read: EntryId | None) -> None:
    """From `joined` to the room without an await between."""
    room = place.room
    try:
        session = connection.enter(place)
        # Who is given nothing older hears all that is newer, also if another room of the run was waited for meanwhile.
        resumes = request.after is not None and place.cursor == cursor_of(request.after)
        last_id = room.newest if request.history or resumes else place.cursor
        _answer(connection, context, session, last_id, bool(place.recovered), request, read)
        if connection.closing is None:  # the socket took it
            room.admit(session)
    finally:
        context.hub.release(room)


def _say_again(
    connection: "Connection", context: Context, request: v1.Join, name: RoomName, read: EntryId | None
) -> None:
    """It is in that room, and stays as it is."""
    session = connection.sessions[name]
    _answer(connection, context, session, session.room.newest, False, request, read)


def _looking(context: Context, rooms: Collection[RoomName]) -> AbstractAsyncContextManager[object]:
    return context.presence.looking(rooms) if rooms else nullcontext()


def _may_see(connection: "Connection", request: v1.Join, room: RoomName) -> bool:
    """Whether it asks who is there, and may."""
    return request.presence and "p" in connection.rights.of(room)


def _answer(
    connection: "Connection",
    context: Context,
    session: Session,
    last_id: EntryId,
    recovered: bool,
    request: v1.Join,
    read: EntryId | None,
) -> None:
    room = session.room.name
    here = context.presence.ask(session) if _may_see(connection, request, room) else None
    rights = connection.rights.of(room)
    connection.write(v1.joined(room, last_id, recovered, rights, request.ref, read, here))
