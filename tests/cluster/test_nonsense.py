"""What nobody of ours ever wrote into the broker: contained where it lies, counted, said once, and nobody else hurt."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from tests.cluster.chat import Chat, chat_on, key, say
from tests.cluster.conftest import Stage
from tests.support.until import until


@pytest.fixture
async def chat(stage: Stage) -> AsyncIterator[Chat]:
    async with stage.broker.client() as client, chat_on(client) as everybody:
        yield everybody


BELLS = [b"", b"!", b"nonsense", b"!x-y", b"\xff-1", b"1" * 25 + b"-1", b"!7", b"-", b"1-2-3", b"!" * 70_000, b"0-0"]


async def test_a_nonsense_bell_is_counted_said_once_and_rings_all_the_same(stage: Stage, chat: Chat, room: str) -> None:
    """Whoever may publish on the channel could end every node that has the room open."""
    members = [await chat.join(node, room) for node in stage.nodes]
    await say(members[0], "one")
    for bell in BELLS:
        await chat.broker.execute_command("SPUBLISH", key(room), bell)
    for node, member in zip(stage.nodes, members, strict=True):
        await stage.counted(node, "hiroba_broker_nonsense_total", len(BELLS) - 2, what="bell")
        await say(members[1], f"still here {member.room} {node.port}")
        await member.hears(f"still here {member.room} {node.port}")
        said = [line for line in map(json.loads, node.lines()) if line.get("what") == "bell"]
        assert len(said) == 1 and said[0]["event"] == "nonsense on the broker" and len(json.dumps(said[0])) < 500
        assert not any("Traceback" in line for line in node.lines())
        assert not member.gaps


@pytest.mark.parametrize("id", ["1234567890123456789-*", "1000000000000000000-*", "18446744073709551615-2"])
async def test_an_id_far_above_any_clock_costs_only_its_place(stage: Stage, chat: Chat, room: str, id: str) -> None:
    """A stranger's XADD. Redis takes 64 bits for each half; the room goes on above it."""
    here, there = stage.nodes
    speaker, witness = await chat.join(here, room), await chat.join(there, room)
    await say(speaker, "one")
    await witness.hears("one")
    await chat.broker.xadd(key(room), {"hello": "world"}, id=id)
    await say(speaker, "two")
    for member in (speaker, witness):
        await member.hears("one", "two")
        assert len(member.gaps) == 1
    late = await chat.join(there, room, history=10)
    await late.hears("one", "two")
    resumed = await chat.join(here, room, after=speaker.heard[0].id)  # type: ignore[union-attr]  # a message came first
    await resumed.hears("two")
    for node in stage.nodes:  # the sweep has looked at it
        reads = await node.metric("hiroba_reads_total")

        async def swept(node: object = node, reads: float = reads) -> bool:
            return await node.metric("hiroba_reads_total") > reads + 3  # type: ignore[attr-defined]

        await until(swept, "the sweep came by")
        assert await node.is_ready()


async def test_a_key_of_another_kind_in_a_rooms_place_is_that_rooms_trouble(
    stage: Stage, chat: Chat, room: str
) -> None:
    node, _ = stage.nodes
    broken, other = await chat.join(node, room), await chat.join(node, f"{room}_other")
    await say(broken, "one")
    await chat.broker.set(key(room), "not a log")
    for n in range(20):
        await chat.broker.execute_command("SPUBLISH", key(room), b"")
        await say(other, f"{n}")
    await other.hears("19")
    await broken.say("two")
    await until(lambda: broken.answered("two"), "it is answered")
    assert broken.errors == {"two": "refused"}
    await chat.broker.delete(key(room))
    await say(broken, "three")
    await broken.hears("one", "three")
    lines = [line for line in node.lines() if "WRONGTYPE" in line]
    assert len(lines) <= 2, "one for the reads, one for the publish"


async def test_a_name_that_is_none_among_the_nodes_is_passed_over(stage: Stage, chat: Chat, room: str) -> None:
    """ZADD hiroba:nodes: the heartbeat reads them all."""
    seconds, _ = await chat.broker.time()
    dead = {b"\xff\xfe", b"x" * 100_000}
    await chat.broker.zadd("hiroba:nodes", dict.fromkeys(dead, 1) | {b"\xfe": seconds * 1000})
    member = await chat.join(stage.nodes[0], room)

    async def buried() -> bool:
        return not dead & set(await chat.broker.zrange("hiroba:nodes", 0, -1))

    await until(buried, "they were taken for dead like any node")
    await say(member, "still here")
    await asyncio.gather(*(node.wait_ready() for node in stage.nodes))
