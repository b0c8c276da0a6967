"""Memory is under budgets: what a node keeps of its rooms does not grow with who comes, nor with where they begin."""

import asyncio

from tests.conftest import NodeFactory
from tests.node.conftest import redis_only
from tests.support.client import Crowd
from tests.support.node import Node
from tests.support.until import until

pytestmark = redis_only

MB = 1_000_000


async def resident(node: Node) -> float:
    return await node.metric("hiroba_process_resident_bytes")


async def fill(crowd: Crowd, node: Node, room: str, count: int, size: int) -> None:
    speaker = await crowd.join(node, room)
    for n in range(count):
        await speaker.say(f"{n} " + "x" * size, ref=n)
        if n % 16 == 15 or n == count - 1:
            await speaker.answer(n)


async def test_what_walks_share_is_under_one_budget(start_node: NodeFactory, crowd: Crowd) -> None:
    """150 rooms of 90 KB and 64 joins in each, all from another place, took 266 MB, and kept them."""
    node = await start_node(messages_per_s=0, tail_bytes_max=2 * MB)
    rooms = [f"r{n}" for n in range(20)]
    await asyncio.gather(*(fill(crowd, node, room, 90, 1_000) for room in rooms))
    before = await resident(node)
    for room in rooms:
        joined = await asyncio.gather(*(crowd.member(node, room, history=90 - n) for n in range(40)))
        await until(lambda joined=joined: all(len(raw.payloads()) == 90 - n for n, raw in enumerate(joined)), "all")
        assert await node.metric("hiroba_tails_bytes") <= 2 * MB
        for raw in joined:
            raw.transport.close()
    assert await resident(node) - before < 12 * MB, "800 stretches of 60 KB were written"


async def test_a_walk_keeps_nothing_while_its_socket_waits(start_node: NodeFactory, crowd: Crowd) -> None:
    """Forty who read nothing, each from a place of its own in 10 MB of log: a page for each would be 150 MB."""
    node = await start_node(messages_per_s=0, tail_bytes_max=MB, stall_s=60)
    await fill(crowd, node, "r", 170, 60_000)
    before = await resident(node)
    for n in range(40):
        raw = await crowd.connect(node, receive_bytes=4096)
        await raw.enter("r", history=165 - n)
        raw.transport.pause_reading()

    async def stuck() -> bool:
        samples = await node.metrics()
        return samples["hiroba_sessions_behind"] == 40 and samples["hiroba_pages_read_total"] >= 40

    await until(stuck, "all are behind, and each has read from the log")
    # What a socket may hold, and the pages under way.
    assert await resident(node) - before < 40 * 200_000 + 20 * MB
