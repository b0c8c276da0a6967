"""What came and went leaves nothing: no key of a silent room, no task, no descriptor, no group."""

import asyncio
import itertools

import pytest
from redis.asyncio import Redis

from tests.conftest import NodeFactory
from tests.node.conftest import redis_only
from tests.support.broker import Broker
from tests.support.client import Crowd
from tests.support.node import Node
from tests.support.raw import CLOSE, connect, frame
from tests.support.until import until

pytestmark = redis_only

AT_ONCE = 100

LEVELS = (
    "hiroba_connections",
    "hiroba_sessions_live",
    "hiroba_sessions_behind",
    "hiroba_rooms",
    "hiroba_tails_bytes",
    "hiroba_tasks",
)


async def levels(node: Node) -> list[float]:
    samples = await node.metrics()
    return [samples[name] for name in LEVELS]


async def come_and_go(node: Node, numbers: "itertools.count[int]", rooms: int, total: int, say: bool) -> None:
    """Visits until `total` visitors came; every third just vanishes."""
    for n in numbers:
        if n >= total:
            return
        raw = await connect(node)
        await raw.enter(f"silent_{n % rooms}", v1=n % 2 == 0)
        if say:
            raw.write(frame(b'{"type":"message","message":%d}' % n))
        if n % 3 == 0:
            raw.reset()
        else:
            raw.write(frame(b"", opcode=CLOSE))
        await raw.over


@pytest.mark.long
async def test_ten_thousand_silent_sessions_leave_no_key(broker: Broker, start_node: NodeFactory) -> None:
    node = await start_node(linger_s=0.2, log_level="warning")
    before = await levels(node)
    numbers = itertools.count()
    await asyncio.gather(*(come_and_go(node, numbers, 2000, 10_000, say=False) for _ in range(AT_ONCE)))

    async def as_before() -> bool:
        return await levels(node) == before

    await until(as_before, "the node is as it was", every_s=0.1)
    async with broker.client() as client:
        left = [key async for key in client.scan_iter(count=1000)]
        assert [key for key in left if b"silent" in key] == []
        assert len(left) <= 3, "nodes, probe, once"
        channels = await client.execute_command("PUBSUB", "SHARDCHANNELS")
        assert all(
            b":probe:" in channel or channel.endswith((b":orders:control", b":questions:all")) for channel in channels
        )
    closes = await node.metrics()
    assert sum(closes[f'hiroba_closes_total{{reason="{reason}"}}'] for reason in ("client", "lost")) == 10_000


async def test_two_thousand_connections_come_and_go(broker: Broker, start_node: NodeFactory, crowd: Crowd) -> None:
    """They spoke; sessions, rooms, groups, tasks and descriptors are back where they were."""
    node = await start_node(linger_s=0.2, messages_per_s=0, log_level="warning")
    async with broker.client() as client:

        async def groups() -> int:
            return sum(
                [len(await client.xinfo_groups(key)) async for key in client.scan_iter(_type="stream", count=1000)]
            )

        await until(groups, "the probe's group")
        before, groups_before = await levels(node), await groups()
        descriptors = await node.metric("hiroba_process_open_descriptors")
        connections = await _connections(client)
        held = await asyncio.gather(*(crowd.member(node, f"silent_{n % 50}") for n in range(500)))
        numbers = itertools.count()
        await asyncio.gather(*(come_and_go(node, numbers, 50, 1500, say=True) for _ in range(AT_ONCE)))
        assert await node.metric("hiroba_connections") >= 500
        assert await groups() > groups_before
        assert await _connections(client) <= connections + 8, "clients cost the broker no connections"
        for number, raw in enumerate(held):
            if number % 2:
                raw.reset()
            else:
                raw.transport.close()

        async def as_before() -> bool:
            return (await levels(node), await groups()) == (before, groups_before)

        await until(as_before, "the node is as it was", every_s=0.1)

        async def descriptors_as_before() -> bool:  # redis-py may keep a connection or two
            return await node.metric("hiroba_process_open_descriptors") <= descriptors + 8

        await until(descriptors_as_before, "descriptors are back", every_s=0.1)


async def _connections(client: Redis) -> int:
    return len(await client.client_list())
