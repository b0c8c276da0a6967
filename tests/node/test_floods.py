"""Who sends too much, of whatever kind: it is read more slowly, costs nobody else anything, and is shot last of all."""

import asyncio
import json

import pytest

from tests.conftest import NodeFactory
from tests.node.conftest import redis_only
from tests.support.broker import Broker
from tests.support.client import Client, Crowd, WireName
from tests.support.node import Node
from tests.support.raw import BINARY, PING, PONG, TEXT, Raw, frame, frames_in
from tests.support.until import until

pytestmark = redis_only

# More than the kernels of both sides and one read of the node hold together: what is not read waits at the sender.
FLOOD_BYTES = 16_000_000
FLOODS = {
    "pings": frame(b"", PING),
    "pongs": frame(b"", PONG),
    "fragments": frame(b"", 0, fin=False),
    "texts": frame(b'{"message":1}'),
}


def flood(raw: Raw, kind: bytes) -> None:
    raw.write(kind * (FLOOD_BYTES // len(kind)))


async def chat(crowd: Crowd, node: Node, count: int = 20) -> None:
    """Another room goes on: a sequence comes whole, and in order."""
    ann, bob = await crowd.join(node, "other"), await crowd.join(node, "other")
    for n in range(count):
        await ann.say(n)
    await bob.hears(*range(count))


@pytest.mark.parametrize("kind", FLOODS)
async def test_every_kind_of_frame_takes_from_the_bucket(start_node: NodeFactory, crowd: Crowd, kind: str) -> None:
    """Frames that are no text were free: two megabytes of pings a second held every other room up for seconds."""
    node = await start_node()
    flooder = await crowd.member(node, "r")
    if kind == "fragments":
        flooder.write(frame(b"", TEXT, fin=False))
    flood(flooder, FLOODS[kind])
    before = await node.metric("hiroba_process_resident_bytes")

    async def slowed() -> bool:
        return await node.metric("hiroba_frames_slowed_total") >= 5

    await until(slowed, "the flooder is slowed down")
    await chat(crowd, node)
    assert flooder.transport.get_write_buffer_size() > FLOOD_BYTES // 4, "nobody reads it"
    assert await node.metric("hiroba_process_resident_bytes") - before < 6_000_000
    assert not flooder.over.done()


async def test_what_comes_behind_our_close_frame_is_dropped_unparsed(start_node: NodeFactory, crowd: Crowd) -> None:
    """The flooder hears why, nothing of what it says is served, and it counts until its socket is closed."""
    node = await start_node(close_s=2)
    flooder = await crowd.member(node, "r")
    flooder.write(frame(b"x", BINARY))
    flooder.transport.pause_reading()  # nor does it take notice of our FIN
    flood(flooder, frame(b'{"message":1}') + frame(b"", PING))
    await chat(crowd, node)
    assert await node.metric("hiroba_connections") == 3
    assert await node.metric("hiroba_closes_total", reason="binary") == 0, "it is not gone"
    flooder.transport.resume_reading()
    assert await flooder.closed() == (1003, "text frames only")
    await until(flooder.over.done, "it is cut off")

    async def counted() -> bool:
        return await node.metric("hiroba_closes_total", reason="binary") == 1

    await until(counted, "the close is counted")
    assert [opcode for opcode, _ in frames_in(flooder.data)].count(PONG) == 0
    assert await node.metric("hiroba_messages_received_total") == 20


async def test_a_read_of_pings_is_answered_by_one_pong(start_node: NodeFactory, crowd: Crowd) -> None:
    """RFC 6455 §5.5.3: the most recent one's is enough; else an answer as long as the flood goes out."""
    node = await start_node()
    raw = await crowd.member(node, "r")
    raw.write(b"".join(frame(b"%d" % n, PING) for n in range(30)))
    await until(lambda: list(frames_in(raw.data)), "a pong")
    await chat(crowd, node)
    pongs = [payload for opcode, payload in frames_in(raw.data) if opcode == PONG]
    assert pongs[-1] == b"29" and len(pongs) <= 2, "TCP may have cut them in two reads"


async def test_a_message_costs_what_it_inflates_to(start_node: NodeFactory, crowd: Crowd) -> None:
    """A hundred bytes of deflate data are 64 KB of everybody's publisher."""
    node = await start_node(messages_per_s=4, messages_burst=20)
    async with crowd.http.ws_connect(node.ws_url("r"), compress=15) as ws:
        assert ws.compress
        for _ in range(3):
            await ws.send_str(json.dumps({"message": "x" * 60_000}))

        async def slowed() -> bool:
            return await node.metric("hiroba_frames_slowed_total") >= 1

        await until(slowed, "the third has to wait: each counts as fifteen")
        assert await node.metric("hiroba_messages_received_total") == 2


# ---- slowed, not shot ----


@pytest.mark.parametrize("wire", ["plain", "v1"])
async def test_a_pile_of_messages_sent_at_once_all_arrives(
    start_node: NodeFactory, crowd: Crowd, wire: WireName
) -> None:
    """A queue kept while offline: more than the burst, and it takes longer than flood_s."""
    node = await start_node(messages_per_s=50, messages_burst=10, flood_s=0.2)
    old, witness = await crowd.join(node, "r", wire), await crowd.join(node, "r")
    await asyncio.gather(*(old.say(n) for n in range(100)))
    await witness.hears(*range(100))
    assert old.close_code is None
    assert await node.metric("hiroba_frames_slowed_total") > 0
    await old.leave()


async def at_15_a_second(client: Client) -> list[int]:
    """Two seconds' worth, three quarters of the rate."""
    for n in range(30):
        await client.say(n)
        await asyncio.sleep(1 / 15)
    return list(range(30))


async def test_what_piled_up_while_the_broker_stood_still_is_no_excess(
    broker: Broker, start_node: NodeFactory, crowd: Crowd
) -> None:
    """Its window was full and nobody read it. It was closed 1008 when all went on."""
    node = await start_node(messages_burst=5, publish_window=4, publish_timeout_s=60, probe_s=60)
    steady = await crowd.join(node, "r")
    broker.pause()
    said = await at_15_a_second(steady)
    broker.cont()
    await steady.hears(*said)
    assert await node.metric("hiroba_frames_slowed_total") == 0


async def test_what_piled_up_while_the_node_stood_still_is_no_excess(start_node: NodeFactory, crowd: Crowd) -> None:
    node = await start_node(messages_burst=5)
    steady = await crowd.join(node, "r")
    node.pause()
    said = await at_15_a_second(steady)
    node.cont()
    await steady.hears(*said)
    assert await node.metric("hiroba_frames_slowed_total") == 0


async def test_who_keeps_on_far_above_the_rate_is_sent_away_in_the_end(start_node: NodeFactory, crowd: Crowd) -> None:
    node = await start_node(flood_s=1, close_s=0.5)
    flooder, steady = await crowd.member(node, "r"), await crowd.join(node, "r")
    flood(flooder, FLOODS["texts"])
    assert await flooder.closed() == (1008, "far above messages_per_s for longer than flood_s")
    await until(flooder.over.done, "it is cut off")
    await steady.say("still here")
    await steady.until(lambda: "still here" in steady.messages, "the others go on")
    assert await node.metric("hiroba_closes_total", reason="rate") == 1


async def test_who_sent_a_pile_once_does_not_keep_on(start_node: NodeFactory, crowd: Crowd) -> None:
    """It is slowed down for far longer than flood_s, and less than 16 KiB wait to be read: it is served to the end."""
    node = await start_node(flood_s=0.1)
    raw = await crowd.member(node, "r")
    pile = frame(b"", PING) * 3_000
    raw.write(pile)  # 18 KB: the first read of it is full

    async def slowed() -> bool:
        return await node.metric("hiroba_frames_slowed_total") >= 20

    await until(slowed, "it is slowed down for a second")
    assert raw.close_frame() is None and not raw.over.done()


async def test_who_is_slowed_down_and_gone_costs_no_task(start_node: NodeFactory, crowd: Crowd) -> None:
    """Its task slept on until its rate allowed the next frame, of a socket that was closed."""
    node = await start_node(messages_per_s=0.01, messages_burst=2)

    async def tasks() -> float:
        return await node.metric("hiroba_tasks")

    speaker, gone = await crowd.join(node, "r"), [await crowd.member(node, "r") for _ in range(3)]
    before = await tasks()
    for raw in gone:
        raw.write(frame(b"", PING) * 5)

    async def held() -> bool:
        return await tasks() >= before + len(gone)

    await until(held, "their pings wait")
    for raw in gone:
        raw.reset()
    await speaker.say("who is there?")  # a socket that is not read hears of its end when it is written to
    await speaker.say("nobody")

    async def as_before() -> bool:
        return await tasks() <= before

    await until(as_before, "their tasks are gone")
    assert await node.metric("hiroba_connections") == 1


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_who_is_held_and_gone_is_missed_soon_in_a_silent_room_too(
    start_node: NodeFactory, crowd: Crowd, how: str
) -> None:
    """Nobody reads its socket, nobody writes to it: it counted until its rate had let all that it said through."""
    node = await start_node(messages_per_s=0.001, messages_burst=2, ping_s=1)
    raw = await crowd.member(node, "r")
    raw.write(frame(b"", PING) * 5)

    async def held() -> bool:
        return await node.metric("hiroba_frames_slowed_total") >= 1

    await until(held, "its pings wait")
    if how == "reset":
        raw.reset()
    else:
        raw.transport.close()

    async def missed() -> bool:
        return await node.metric("hiroba_connections") == 0

    await until(missed, "its connection is over")


async def test_who_is_held_and_says_no_more_is_still_served(start_node: NodeFactory, crowd: Crowd) -> None:
    """It closed its half and reads on: all that it said is served, however long that takes."""
    node = await start_node(messages_per_s=2, messages_burst=2, ping_s=1)
    other, raw = await crowd.join(node, "r"), await crowd.member(node, "r")
    raw.write(b"".join(frame(b'{"message":%d}' % n) for n in range(8)))
    raw.transport.write_eof()
    await other.hears(*range(8))


async def test_bad_messages_count_as_messages(start_node: NodeFactory, crowd: Crowd) -> None:
    """Otherwise errors would be an amplifier without a limit."""
    node = await start_node(messages_per_s=1, messages_burst=5)
    client = await crowd.join(node, "r")
    for _ in range(200):
        await client.send("{")
    await client.until(lambda: len(client.of_type("error")) >= 5, "the burst")
    await chat(crowd, node, 5)
    assert len(client.of_type("error")) < 100
