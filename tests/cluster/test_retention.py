"""What a log keeps: seconds first, never fewer than the minimum, never more than the caps; and its own end."""

import pytest

from tests.cluster.chat import Chat, Member, key
from tests.cluster.conftest import QUICK, redis_only
from tests.conftest import BrokerFactory, NodeFactory
from tests.support.broker import Broker
from tests.support.until import until

ROOM = "square"
# publish.lua looks at a log once in 16 entries, and XTRIM ~ cuts whole radix nodes, of 10 entries here.
LOOK, RADIX = 16, 10


@pytest.fixture(params=["redis", "valkey"])
async def broker(start_broker: BrokerFactory, request: pytest.FixtureRequest) -> Broker:
    return await start_broker(kind=request.param, directives=(f"stream-node-max-entries {RADIX}",))


async def burst(member: Member, name: str, count: int, size: int = 1) -> None:
    """Says so many at once, and waits until all are acknowledged."""
    refs = [f"{name}-{number}" for number in range(count)]
    for ref in refs:
        await member.say(ref.ljust(size, "."), ref)
    await until(lambda: member.acks.keys() >= set(refs), f"{count} are acknowledged")


async def test_old_entries_go_but_the_newest_of_them_stay(quick_node: NodeFactory, chat: Chat) -> None:
    keep = 30
    node = await quick_node(retention_s=1, retention_entries_min=keep)
    member = await chat.join(node, ROOM)
    await burst(member, "old", 200)
    young = await chat.log(ROOM)
    assert len(young) == 200, "nothing young is trimmed"

    async def aged() -> bool:
        seconds, _ = await chat.broker.time()
        return seconds * 1000 > young[-1].id.ms + 2000

    await until(aged, "all are older than retention_s")
    await burst(member, "new", LOOK)
    log = await chat.log(ROOM)
    assert keep <= len(log) <= keep + LOOK + RADIX
    assert [entry.id.n for entry in log] == list(range(217 - len(log), 217)), "the newest stay, in one piece"
    assert not member.gaps, "who had read them lost nothing"


async def test_the_entries_of_a_room_are_capped(quick_node: NodeFactory, chat: Chat) -> None:
    cap = 50
    node = await quick_node(retention_entries_min=10, retention_entries_max=cap)
    member = await chat.join(node, ROOM)
    await burst(member, "young", 400)
    assert cap <= len(await chat.log(ROOM)) <= cap + LOOK + RADIX


async def test_the_bytes_of_a_room_are_capped(quick_node: NodeFactory, chat: Chat) -> None:
    """The minimum of entries does not stand against it: one loud room must not fill the broker."""
    cap, size = 40_000, 1_000
    node = await quick_node(message_bytes_max=4_000, retention_bytes_max=cap, retention_entries_min=100)
    member = await chat.join(node, ROOM)
    await burst(member, "loud", 300, size)
    held = sum(len(entry.message) for entry in await chat.log(ROOM))
    assert cap // 2 <= held <= cap + (LOOK + RADIX) * size


@redis_only
async def test_a_room_lives_while_somebody_sits_in_it_and_goes_when_nobody_does(
    quick_node: NodeFactory, chat: Chat
) -> None:
    node = await quick_node(retention_s=1, room_idle_s=2, sweep_s=QUICK["sweep_s"])
    member = await chat.join(node, ROOM)
    await member.say("hello")
    await member.hears("hello")
    first = (await chat.log(ROOM))[0].id

    async def long_after() -> bool:
        assert await chat.broker.pttl(key(ROOM)) > 0, "it expires, and not while somebody sits there"
        seconds, _ = await chat.broker.time()
        return seconds * 1000 > first.ms + 5_000

    await until(long_after, "twice its idle time is over")
    late = await chat.join(node, ROOM, history=1)
    await late.hears("hello")
    await member.leave()
    await late.leave()

    async def gone() -> bool:
        return not await chat.broker.exists(key(ROOM))

    await until(gone, "the room is gone")
