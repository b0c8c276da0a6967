"""`rooms` and `rooms/{room}`: which there are, and how one is."""

from typing import Annotated

import msgspec
from msgspec import Meta

from gateway.broker.keys import PARTITIONS
from gateway.broker.rooms import START, Log, Place
from gateway.edge.api.operation import Call, Nothing
from gateway.edge.api.problems import Problem, bad_parameter

ROOMS_MAX = 200


class ListRooms(msgspec.Struct, forbid_unknown_fields=True):
    """A page of the rooms."""

    limit: Annotated[int, Meta(ge=1, le=ROOMS_MAX, description="How many rooms")] = 50
    after: Annotated[str, Meta(description="`next` of the page before; none: the first page")] = ""


class Room(msgspec.Struct):
    """A room in which somebody spoke, and what its log holds."""

    room: str
    entries: int
    first_id: str
    last_id: str
    # Unix ms, by the broker's clock.
    last_at: int


class Rooms(msgspec.Struct):
    """In no order that means anything. `next`: where to go on; null: these were the last. A snapshot: a page may have
    less than `limit` and not be the last, a room may come twice while it is spoken in, and none is left out that was
    there all the time."""

    rooms: list[Room]
    next: str | None


async def rooms(call: Call[ListRooms]) -> Rooms:
    asked = call.asked
    logs, goes_on = await call.edge.context.broker.rooms.page(_place(asked.after), asked.limit)
    return Rooms(list(map(_room, logs)), None if goes_on is None else "~".join(map(str, goes_on)))


async def room(call: Call[Nothing]) -> Room:
    """404: nobody has spoken there."""
    name = call.room_of(call.path["room"])
    (log,) = await call.edge.context.broker.rooms.logs([name])
    if log is None:
        raise Problem("no_room", f"nobody has spoken in {name}, or it has expired")
    return _room(log)


def _room(log: Log) -> Room:
    return Room(log.room, log.entries, log.first_id, log.last_id, log.last_at)


def _place(text: str) -> Place:
    """No room's name has a `~`."""
    if not text:
        return START
    try:
        partition, renewed, room = text.split("~")
        place = Place(int(partition), int(renewed), room)
    except ValueError:
        raise bad_parameter("after", "`next` of a page") from None
    if not (0 <= place.partition < PARTITIONS and 0 <= place.renewed < 2**53):
        raise bad_parameter("after", "`next` of a page")
    return place
