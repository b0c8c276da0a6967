"""`presence`: who is in a room that this connection is in. Who comes and goes is told to who asked as it joined."""

from typing import TYPE_CHECKING

from gateway.core.wires import v1
from gateway.edge.context import Context

if TYPE_CHECKING:
    from gateway.edge.connection import Connection


async def presence(connection: "Connection", context: Context, asked: list[v1.Presence]) -> None:
    """Each is answered by the whole list, in pages."""
    for request in asked:
        if connection.closing is not None:
            return
        session = connection.session(request.room)
        if session is None:
            room = connection.named(request.room)
            connection.refuse("not_joined", "this connection is not in that room", request.ref, room)
        elif "p" not in connection.rights.of(session.room.name):
            connection.refuse("forbidden", "this user may not see who is there", request.ref, session.room.name)
        else:
            async with context.presence.looking([session.room.name], settled=True) as (here,):
                await context.presence.tell_list(session, here, request.ref)
