"""Rooms serve sessions, and share nothing but the connection: when it made its last progress, and how it ends."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import Future
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

from gateway.broker.feed import Feed
from gateway.core import frames
from gateway.core.closes import Close
from gateway.core.deletions import Lately
from gateway.core.entry import Entry, EntryId
from gateway.core.names import room_name
from gateway.core.wires import V1, Wire
from gateway.edge.connection import Connection
from gateway.edge.context import Context
from gateway.edge.requests import Requests
from gateway.rooms.room import Room
from gateway.rooms.session import Session
from gateway.rooms.tail import Tail, TailBudget
from gateway.rooms.walks import Walks
from gateway.settings.model import Settings
from gateway.telemetry.clock import Clock
from gateway.telemetry.metrics import Metrics
from tests.support.grants import OPEN
from tests.support.until import until

STALL_S = 5.0


class Stuck:
    """A transport whose peer reads what the test says."""

    def __init__(self) -> None:
        self.waiting = 0
        self.written = b""

    def write(self, data: bytes) -> None:
        self.waiting += len(data)
        self.written += data

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def is_closing(self) -> bool:
        return False

    def resume_reading(self) -> None:
        pass

    def abort(self) -> None:
        pass


def connected(transport: Stuck, wire: Wire = V1) -> Connection:
    """On a node of which there is nothing else."""
    hub = SimpleNamespace(leave=lambda session: session.room.leave(session))
    nobody = cast(Any, None)
    context = Context(
        "n", Settings(), nobody, cast(Any, hub), nobody, nobody, nobody, Clock(), Metrics(), nobody, nobody
    )
    return Connection(context, cast(Any, transport), "/", "-", wire, room_name("r"), OPEN)


def joined(connection: Connection, room: Room, cursor: EntryId) -> Session:
    session = connection.sessions[room.name] = Session(connection, room, cursor)
    room.admit(session)
    return session


def opened(name: str, top: EntryId, keep: Any) -> Room:
    whispers, control = SimpleNamespace(listen=lambda room: None), SimpleNamespace(lately=Lately())
    broker: Any = SimpleNamespace(clock_offset_s=lambda: 0.0, whispers=whispers, control=control)
    room = Room(room_name(name), broker, Tail(10, TailBudget(1_000)), Walks(10_000), Metrics(), 1_000, keep)
    room.feed = Feed(b"log", room, 1_000)
    room.feed.cursor = top
    return room


def not_walked(name: str, walk: Coroutine[Any, Any, None]) -> Any:
    walk.close()
    return Future()  # never done


def test_a_connection_is_stalled_when_bytes_wait_and_none_is_taken() -> None:
    transport = Stuck()
    connection = connected(transport)
    assert not connection.stalled(0.0, STALL_S)
    connection.write(b"x" * 100)
    assert not connection.stalled(100.0, STALL_S), "the wait begins when it is first seen"
    assert not connection.stalled(105.0, STALL_S)
    transport.waiting -= 1
    assert not connection.stalled(105.1, STALL_S), "a byte is progress"
    assert not connection.stalled(110.1, STALL_S)
    assert connection.stalled(110.2, STALL_S)
    transport.waiting = 0
    assert not connection.stalled(200.0, STALL_S)


def test_a_session_that_falls_behind_is_judged_by_the_nodes_clock() -> None:
    """That clock is behind the machine's by all pauses: after an hour's sleep no stalled session would ever end."""
    room = opened("r", EntryId(1, 2), not_walked)
    connection = connected(Stuck())
    connection.write(b"x" * 100)
    assert joined(connection, room, EntryId(1, 1)) in room.behind
    assert not connection.stalled(10.0, STALL_S)
    assert connection.stalled(10.0 + STALL_S + 0.1, STALL_S)


def test_falling_behind_in_a_second_room_begins_no_new_wait() -> None:
    """Or who reads nothing would stay for as long as it has rooms left in which to fall behind."""
    one, two = (opened(name, EntryId(1, 2), not_walked) for name in ("one", "two"))
    connection = connected(Stuck())
    connection.write(b"x" * 100)
    first = joined(connection, one, EntryId(1, 1))
    assert not connection.stalled(10.0, STALL_S)
    joined(connection, two, EntryId(1, 1))
    connection.leave(first)
    assert connection.stalled(10.0 + STALL_S + 0.1, STALL_S)


def test_a_session_that_ends_leaves_its_connection_and_the_others_alone() -> None:
    one, two = (opened(name, EntryId(1, 1), not_walked) for name in ("one", "two"))
    transport = Stuck()
    connection = connected(transport)
    first, second = (joined(connection, room, EntryId(1, 1)) for room in (one, two))
    entries = [Entry(EntryId(1, 2), "s", b"", b"1")]
    one.deliver(entries)
    connection.leave(first)
    taken = transport.waiting
    one.deliver([Entry(EntryId(1, 3), "s", b"", b"1")])
    assert transport.waiting == taken and connection.closing is None
    assert connection.sessions == {two.name: second} and one.empty and not two.empty
    two.deliver(entries)
    assert transport.waiting == 2 * taken


def test_a_stretch_that_walks_share_is_kept_until_the_last_of_them_has_it() -> None:
    """Five who came back together left 1.7 MB of what they had all passed, to the end of their walks."""
    room = opened("r", EntryId(1, 4), not_walked)
    transports = Stuck(), Stuck()
    first, second = (joined(connected(transport), room, EntryId(1, 1)) for transport in transports)
    entries = [Entry(EntryId(1, n), "s", b"", b"1") for n in (2, 3, 4)]
    assert room._write_on(first, entries[:1]) == 1 and room._walks.bytes
    assert room._write_on(first, entries[1:]) == 2
    kept = room._walks.bytes
    assert room._write_on(second, []) == 1 and 0 < room._walks.bytes < kept
    assert room._write_on(second, []) == 2 and not room._walks.bytes
    assert transports[0].written == transports[1].written


async def test_a_connection_that_ends_leaves_all_its_rooms() -> None:
    """Live or behind; and what it was sent in any of them is in its last line."""
    live, behind = (opened(name, EntryId(1, 1), not_walked) for name in ("live", "behind"))
    connection = connected(Stuck())
    joined(connection, live, EntryId(1, 1))
    joined(connection, behind, EntryId(1, 0))
    for n in (2, 3):
        live.deliver([Entry(EntryId(1, n), "s", b"", b"1")])
    connection.end(Close.LOST)
    assert connection.closing is Close.LOST
    assert live.empty and behind.empty and not connection.sessions
    assert connection.sent_entries == 2


def walked(name: str, walk: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    return asyncio.create_task(walk)


def broken(room: bytes, entry: Entry) -> bytes:
    raise LookupError("a bug")


async def test_a_session_whose_walk_fails_is_closed_and_not_left_deaf() -> None:
    """Whatever the bug is: nobody else would move it to the top, and it waits for nothing that could stall."""
    room = opened("r", EntryId(1, 1), walked)
    room.deliver([Entry(EntryId(1, 1), "s", b"", b"1")])
    connection = connected(Stuck(), replace(V1, message=broken))
    joined(connection, room, EntryId(1, 0))
    await until(lambda: connection.closing, "it is closed")
    assert connection.closing is Close.ERROR


async def test_who_knows_many_rooms_is_told_which_one_ended_and_why_and_keeps_the_others() -> None:
    """`left` with a reason is that room's last frame; it may be joined again, for nothing of it is left."""
    ended, other = opened("ended", EntryId(1, 1), walked), opened("other", EntryId(1, 1), walked)
    ended.deliver([Entry(EntryId(1, 1), "s", b"", b"1")])
    transport = Stuck()
    connection = connected(transport, replace(V1, message=broken))
    connection.requests = Requests(connection, connection._context)
    joined(connection, ended, EntryId(1, 0))
    stays = joined(connection, other, EntryId(1, 1))
    await until(lambda: transport.written, "it is told")
    assert transport.written == frames.text(b'{"type":"left","room":"ended","reason":"error"}')
    assert connection.closing is None
    assert connection.sessions == {other.name: stays}
    assert ended.empty and not other.empty
