"""Two clients chat over two nodes through Redis Streams: the reason for everything else."""

import asyncio

from tests.conftest import NodeFactory
from tests.node.conftest import redis_only
from tests.support.broker import Broker
from tests.support.client import Crowd, WireName
from tests.support.node import Node
from tests.support.until import until

WIRES_IN: dict[str, WireName] = {"部屋": "plain", "第二部屋": "v1"}


async def test_two_clients_chat_over_two_nodes(start_node: NodeFactory, crowd: Crowd) -> None:
    """部屋 included; the sender hears itself by the same road, and both hear the same order."""
    one, two = await asyncio.gather(start_node(), start_node())
    for room, wire in WIRES_IN.items():
        ann, bob = await crowd.join(one, room, wire), await crowd.join(two, room, wire)
        await ann.say("こんにちは")
        await bob.hears("こんにちは")
        await bob.say("hello, Ann")
        await ann.hears("こんにちは", "hello, Ann")
        await bob.hears("こんにちは", "hello, Ann")


async def test_the_wires_meet_in_one_room(shared_node: Node, crowd: Crowd) -> None:
    """Each hears the other in its own words; nothing but messages ever reaches plain."""
    old, new = await crowd.join(shared_node, "both", "plain"), await crowd.join(shared_node, "both", "v1")
    await old.say({"any": ["JSON", 1.5, None]})
    await new.hears({"any": ["JSON", 1.5, None]})
    await new.say("", ref="r1")
    ack = await new.answer("r1")
    await old.hears({"any": ["JSON", 1.5, None]}, "")
    assert [frame.keys() for frame in old.heard] == [{"message"}, {"message"}]
    assert ack == {"type": "ack", "ref": "r1", "room": "both", "id": new.ids[1]}


async def test_rooms_do_not_hear_each_other(shared_node: Node, crowd: Crowd) -> None:
    node = shared_node
    here, there = await crowd.join(node, "here"), await crowd.join(node, "there")
    await here.say("only here")
    await here.hears("only here")
    await there.say("only there")
    await there.hears("only there")
    assert here.messages == ["only here"]


async def test_a_name_in_two_spellings_is_one_room(shared_node: Node, crowd: Crowd) -> None:
    node = shared_node
    composed, combining = await crowd.join(node, "が"), await crowd.join(node, "か\u3099")
    await composed.say("same")
    await combining.hears("same")


async def test_a_message_is_passed_on_byte_for_byte(shared_node: Node, crowd: Crowd) -> None:
    """Big numbers, repeated keys, spaces: the node does not rewrite what it does not need to understand."""
    node = shared_node
    ann = await crowd.join(node, "r", "plain")
    texts: list[str] = []
    said = '{"n": 12345678901234567890, "k":1, "k":2, "e": 1E400, "s": "\\u0041\\ud83d\\ude00"}'
    async with crowd.http.ws_connect(node.ws_url("r")) as listener:
        await ann.send(f'{{"message": {said}, "ignored": true}}')
        texts.append((await listener.receive()).data)
    assert texts == [f'{{"message":{said}}}']


async def test_an_entry_in_the_log_is_what_the_docs_say(
    house: tuple[Broker, Node], shared_node: Node, crowd: Crowd
) -> None:
    """Other tools read the log: dense ids, the broker's clock, the message as it was sent."""
    node = shared_node
    ann = await crowd.join(node, "demo")
    for n in range(3):
        await ann.say(n)
    await ann.hears(0, 1, 2)
    async with house[0].client() as client:
        keys = [key async for key in client.scan_iter(match="hiroba:*:log:demo")]
        assert len(keys) == 1
        entries = await client.xrange(keys[0])
        assert [id.decode() for id, _ in entries] == ann.ids
        assert [id.rpartition("-")[2] for id in ann.ids] == ["1", "2", "3"]
        assert [fields[b"m"] for _, fields in entries] == [b"0", b"1", b"2"]
        now_ms = (await client.time())[0] * 1000
        assert abs(now_ms - ann.heard[1]["at"]) < 60_000


async def closed(node: Node) -> bool:
    return await node.metric("hiroba_rooms") == 0


@redis_only
async def test_join_leave_and_join_again_while_others_publish(start_node: NodeFactory, crowd: Crowd) -> None:
    """Nothing appended after the 101 is missed, and nothing comes twice; whoever publishes sits on another node."""
    one, two = await asyncio.gather(start_node(linger_s=0.05), start_node(messages_per_s=0))
    speaker = await crowd.join(two, "r")
    said = 0

    async def speak() -> None:
        nonlocal said
        while True:
            await speaker.say(said)
            said += 1
            await asyncio.sleep(0.002)

    speaking = asyncio.create_task(speak())
    for turn in range(30):
        guest = await crowd.join(one, "r", "plain" if turn % 2 else "v1")
        after_101 = said
        await guest.until(lambda guest=guest: len(guest.messages) >= 5, "five messages")
        first = guest.messages[0]
        assert first <= after_101, "what was said after the 101 was missed"
        assert guest.messages == list(range(first, first + len(guest.messages)))
        await guest.leave()
        if turn % 3 == 0:  # the room closes on that node and opens anew
            await until(lambda: closed(one), "the room closed")
    speaking.cancel()
