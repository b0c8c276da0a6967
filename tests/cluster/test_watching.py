"""Watching through faults of the broker: whatever becomes of the doorbell, a top is the log's last id in the end."""

import asyncio
from collections.abc import Awaitable

from tests.cluster.chat import Chat, key, say
from tests.cluster.conftest import redis_only
from tests.conftest import NodeFactory
from tests.support.broker import Broker
from tests.support.client import Client, Crowd
from tests.support.node import Node
from tests.support.proxy import Proxy

ROOM = "square"


def far_node(start: NodeFactory, proxy: Proxy, broker: Broker, **settings: object) -> Awaitable[Node]:
    """One whose road to the broker leads through the proxy."""
    return start(broker_url=broker.url_at("127.0.0.1", proxy.port), **settings)


async def watch(crowd: Crowd, node: Node) -> Client:
    client = await crowd.come(node)
    await client.ask("watch", rooms=[ROOM])
    return client


async def agrees(client: Client, broker: Broker) -> None:
    """Its top is the log's last id, as the broker has it."""
    async with broker.client() as redis:
        ((last, _),) = await redis.xrevrange(key(ROOM), count=1)
    await client.until(lambda: client.of_type("tops")[-1]["rooms"] == {ROOM: last.decode()}, f"a top of {last}")


@redis_only
async def test_what_was_said_while_the_doorbell_was_cut_is_told_once_it_is_back(
    quick_node: NodeFactory, chat: Chat, broker: Broker, proxy: Proxy, crowd: Crowd
) -> None:
    """Pub/sub keeps nothing: who hears its bells again asks the logs, and need not wait for a sweep."""
    node, there = await asyncio.gather(far_node(quick_node, proxy, broker, sweep_s=60), quick_node())
    speaker, ann = await chat.join(there, ROOM), await watch(crowd, node)
    await say(speaker, "one")
    await agrees(ann, broker)
    bells = await proxy.link_named("-doorbell", chat.broker)
    bells.down.freeze()
    await say(speaker, "two", "three")
    bells.cut()
    await agrees(ann, broker)
    await say(speaker, "four")
    await agrees(ann, broker)


@redis_only
async def test_a_bell_that_is_lost_without_a_trace_is_found_by_the_sweep(
    quick_node: NodeFactory, chat: Chat, broker: Broker, proxy: Proxy, crowd: Crowd
) -> None:
    """Its connection looks well. Whoever watches waits a sweep at most."""
    road = far_node(quick_node, proxy, broker, sweep_s=0.5, probe_s=60)
    node, there = await asyncio.gather(road, quick_node())
    speaker, ann = await chat.join(there, ROOM), await watch(crowd, node)
    await say(speaker, "one")
    await agrees(ann, broker)
    bells = await proxy.link_named("-doorbell", chat.broker)
    bells.down.freeze()
    await say(speaker, "two", "three")
    await agrees(ann, broker)


async def test_a_broker_that_was_away_is_asked_for_what_is_watched(
    quick_node: NodeFactory, chat: Chat, broker: Broker, crowd: Crowd
) -> None:
    """What was asked meanwhile is answered without it, in its time, and told as soon as it is known."""
    node = await quick_node()
    ann = await watch(crowd, node)
    await say(speaker := await chat.join(node, ROOM), "one")
    await agrees(ann, broker)
    await broker.kill()
    answer = await ann.ask("watch", rooms=[ROOM, "new"])
    assert "new" not in answer["rooms"] and ROOM in answer["rooms"]
    await broker.start()
    await ann.until(lambda: {"new": "0-0"}.items() <= ann.of_type("tops")[-1]["rooms"].items(), "the new one's top")
    await say(speaker, "two")
    await agrees(ann, broker)
