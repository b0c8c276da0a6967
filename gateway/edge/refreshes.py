"""`refresh` of a connection that is there: it goes on by a newer token, with what that one allows."""

from typing import TYPE_CHECKING

from gateway.auth.denied import Denied
from gateway.core.closes import Close
from gateway.core.user import Grant
from gateway.core.wires import v1
from gateway.edge.context import Context

if TYPE_CHECKING:
    from gateway.edge.connection import Connection


async def refresh(connection: "Connection", context: Context, asked: list[v1.Refresh]) -> None:
    """A token that is refused changes nothing: the former one counts until it ends."""
    for request in asked:
        try:
            grant = await context.auth.refreshed(request.token)
        except Denied as denied:
            if connection.closing is None:
                connection.refuse("token", denied.args[0], request.ref)
            continue
        if connection.closing is not None:
            return
        if grant.user.id != connection.user.id:
            connection.refuse("token", "the token is another user's: connect anew", request.ref)
            continue
        if context.broker.control.bars(grant) is not None:
            connection.refuse("token", "the token is revoked: log in again", request.ref)
            continue
        _go_on(connection, context, grant)
        if connection.closing is None:
            connection.write(v1.refreshed(grant.expires_at, request.ref))


def _go_on(connection: "Connection", context: Context, grant: Grant) -> None:
    """It may be less than before: it leaves, and watches no more, what it may not read."""
    connection.grant = grant
    connection.end_in_time()
    for name, session in list(connection.sessions.items()):
        if "r" not in grant.rights.of(name):
            connection.leave(session)
            connection.write(v1.left(name, reason=Close.FORBIDDEN.label))
        elif "p" not in grant.rights.of(name):
            context.presence.forbid(session)
    watched = context.watchers.rooms(connection)
    context.watchers.unwatch(connection, [name for name in watched if "r" not in grant.rights.of(name)])
