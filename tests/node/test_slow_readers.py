"""A client that does not read falls behind alone: the room goes on, the node does not grow, nothing is skipped."""

import asyncio
import json

from tests.conftest import NodeFactory
from tests.node.conftest import redis_only
from tests.support.client import Client, Crowd
from tests.support.node import Node
from tests.support.raw import Raw, frame
from tests.support.until import until

pytestmark = redis_only

# One message. Forty of them are more than loopback's buffers and the outgoing bound hold together.
SIZE = 60_000


async def deaf(crowd: Crowd, node: Node, room: str, *, v1: bool = False) -> Raw:
    """In the room, with a small receive buffer that nobody empties."""
    raw = await crowd.connect(node, receive_bytes=4096)
    await raw.enter(room, v1=v1)
    raw.transport.pause_reading()
    return raw


async def flood(speaker: Client, first: int, count: int) -> None:
    """At the pace of the reader that is the speaker itself."""
    for n in range(first, first + count):
        await speaker.say(f"{n} " + "x" * SIZE)
        await speaker.until(lambda n=n: len(speaker.messages) > n - 4, "the room goes on")
    await speaker.until(lambda: len(speaker.messages) == first + count, "the room goes on")


def numbers(raw: Raw) -> list[int]:
    """Of the flood's messages that came so far."""
    heard = [json.loads(payload) for payload in raw.payloads()]
    return [int(frame["message"].partition(" ")[0]) for frame in heard if "message" in frame]


async def test_a_stalled_session_falls_behind_and_gets_everything_when_it_reads_again(
    start_node: NodeFactory, crowd: Crowd
) -> None:
    """Five of seven stall over 12 MB; the node keeps its tail for all together, and nothing per session."""
    node = await start_node(messages_per_s=0, tail_bytes_max=1_000_000)
    speaker, listener = await crowd.join(node, "r"), await crowd.join(node, "r", "plain")
    stalled = [await deaf(crowd, node, "r", v1=n % 2 == 0) for n in range(5)]
    await flood(speaker, 0, 40)

    async def all_behind() -> bool:
        return await node.metric("hiroba_sessions_behind") == 5

    await until(all_behind, "five sessions are behind")
    before = await node.metric("hiroba_process_resident_bytes")
    await flood(speaker, 40, 160)
    await listener.until(lambda: len(listener.messages) == 200, "the others")
    grown = await node.metric("hiroba_process_resident_bytes") - before
    assert grown < 5 * 131_072 + 5_000_000, "9.6 MB were said, to each of five"
    assert await all_behind()
    assert await node.metric("hiroba_sessions_live") == 2
    for raw in stalled:
        raw.transport.resume_reading()
    for raw in stalled:
        await until(lambda raw=raw: len(numbers(raw)) == 200, "all of it", every_s=0.2)
        assert numbers(raw) == list(range(200))
        assert raw.close_frame() is None

    async def all_live() -> bool:
        return await node.metric("hiroba_sessions_live") == 7

    await until(all_live, "they are live again")
    await flood(speaker, 200, 1)
    await until(lambda: numbers(stalled[0])[-1] == 200, "live messages again")


async def test_who_never_reads_is_closed_4008(start_node: NodeFactory, crowd: Crowd) -> None:
    """The close frame waits in the same full socket: it is found there by who reads at last."""
    node = await start_node(messages_per_s=0, stall_s=1, ping_s=2, close_s=20)
    speaker = await crowd.join(node, "r")
    stalled = [await deaf(crowd, node, "r"), await deaf(crowd, node, "r", v1=True)]
    await flood(speaker, 0, 40)

    async def closed() -> bool:
        return await node.metric("hiroba_sessions_behind") == 0

    await until(closed, "the stalled sessions left the room")
    for raw in stalled:
        raw.transport.resume_reading()
        assert await raw.closed() == (4008, "no progress for stall_s: the client reads too slowly")
        got = numbers(raw)
        assert got == list(range(len(got))), "what came before the close came in order"

    async def gone() -> bool:
        return await node.metric("hiroba_connections") == 1

    for raw in stalled:
        raw.transport.close()
    await until(gone, "only the speaker is left")
    assert await node.metric("hiroba_closes_total", reason="slow") == 2


