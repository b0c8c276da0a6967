"""A node is killed under connections of many rooms: each comes back elsewhere, to all of them, and misses nothing."""

import asyncio
import time

import pytest

from tests.cluster.conftest import QUICK, redis_only
from tests.conftest import NodeFactory
from tests.support.client import Client, Crowd
from tests.support.until import until
from tests.support.vector import Vector, count

ROOMS = [f"r{at}" for at in range(100)]
EACH = 20


class Member:
    """In every fifth room. Comes back at once, as the protocol says: everything in one burst."""

    def __init__(self, at: int) -> None:
        self.vector = Vector()
        self.client: Client
        self._rooms = ROOMS[at % 5 :: 5]
        self._taken = 0

    async def come(self, crowd: Crowd, node: object) -> None:
        self.client, self._taken = await crowd.come(node), 0  # type: ignore[arg-type]
        await self.client.ask_all([self.vector.join(room) for room in self._rooms], within_s=60)
        self.hear()

    def hear(self) -> None:
        for frame in self.client.heard[self._taken :]:
            self.vector.take(frame)
        self._taken = len(self.client.heard)

    async def come_back(self, crowd: Crowd, node: object) -> None:
        await self.client.closed(within_s=60)
        self.hear()
        self.vector.lost()
        await self.come(crowd, node)


@redis_only
@pytest.mark.parametrize(
    "members", [pytest.param(60, id="60"), pytest.param(1_000, id="1000", marks=[pytest.mark.long])]
)
async def test_a_kill_under_connections_of_many_rooms_loses_nothing(start_node: NodeFactory, members: int) -> None:
    """Somebody speaks in all rooms before, while and after: every room of every connection resumes, exactly."""
    async with Crowd() as crowd:
        killed, other = await asyncio.gather(*(start_node(**QUICK) for _ in range(2)))
        everybody = [Member(at) for at in range(members)]
        for at in range(0, members, 50):
            await asyncio.gather(*(member.come(crowd, killed) for member in everybody[at : at + 50]))
        assert {len(member.vector.joined) for member in everybody} == {EACH}
        speaker = await crowd.come(other)
        await speaker.ask_all([{"type": "join", "room": room} for room in ROOMS])
        entries = 0

        async def speak() -> None:
            nonlocal entries
            await speaker.ask_all([{"type": "message", "room": room, "message": entries} for room in ROOMS])
            entries += 1

        await speak()
        await speak()  # on its way while the node ends
        await killed.kill()
        killed_at = time.monotonic()
        coming_back = asyncio.gather(*(member.come_back(crowd, other) for member in everybody))
        await speak()
        await coming_back
        print(
            f"{members} connections are back in {EACH} rooms each {time.monotonic() - killed_at:.2f} s after the kill"
        )
        await speak()

        def all_told() -> bool:
            for member in everybody:
                member.hear()
            return all(count(id) == entries for member in everybody for id in member.vector.cursors.values())

        await until(all_told, "everybody is told of everything", within_s=60)
        assert {member.vector.messages for member in everybody} == {entries * EACH}
