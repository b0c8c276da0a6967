"""`presence`, `users/{id}`, `disconnect`, `revoke`: who is where, and how they are put out."""

import time
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from gateway.broker.orders import Given, NoSpace
from gateway.core.orders import Issued, Kick, Target, Token
from gateway.edge.api.operation import Call, Nothing
from gateway.edge.api.problems import Problem, invalid
from gateway.edge.edge import Edge
from gateway.edge.listener import Listener

# Of one node, of one user.
CONNECTIONS_MAX = 100
ID_CHARS_MAX = 256
# So long who was disconnected can't come back: enough to be told so, where a client tries at once.
DISCONNECT_S = 5.0

Id = Annotated[str, Meta(min_length=1, max_length=ID_CHARS_MAX)]


class Connection(msgspec.Struct):
    """One connection of a user."""

    node: str
    # Of a session: what entries call `from`.
    session: str
    wire: str
    peer: str
    # Unix seconds.
    opened_at: int
    rooms: list[str]


class UserState(msgspec.Struct):
    """Where a user is connected: nowhere, and nobody of that id, look the same. `rooms`: those of all connections.
    `silent`: nodes that did not answer in time, so that there may be more."""

    id: str
    rooms: list[str]
    connections: list[Connection]
    silent: list[str]


class Disconnect(msgspec.Struct, forbid_unknown_fields=True):
    """Put a user out, of one room or of all; for so long they can't come back. `lift`: take that back, of the same
    user and room."""

    user: Id
    room: Annotated[str, Meta(min_length=1)] | UnsetType = UNSET
    for_s: Annotated[float, Meta(ge=1, le=31_536_000)] = DISCONNECT_S
    lift: bool = False


class Revoke(msgspec.Struct, forbid_unknown_fields=True):
    """Make tokens good no more: a user's, one by its id, or everybody's. `issued_before`: Unix seconds; none: now."""

    user: Id | UnsetType = UNSET
    token: Id | UnsetType = UNSET
    everybody: bool = False
    issued_before: Annotated[float, Meta(ge=0, le=4_102_444_800)] | UnsetType = UNSET


class Ordered(msgspec.Struct):
    """It stands, until then (if it is not lifted): Unix ms by the broker's clock. `heard`: false where nodes find it
    by themselves, within sweep_s, because the log did not take it."""

    until: int
    heard: bool


class Look(msgspec.Struct, forbid_unknown_fields=True):
    """Who is in a room."""

    room: Annotated[str, Meta(min_length=1, description="A room's name")]


class Present(msgspec.Struct):
    """`members`: each in JSON as clients are told them; null: they are more than presence_members_max. A room in which
    nobody is has none."""

    room: str
    members: list[dict[str, Any]] | None
    count: int


# ---- who is where ----


async def presence(call: Call[Look]) -> Present:
    """On all nodes, whichever is asked."""
    room, context = call.room_of(call.asked.room), call.edge.context
    async with context.presence.looking([room], settled=True) as (here_,):
        members, count = here_.roll.here(call.edge.settings.presence_members_max)
    return Present(room, None if members is None else [msgspec.json.decode(one) for one in members.values()], count)


class Here(msgspec.Struct):
    """A user's connections to one node."""

    connections: list[Connection]


def here(edge: Edge, user: str) -> Here:
    """Those of this node."""
    found = [connection for connection in edge.wheel.connections() if connection.user.id == user]
    return Here([_told(edge, connection) for connection in found[:CONNECTIONS_MAX]])


def _told(edge: Edge, connection: Listener) -> Connection:
    opened_at = int(connection.opened_at_ms(time.time() * 1000) / 1000)
    rooms: list[str] = sorted(connection.sessions)
    return Connection(edge.context.node, connection.id, connection.wire.name, connection.peer, opened_at, rooms)


async def user(call: Call[Nothing]) -> UserState:
    id = call.path["id"]
    answers = await call.edge.context.broker.questions.ask("user", id)
    connections: list[Connection] = []
    for answer in answers.by_node.values():
        connections += msgspec.json.decode(answer, type=Here).connections
    connections.sort(key=lambda connection: (connection.opened_at, connection.session))
    rooms = sorted({room for connection in connections for room in connection.rooms})
    return UserState(id, rooms, connections, answers.silent)


# ---- how they are put out ----


async def disconnect(call: Call[Disconnect]) -> Ordered:
    asked = call.asked
    room = "" if asked.room is UNSET else call.room(asked.room)
    call.facts |= {"user": asked.user, "room": room, **({"lift": True} if asked.lift else {"for_s": asked.for_s})}
    return await _ordered(call, Kick(asked.user, room), None, None if asked.lift else asked.for_s)


async def revoke(call: Call[Revoke]) -> Ordered:
    asked, life_s = call.asked, call.edge.settings.revoked_s
    if (asked.user is not UNSET) + (asked.token is not UNSET) + asked.everybody != 1:
        raise invalid("", "say whose tokens: one of user, token, everybody")
    target: Target
    if asked.token is not UNSET:
        if asked.issued_before is not UNSET:
            raise invalid("/issued_before", "is said of a user's tokens, or everybody's: `token` is one already")
        target = Token(asked.token)
    else:
        target = Issued("" if asked.user is UNSET else asked.user, life_s)
    until_ms = None
    if asked.issued_before is not UNSET:
        if asked.issued_before > time.time() + 1:
            raise invalid("/issued_before", "is still to come: nobody could log in until then")
        until_ms = int((asked.issued_before + life_s) * 1000)
        if until_ms <= time.time() * 1000:
            raise invalid("/issued_before", f"tokens issued so long ago have all expired: revoked_s is {life_s}")
    call.facts |= {name: value for name in ("user", "token") if (value := getattr(asked, name)) is not UNSET}
    call.facts["everybody"] = asked.everybody
    return await _ordered(call, target, until_ms, life_s)


async def _ordered(
    call: Call[Disconnect] | Call[Revoke], target: Target, until_ms: int | None, for_s: float | None
) -> Ordered:
    """`for_s` None: it is lifted."""
    by, orders = f"api:{call.caller.name}", call.edge.context.broker.control.orders
    given: Given
    try:
        given = await (orders.lift(target, by) if for_s is None else orders.give(target, until_ms, for_s, by))
    except NoSpace as exc:
        raise Problem("full", str(exc)) from None
    return Ordered(given.order.until, given.unsaid is None)