async def test_who_never_reads_and_never_answers_is_cut_off_after_close_s(
    start_node: NodeFactory, crowd: Crowd
) -> None:
    node = await start_node(messages_per_s=0, stall_s=0.5, ping_s=2, close_s=0.5)
    speaker = await crowd.join(node, "r")
    raw = await deaf(crowd, node, "r")
    await flood(speaker, 0, 40)

    async def gone() -> bool:
        return await node.metric("hiroba_connections") == 1

    await until(gone, "the connection was cut")
    raw.transport.resume_reading()
    await until(raw.over.done, "and the client knows")


async def test_a_slow_but_steady_reader_is_never_closed(start_node: NodeFactory, crowd: Crowd) -> None:
    """Progress is what counts, not speed: it takes far longer than stall_s and gets everything."""
    node = await start_node(messages_per_s=0, stall_s=1, ping_s=2)
    speaker = await crowd.join(node, "r")
    raw = await deaf(crowd, node, "r")
    await flood(speaker, 0, 60)
    began = asyncio.get_running_loop().time()
    while len(numbers(raw)) < 60:
        assert not raw.over.done()
        assert raw.close_frame() is None
        had = len(raw.data)
        raw.transport.resume_reading()
        await until(lambda had=had: len(raw.data) > had, "progress")
        raw.transport.pause_reading()
        if asyncio.get_running_loop().time() - began < 3:
            await asyncio.sleep(0.3)
    assert numbers(raw) == list(range(60))


async def test_a_reader_that_falls_off_the_end_of_the_log_is_told(start_node: NodeFactory, crowd: Crowd) -> None:
    """The log keeps 1 MB and the node's tail less: v1 hears where the hole is, plain is closed 4009."""
    node = await start_node(
        messages_per_s=0, tail_bytes_max=100_000, retention_bytes_max=1_000_000, retention_entries_min=0, close_s=0.5
    )
    speaker = await crowd.join(node, "r")
    told, closed = await deaf(crowd, node, "r", v1=True), await deaf(crowd, node, "r")
    await flood(speaker, 0, 200)
    told.transport.resume_reading()
    await until(lambda: numbers(told)[-1:] == [199], "the end of the log", every_s=0.1)
    heard = [json.loads(payload) for payload in told.payloads()][1:]
    gaps = [at for at, item in enumerate(heard) if item["type"] == "gap"]
    assert gaps
    for at in gaps:
        before, gap, following = heard[at - 1], heard[at], heard[at + 1]
        assert gap["before"] == following["id"]
        last, lost_from, following_n = (
            int(id.rpartition("-")[2]) for id in (before["id"], gap["after"], gap["before"])
        )
        assert last == lost_from
        assert gap["lost"] == following_n - last - 1
    got = numbers(told)
    assert len(got) + sum(heard[at]["lost"] for at in gaps) == 200
    assert got == sorted(set(got))
    closed.transport.resume_reading()
    assert await closed.closed() == (4009, "entries were lost for this reader")
    assert numbers(closed) == list(range(len(numbers(closed)))), "up to the gap it had everything"


async def test_who_sends_and_never_reads_its_acks_does_not_pile_them_up(start_node: NodeFactory, crowd: Crowd) -> None:
    node = await start_node(messages_per_s=0, stall_s=1, ping_s=2, close_s=0.5)
    raw = await deaf(crowd, node, "r", v1=True)
    before = await node.metric("hiroba_process_resident_bytes")
    ping = frame(b'{"type":"ping","ref":"%b"}' % (b"x" * 64)) * 1000
    for _ in range(80):  # 8 MB, and as much in answers
        raw.write(ping)

    async def closed() -> bool:
        return await node.metric("hiroba_closes_total", reason="slow") == 1

    await until(closed, "closed, for it takes nothing")
    assert await node.metric("hiroba_process_resident_bytes") - before < 6_000_000
