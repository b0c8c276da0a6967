"""`watch` and `unwatch` of a connection that is there: how far rooms grow, without what is said in them."""

import asyncio
import time
from typing import TYPE_CHECKING, NamedTuple

from gateway.core.names import BadRoomName, RoomName, room_name
from gateway.core.wires import v1
from gateway.edge.context import Context

if TYPE_CHECKING:
    from gateway.edge.connection import Connection

# Names are looked at for so many seconds in one turn of the loop: one may take half a millisecond.
TURN_S = 0.001


async def watch(connection: "Connection", context: Context, asked: list[v1.Watch]) -> None:
    """Each is answered by the tops of its rooms; by an error, behind them, where some of them can't be watched."""
    for request in asked:
        names, failed = await _names(context, request.rooms)
        barred = {name: code for name in names if (code := _bars(connection, context, name)) is not None}
        if barred:
            names = [name for name in names if name not in barred]
            one, code = next(iter(barred.items()))
            failed = failed or _Failed(code, f"this user may not read {len(barred)} of these rooms", one)
        if connection.closing is not None:  # since it was told of the one before: nobody would forget what it watches
            return
        async with context.readers.asking(connection, names) as known:
            refused = await context.watchers.watch(connection, names)
            await known.loaded()
            if refused:
                failed = _no_space(context, context.watchers.space(connection), refused)
            ref = None if failed else request.ref
            connection.write(context.watchers.tops(connection, names, ref, known.markers))
        if failed:
            connection.refuse(failed.code, failed.text, request.ref, failed.room)


async def unwatch(connection: "Connection", context: Context, asked: list[v1.Unwatch]) -> None:
    """Answered, by an empty frame, only where it has a ref."""
    for request in asked:
        names, failed = await _names(context, request.rooms)
        context.watchers.unwatch(connection, names)
        if failed:
            connection.refuse(failed.code, failed.text, request.ref)
        elif request.ref is not None:
            connection.write(v1.tops((), request.ref))


class _Failed(NamedTuple):
    """Why not all was done; of several reasons one."""

    code: str
    text: str
    # One of those that it is about; None: it is no room's name.
    room: RoomName | None = None


def _bars(connection: "Connection", context: Context, name: RoomName) -> str | None:
    """Why its growth is not for this user: an error's code; None: it is."""
    if "r" not in connection.rights.of(name):
        return "forbidden"
    return None if context.broker.control.bars(connection.grant, name) is None else "kicked"


async def _names(context: Context, rooms: list[str]) -> tuple[list[RoomName], _Failed | None]:
    """Those that are rooms' names."""
    settings = context.settings
    names: list[RoomName] = []
    if len(rooms) > settings.watches_per_connection_max:
        return names, _Failed("too_many_rooms", f"{_limit(context)}: nothing was done")
    failed: _Failed | None = None
    turn = time.monotonic()
    for room in rooms:
        try:
            names.append(room_name(room, settings.room_name_chars_max))
        except BadRoomName as exc:
            failed = failed or _Failed("room_name", f"{room[:50]!r}: {exc}")
        if time.monotonic() - turn > TURN_S:
            await asyncio.sleep(0)
            turn = time.monotonic()
    return names, failed


def _no_space(context: Context, own: int, refused: list[RoomName]) -> _Failed:
    """`own`: how many rooms more the connection may watch."""
    if own:
        text = f"this node watches too many rooms (watched_rooms_max), so {len(refused)} are not watched: try again"
        return _Failed("busy", text, refused[0])
    return _Failed("too_many_rooms", f"{_limit(context)}: {len(refused)} are not watched", refused[0])


def _limit(context: Context) -> str:
    return f"a connection may watch {context.settings.watches_per_connection_max} rooms"
