"""kill -9 of a node, of the broker; nodes and a broker that were only paused. Nothing is lost, nothing comes twice."""

import asyncio

from tests.cluster.chat import Chat, balanced, key
from tests.cluster.conftest import redis_only
from tests.conftest import NodeFactory
from tests.support.broker import Broker
from tests.support.until import until


@redis_only
async def test_clients_of_a_killed_node_come_back_on_the_other_and_miss_nothing(
    quick_node: NodeFactory, chat: Chat
) -> None:
    doomed, other = await asyncio.gather(quick_node(), quick_node())
    talkers = [chat.talk(await chat.join(node, "square"), name) for node, name in ((doomed, "a"), (other, "b"))]
    members = [await chat.join(doomed, "square") for _ in range(5)]
    stayed = await chat.join(other, "square")
    await talkers[0].more(20)
    await doomed.kill()
    for member in members:
        await member.closed()
    await talkers[1].more(20)
    for member in members:
        await member.resume(other)
        assert member.welcomes[-1]["recovered"]
    await talkers[1].more(20)
    await chat.quiet()
    log = await chat.log("square")
    for member in (*members, stayed):
        await balanced(member, log)
        assert not member.gaps
    await chat.answers_agree("square")


async def test_a_killed_broker_that_comes_back_with_its_data_lost_nothing(
    quick_node: NodeFactory, chat: Chat, broker: Broker
) -> None:
    """Every socket stays open, on both wires."""
    nodes = await asyncio.gather(quick_node(), quick_node())
    members = [await chat.join(node, "square") for node in nodes]
    plain = [await chat.join(node, "square", "plain") for node in nodes]
    talkers = [chat.talk(await chat.join(node, "square"), name) for node, name in zip(nodes, "ab", strict=True)]
    for _ in range(2):
        await asyncio.gather(*(talker.more(20) for talker in talkers))
        await broker.restart()
    await asyncio.gather(*(talker.more(20) for talker in talkers))
    await chat.quiet()
    log = await chat.log("square")
    for member in members:
        await balanced(member, log)
        assert not member.gaps and member.connected
    for member in plain:
        await until(lambda member=member: len(member.plain) >= len(log), "a plain member hears all")
        assert member.plain == [entry.message for entry in log] and member.connected
    await chat.answers_agree("square")
    for node in nodes:
        assert await node.metric("hiroba_broker_changes_total") == 2
    # Client ids begin at 1 again: a lane's former id is by now somebody else's.
    stats = await chat.broker.info("commandstats")
    assert "cmdstat_client|kill" not in stats


@redis_only
async def test_a_dead_nodes_groups_and_keys_are_removed_by_another(
    quick_node: NodeFactory, chat: Chat, broker: Broker
) -> None:
    doomed, other = await asyncio.gather(quick_node(), quick_node())
    member = await chat.join(doomed, "square")
    witness = await chat.join(other, "square")
    await member.say("hello")
    await witness.hears("hello")
    name = member.welcomes[0]["node"]
    await until(lambda: chat.groups("square"), "both have a group")
    assert await chat.groups("square") == {f"node:{node}".encode() for node in (name, witness.welcomes[0]["node"])}
    assert len([found async for found in chat.broker.scan_iter(f"hiroba:*:{name}")]) == 2  # once and probe
    await doomed.kill()

    async def gone() -> bool:
        return f"node:{name}".encode() not in await chat.groups("square")

    async def keyless() -> bool:
        return not [found async for found in chat.broker.scan_iter(f"hiroba:*:{name}")]

    await until(gone, "the dead node's group is gone")
    await until(keyless, "its keys are gone")
    assert await other.metric("hiroba_groups_swept_total") >= 1
    await witness.say("still here")
    await witness.hears("hello", "still here")
    assert await chat.broker.exists(key("square"))


@redis_only
async def test_a_node_that_ends_in_order_leaves_nothing_behind(quick_node: NodeFactory, chat: Chat) -> None:
    """No group, no name, no key; however often it gives a sign of life."""
    node, other = await asyncio.gather(quick_node(probe_s=0.1, heartbeat_s=0.02), quick_node())
    member, witness = await chat.join(node, "square"), await chat.join(other, "square")
    await member.say("hello")
    await witness.hears("hello")
    name = member.welcomes[0]["node"]
    assert await node.stop() == 0
    assert await chat.groups("square") == {f"node:{witness.welcomes[0]['node']}".encode()}
    assert await chat.broker.zrange("hiroba:nodes", 0, -1) == [witness.welcomes[0]["node"].encode()]
    assert [found async for found in chat.broker.scan_iter(f"hiroba:*:{name}")] == []
