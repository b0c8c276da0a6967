"""Paging back: `history` of a connection that is in a room."""

import asyncio
from typing import TYPE_CHECKING

from gateway.broker.errors import BrokerRefused
from gateway.core.entry import parse_id
from gateway.core.wires import v1
from gateway.edge.context import Context

if TYPE_CHECKING:
    from gateway.edge.connection import Connection
    from gateway.rooms.session import Session


async def history(connection: "Connection", context: Context, asked: list[v1.History]) -> None:
    """One after the other, each when the socket took the one before."""
    entries_max = context.settings.history_max
    for request in asked:
        await connection.drained()
        if connection.closing is not None:
            return
        session = connection.session(request.room)
        if session is None:
            room = connection.named(request.room)
            connection.refuse("not_joined", "this connection is not in that room", request.ref, room)
        elif not 1 <= request.limit <= entries_max:
            text = f"limit is a number from 1 to {entries_max}"
            connection.refuse("history", text, request.ref, session.room.name)
        else:
            await _page(connection, context, session, request)


async def _page(connection: "Connection", context: Context, session: "Session", request: v1.History) -> None:
    room, wait_s = session.room.name, context.settings.handshake_timeout_s
    before = None if request.before is None else parse_id(request.before)
    try:
        async with asyncio.timeout(wait_s):
            page = await context.hub.paging.page(session, before, request.limit)
    except TimeoutError:
        text = f"the broker did not answer within {wait_s:g} s: try again later"
        connection.refuse("timeout", text, request.ref, room)
        return
    except BrokerRefused:
        connection.refuse("refused", "the broker refuses the page: its node's log says why", request.ref, room)
        return
    async with context.hub.paging.turn():
        # Its session may have been ended meanwhile: behind `left` nothing of that room comes.
        if connection.sessions.get(room) is session:
            context.metrics.paged += 1
            page = page._replace(entries=session.room.unsaid(page.entries))
            connection.write(v1.history(room, page, request.ref, connection.wire.deflates))
        elif connection.closing is None:
            connection.refuse("not_joined", "this connection is in that room no more", request.ref, room)
