"""Order at fan-out, with connections in 1, 10 and 200 of 300 rooms: each session has exactly its room's sequence."""

import asyncio
import random

from tests.conftest import NodeFactory
from tests.node.conftest import redis_only
from tests.support.client import Client, Crowd
from tests.support.until import until
from tests.support.vector import Vector, count

ROOMS = [f"r{at}" for at in range(300)]
# How many connections are in how many rooms.
SIZES = {1: 20, 10: 12, 200: 4}
ENTRIES = 12


class Churner:
    """In so many rooms; leaves one, and joins another or comes back, for as long as others speak."""

    def __init__(self, client: Client, size: int, seed: int) -> None:
        self.client = client
        self.vector = Vector()
        self._size = size
        self._random = random.Random(seed)
        self._rooms = self._random.sample(ROOMS, size)
        self._taken = 0

    def hear(self) -> None:
        for frame in self.client.heard[self._taken :]:
            self.vector.take(frame)
        self._taken = len(self.client.heard)

    async def enter(self) -> None:
        await self.client.ask_all([self.vector.join(room) for room in self._rooms])
        self.hear()

    async def churn(self, over: asyncio.Event) -> None:
        while not over.is_set():
            leaving = self._random.sample(self._rooms, max(1, self._size // 20))
            await self.client.ask_all([{"type": "leave", "room": room} for room in leaving])
            self.hear()
            others = self._random.sample(sorted(set(ROOMS) - set(self._rooms)), len(leaving) // 2)
            joining = [*others, *leaving][: len(leaving)]
            self._rooms = [room for room in self._rooms if room not in leaving] + joining
            await self.client.ask_all([self.vector.join(room) for room in joining])
            self.hear()


@redis_only
async def test_each_session_has_exactly_its_rooms_sequence_while_all_join_and_leave(
    start_node: NodeFactory, crowd: Crowd
) -> None:
    """Whatever a connection's other rooms do: from `joined` to `left` no entry is missing, twice, or out of order; a
    room that it comes back to goes on where it left."""
    nodes = await asyncio.gather(*(start_node(messages_per_s=0, joins_per_s=0) for _ in range(2)))
    sizes = [size for size, how_many in SIZES.items() for _ in range(how_many)]
    churners = [Churner(await crowd.come(nodes[at % 2]), size, at) for at, size in enumerate(sizes)]
    speakers = [await crowd.come(node) for node in nodes]
    await asyncio.gather(*(churner.enter() for churner in churners))
    for speaker in speakers:
        await speaker.ask_all([{"type": "join", "room": room} for room in ROOMS])
    over = asyncio.Event()
    churning = asyncio.gather(*(churner.churn(over) for churner in churners))
    for number in range(ENTRIES // 2):
        await asyncio.gather(
            *(
                speaker.ask_all([{"type": "message", "room": room, "message": number} for room in ROOMS])
                for speaker in speakers
            )
        )
    over.set()
    await churning

    def all_told() -> bool:
        for churner in churners:
            churner.hear()
        return all(
            count(churner.vector.cursors[room]) == ENTRIES for churner in churners for room in churner.vector.joined
        )

    await until(all_told, "everybody is told of the last entry of each room that it is in", within_s=30)
    assert [len(churner.vector.joined) for churner in churners] == sizes
    assert all(churner.vector.messages for churner in churners)
