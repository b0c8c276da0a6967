"""What a further room costs a connection, beside the room itself: a cursor, and where it is kept."""

import tracemalloc
from types import SimpleNamespace
from typing import Any, cast

from gateway.core.entry import START
from gateway.core.names import RoomName
from gateway.core.wires import V1
from gateway.rooms.room import Live
from gateway.rooms.session import Session

CONNECTIONS = ROOMS = 100
BYTES_MAX = 400


def test_a_further_room_of_a_connection_is_light() -> None:
    """A list of 500 rooms on 5,000 connections is 2.5 million sessions: each byte of one is 2.5 MB."""
    rooms = [cast(Any, SimpleNamespace(name=RoomName(f"r{at}"), live=Live(V1))) for at in range(ROOMS)]
    connections = [cast(Any, SimpleNamespace(transport=None, wire=V1)) for _ in range(CONNECTIONS)]
    sessions: list[dict[RoomName, Session]] = [{} for _ in connections]
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for connection, its in zip(connections, sessions, strict=True):
            for room in rooms:
                session = its[room.name] = Session(connection, room, START)
                session.past = 0
                room.live.add(session)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    each = (after - before) / (CONNECTIONS * ROOMS)
    assert each <= BYTES_MAX, f"{each:.0f} bytes"
    print(f"{each:.0f} bytes each")
