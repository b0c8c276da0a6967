"""What a session knows of itself: when it made its last progress."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import Future
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from gateway.broker.feed import Feed
from gateway.core.closes import Close
from gateway.core.entry import Entry, EntryId
from gateway.core.names import room_name
from gateway.core.wires import V1
from gateway.metrics import Metrics
from gateway.rooms.room import Room
from gateway.rooms.session import Session
from gateway.rooms.tail import Tail, TailBudget
from gateway.rooms.walks import Walks
from tests.support.until import until

STALL_S = 5.0


class Stuck:
    """A transport whose peer reads what the test says."""

    def __init__(self) -> None:
        self.waiting = 0

    def write(self, data: bytes) -> None:
        self.waiting += len(data)

    def get_write_buffer_size(self) -> int:
        return self.waiting


class Ready(Session):
    async def drained(self) -> None:
        return

    def end(self, close: Close) -> None:
        self.closing = close


class Listener(Ready):
    def __init__(self, transport: Stuck) -> None:
        super().__init__(V1, transport)

    async def drained(self) -> None:
        await asyncio.get_running_loop().create_future()


def not_walked(name: str, walk: Coroutine[Any, Any, None]) -> Any:
    walk.close()
    return Future()  # never done


def test_a_session_is_stalled_when_bytes_wait_and_none_is_taken() -> None:
    transport = Stuck()
    session = Listener(transport)
    assert not session.stalled(0.0, STALL_S)
    session.write(b"x" * 100)
    assert not session.stalled(100.0, STALL_S), "the wait begins when it is first seen"
    assert not session.stalled(105.0, STALL_S)
    transport.waiting -= 1
    assert not session.stalled(105.1, STALL_S), "a byte is progress"
    assert not session.stalled(110.1, STALL_S)
    assert session.stalled(110.2, STALL_S)
    transport.waiting = 0
    assert not session.stalled(200.0, STALL_S)


def test_a_session_that_falls_behind_is_judged_by_the_nodes_clock() -> None:
    """That clock is behind the machine's by all pauses: after an hour's sleep no stalled session would ever end."""
    broker: Any = SimpleNamespace(clock_offset_s=lambda: 0.0)
    room = Room(room_name("r"), broker, Tail(10, TailBudget(1_000)), Walks(1_000), Metrics(), 1_000, not_walked)
    room.feed = Feed(b"log", room, 1_000)
    room.feed.cursor = EntryId(1, 2)
    transport = Stuck()
    session = Listener(transport)
    session.write(b"x" * 100)
    room.admit(session)
    assert session in room.behind
    assert not session.stalled(10.0, STALL_S)
    assert session.stalled(10.0 + STALL_S + 0.1, STALL_S)


async def test_a_session_whose_walk_fails_is_closed_and_not_left_deaf() -> None:
    """Whatever the bug is: nobody else would move it to the top, and it waits for nothing that could stall."""

    def broken(entry: Entry) -> bytes:
        raise LookupError("a bug")

    def walked(name: str, walk: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.create_task(walk)

    broker: Any = SimpleNamespace(clock_offset_s=lambda: 0.0)
    room = Room(room_name("r"), broker, Tail(10, TailBudget(1_000)), Walks(1_000), Metrics(), 1_000, walked)
    room.feed = Feed(b"log", room, 1_000)
    room.feed.cursor = EntryId(1, 1)
    room.deliver([Entry(EntryId(1, 1), "s", "", b"1")])
    session = Ready(replace(V1, message=broken), Stuck())
    session.cursor = EntryId(1, 0)
    room.admit(session)
    await until(lambda: session.closing, "it is closed")
    assert session.closing is Close.ERROR
