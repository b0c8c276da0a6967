"""`read`: up to where a connection's user has read. Nobody answers it; what can't be done is an error."""

import time
from typing import TYPE_CHECKING

from gateway.broker.markers import Marker
from gateway.core.entry import EntryId, parse_id
from gateway.core.names import RoomName
from gateway.core.wires import Ref, v1
from gateway.edge.context import Context

if TYPE_CHECKING:
    from gateway.edge.connection import Connection

# An id may be so far ahead of the broker's clock, by ours. One that is far ahead would never be passed by another.
AHEAD_MS = 60_000


async def read(connection: "Connection", context: Context, asked: list[v1.Read]) -> None:
    """Each is on its way to the broker then. What the broker refuses is told to who said it, if he is still there."""
    for request in asked:
        if connection.closing is not None:
            return
        room, id = connection.named(request.room), parse_id(request.id)
        if room is None or not context.readers.concerns(connection, room):
            connection.refuse("not_joined", "this connection is not in that room, nor watches it", request.ref, room)
        elif _is_ahead(connection, context, room, id):
            connection.refuse("read", "that id is more than a minute ahead of the clock", request.ref, room)
        elif context.broker.markers.full:
            connection.refuse("busy", "too many markers wait for the broker (read_waiting_max)", request.ref, room)
        else:
            _put(connection, context, room, id, request.ref)


def _put(connection: "Connection", context: Context, room: RoomName, id: EntryId, ref: Ref) -> None:
    owner = context.readers.meet(connection)
    context.metrics.markers_said += 1
    if owner is None:  # there is nobody else to whom it would say anything
        return

    def refused(reason: str) -> None:
        if connection.closing is None:
            connection.refuse("refused", f"{reason}: up to where you have read is not kept", ref, room)

    context.broker.markers.put(Marker(owner, room, id, connection.id, refused))


def _is_ahead(connection: "Connection", context: Context, room: RoomName, id: EntryId) -> bool:
    session, top = connection.sessions.get(room), context.broker.tops.rooms.get(room)
    if session is not None and id <= session.room.newest_known:
        return False
    if top is not None and top.id is not None and id <= top.id:
        return False
    return id.ms > (time.time() + context.broker.clock_offset_s()) * 1000 + AHEAD_MS
