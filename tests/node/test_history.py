"""History on joining, resume after an id, and what was lost in between: each entry once, or a gap that says so."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis.asyncio

from tests.conftest import NodeFactory
from tests.node.conftest import redis_only
from tests.support.broker import Broker
from tests.support.client import Client, Crowd
from tests.support.node import Node
from tests.support.until import until

SETTINGS = {"messages_per_s": 0, "linger_s": 0.1, "close_s": 0.5, "sweep_s": 0.3}


@pytest.fixture
def node(shared_node: Node) -> Node:
    return shared_node


@pytest.fixture
async def redis_client(house: tuple[Broker, Node]) -> AsyncIterator[redis.asyncio.Redis]:
    """The broker itself, to do to its logs what retention and accidents do."""
    async with house[0].client() as client:
        yield client


async def said(crowd: Crowd, node: Node, room: str, count: int) -> Client:
    """A room in which somebody said 0 … count - 1."""
    speaker = await crowd.join(node, room)
    for n in range(count):
        await speaker.say(n)
    await speaker.hears(*range(count))
    return speaker


async def log_of(client: redis.asyncio.Redis, room: str) -> bytes:
    keys: list[bytes] = [key async for key in client.scan_iter(match=f"hiroba:*:log:{room}", count=1000)]
    assert len(keys) == 1
    return keys[0]


async def all_leave(node: Node, *clients: Client) -> None:
    """Everybody left and the node forgot the room: what is read from now on comes from the log."""
    for client in clients:
        await client.leave()

    async def empty() -> bool:
        return await node.metric("hiroba_rooms") == 0

    await until(empty, "all rooms are closed")


@pytest.mark.parametrize("wire", ["plain", "v1"])
async def test_the_last_n_on_joining(crowd: Crowd, node: Node, wire: str) -> None:
    speaker = await said(crowd, node, f"last_{wire}", 10)
    for count, wanted in [(3, [7, 8, 9]), (10, range(10)), (1000, range(10)), (0, [])]:
        guest = await crowd.join(node, f"last_{wire}", wire, history=count)  # type: ignore[arg-type]
        await guest.hears(*wanted)
    await speaker.say("now")
    await guest.hears("now")


async def test_history_from_the_log_when_the_node_knows_nothing_of_it(crowd: Crowd, node: Node) -> None:
    speaker = await said(crowd, node, "cold", 250)
    await all_leave(node, speaker)
    guest = await crowd.join(node, "cold", history=230)
    await guest.hears(*range(20, 250))


async def test_history_of_a_silent_room_is_empty_and_what_follows_comes(crowd: Crowd, node: Node) -> None:
    guest = await crowd.join(node, "silent", history=50)
    await guest.say("first")
    await guest.hears("first")


async def test_resume_after_an_id(crowd: Crowd, node: Node) -> None:
    """From memory and from the log; `recovered` says that nothing is missing."""
    speaker = await said(crowd, node, "resume", 120)
    ids = speaker.ids
    guests = []
    for at in (0, 60, 118, 119):
        guest = await crowd.join(node, "resume", after=ids[at], history=1)  # after wins
        assert (await guest.welcome())["recovered"] is True
        await guest.hears(*range(at + 1, 120))
        assert guest.ids == ids[at + 1 :]
        guests.append(guest)
    await all_leave(node, speaker, *guests)
    guest = await crowd.join(node, "resume", after=ids[5])
    assert (await guest.welcome())["recovered"] is True
    await guest.hears(*range(6, 120))


async def test_resume_from_before_the_first_entry(crowd: Crowd, node: Node) -> None:
    """A client that joined while the room was silent has last_id 0-0, and resumes from it."""
    await said(crowd, node, "beginning", 5)
    guest = await crowd.join(node, "beginning", after="0-0")
    assert (await guest.welcome())["recovered"] is True
    await guest.hears(*range(5))


async def test_resume_on_plain_by_an_id_learned_elsewhere(crowd: Crowd, node: Node) -> None:
    speaker = await said(crowd, node, "plain_resume", 5)
    guest = await crowd.join(node, "plain_resume", "plain", after=speaker.ids[2])
    await guest.hears(3, 4)


@pytest.mark.parametrize("after", ["9999999999999-7", "nonsense", "-1-1", "1", ""])
async def test_an_id_that_this_log_never_gave_recovers_nothing(crowd: Crowd, node: Node, after: str) -> None:
    """v1 is told and goes on from now, or with the history it asked for; plain has no word for it: 4009."""
    room = f"never{len(after)}"
    speaker = await said(crowd, node, room, 5)
    guest = await crowd.join(node, room, after=after)
    assert (await guest.welcome())["recovered"] is False
    late = await crowd.join(node, room, after=after, history=2)
    assert (await late.welcome())["recovered"] is False
    await speaker.say("now")
    await guest.hears("now")
    await late.hears(3, 4, "now")
    old = await crowd.join(node, room, "plain", after=after)
    assert await old.closed() == (4009, "entries were lost for this reader")
    assert old.heard == []


@redis_only
async def test_resume_after_an_id_that_the_other_node_has_not_read_yet(start_node: NodeFactory, crowd: Crowd) -> None:
    """The session is ahead of that node: it gets nothing twice, and everything later."""
    one, two = await asyncio.gather(start_node(messages_per_s=0), start_node(messages_per_s=0))
    ann = await crowd.join(one, "r")
    witness = await crowd.join(two, "r")
    for n in range(20):
        await ann.say(n, ref=n)
        ack = await ann.answer(n)
        guest = await crowd.join(two, "r", after=ack["id"])
        assert (await guest.welcome())["recovered"] is True
        await ann.say(-n)
        await guest.hears(-n)
        await guest.leave()
    await witness.until(lambda: len(witness.messages) == 40, "all")
    assert [id.rpartition("-")[2] for id in witness.ids] == [str(n + 1) for n in range(40)]


async def test_a_gap_is_told_where_entries_were_lost(
    crowd: Crowd, node: Node, redis_client: redis.asyncio.Redis
) -> None:
    """Trimmed while away: v1 hears the two ids and the count and then the rest; plain is closed 4009."""
    speaker = await said(crowd, node, "trimmed", 20)
    ids = speaker.ids
    await all_leave(node, speaker)
    log = await log_of(redis_client, "trimmed")
    await redis_client.xtrim(log, minid=ids[12], approximate=False)
    guest = await crowd.join(node, "trimmed", after=ids[4])
    assert (await guest.welcome())["recovered"] is False
    await guest.hears(*range(12, 20))
    assert guest.heard[1] == {"type": "gap", "room": "trimmed", "after": ids[4], "before": ids[12], "lost": 7}
    unharmed = await crowd.join(node, "trimmed", after=ids[11])
    assert (await unharmed.welcome())["recovered"] is True
    await unharmed.hears(*range(12, 20))
    assert unharmed.of_type("gap") == []
    old = await crowd.join(node, "trimmed", "plain", after=ids[4])
    assert await old.closed() == (4009, "entries were lost for this reader")
    assert old.heard == []


async def test_a_hole_in_the_middle_of_the_log_is_told_between_its_neighbours(
    crowd: Crowd, node: Node, redis_client: redis.asyncio.Redis
) -> None:
    speaker = await said(crowd, node, "hole", 10)
    ids = speaker.ids
    await all_leave(node, speaker)
    await redis_client.xdel(await log_of(redis_client, "hole"), ids[4], ids[5])
    guest = await crowd.join(node, "hole", history=100)
    await guest.hears(0, 1, 2, 3, 6, 7, 8, 9)
    assert guest.heard[5] == {"type": "gap", "room": "hole", "after": ids[3], "before": ids[6], "lost": 2}
    # Who can't be told of it is not sent away either: the next attempt would end the same way.
    old = await crowd.join(node, "hole", "plain", history=100)
    await old.hears(0, 1, 2, 3, 6, 7, 8, 9)
    back = await crowd.join(node, "hole", "plain", after=ids[2])
    assert (await back.closed())[0] == 4009


async def test_an_entry_of_another_format_is_a_gap_of_one(
    crowd: Crowd, node: Node, redis_client: redis.asyncio.Redis
) -> None:
    """A newer node's entry, or a stranger's: live sessions are told, and go on."""
    speaker = await said(crowd, node, "format", 3)
    old = await crowd.join(node, "format", "plain")
    ms, _, n = speaker.ids[-1].rpartition("-")
    log = await log_of(redis_client, "format")
    await redis_client.xadd(log, {"v": "2", "x": "y"}, id=f"{ms}-{int(n) + 1}")
    await redis_client.execute_command("SPUBLISH", log, b"")
    await speaker.until(lambda: speaker.of_type("gap"), "the gap")
    assert speaker.of_type("gap") == [
        {"type": "gap", "room": "format", "after": speaker.ids[-1], "before": f"{ms}-{int(n) + 2}", "lost": 1}
    ]
    assert (await old.closed())[0] == 4009
    late = await crowd.join(node, "format", "plain", history=10)
    await speaker.say("on")
    await speaker.hears(0, 1, 2, "on")
    await late.hears(0, 1, 2, "on")
    assert speaker.ids[-1].endswith(f"-{int(n) + 2}")


async def test_a_log_that_vanished_under_its_readers_begins_again(
    crowd: Crowd, node: Node, redis_client: redis.asyncio.Redis
) -> None:
    """Expired or deleted: what is said afterwards comes, from 1 again; the live sessions had everything: no gap."""
    speaker = await said(crowd, node, "vanished", 5)
    await redis_client.delete(await log_of(redis_client, "vanished"))
    await speaker.say("anew")
    await speaker.hears(0, 1, 2, 3, 4, "anew")
    assert speaker.ids[-1].endswith("-1")
    assert speaker.of_type("gap") == []
    guest = await crowd.join(node, "vanished", history=10)
    await guest.until(lambda: "anew" in guest.messages, "the new log")


@redis_only
async def test_history_and_live_overlap(start_node: NodeFactory, crowd: Crowd) -> None:
    """Joined in mid-stream, with history or after an id: each entry once, in order, whatever side it came from."""
    one, two = await asyncio.gather(
        start_node(messages_per_s=0, tail_entries_max=30), start_node(messages_per_s=0, tail_entries_max=30)
    )
    speaker = await crowd.join(two, "r")
    count = 1500
    speaking = asyncio.create_task(_speak(speaker, count))
    guests: list[tuple[Client, int | None]] = []
    for turn in range(40):
        if turn % 2 and speaker.ids:
            after = speaker.ids[len(speaker.ids) // 2]
            guests.append((await crowd.join(one, "r", after=after), int(after.rpartition("-")[2])))
        else:
            guests.append((await crowd.join(one, "r", "v1" if turn % 4 else "plain", history=turn * 25), None))
        await asyncio.sleep(0.01)
    await speaking
    for guest, after_n in guests:
        await guest.until(lambda guest=guest: guest.messages and guest.messages[-1] == count - 1, "the last entry")
        first = guest.messages[0]
        assert guest.messages == list(range(first, count))
        if after_n is not None:  # entry n carries message n - 1
            assert first == after_n
        if guest.ws.protocol:
            assert guest.of_type("gap") == []


async def _speak(speaker: Client, count: int) -> None:
    for n in range(count):
        await speaker.say(n)
        if n % 5 == 0:
            await asyncio.sleep(0.002)
    await speaker.until(lambda: len(speaker.messages) == count, "its own messages")
