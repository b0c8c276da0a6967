"""What a log keeps: seconds first, never fewer than the minimum, never more than the caps; and its own end."""

import pytest

from tests.cluster.chat import Chat, Heard, Id, Member, key
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


async def clock_ms(chat: Chat) -> int:
    seconds, micro = await chat.broker.time()
    return int(seconds * 1000 + micro // 1000)


async def test_a_clock_that_was_ahead_holds_up_neither_retention_nor_the_time_of_day(
    quick_node: NodeFactory, chat: Chat
) -> None:
    """A day ahead for 6 s, and for that day nothing got old and all was said tomorrow: ids cannot go back."""
    day_ms, keep = 86_400_000, 5
    node = await quick_node(retention_s=1, retention_entries_min=keep)
    member = await chat.join(node, ROOM)
    await burst(member, "before", 20)
    ahead_ms = await clock_ms(chat) + day_ms
    for n in range(21, 61):  # what publish.lua wrote while the clock was ahead: nobody can turn a server's clock here
        entry = {"v": "1", "b": str(n * 10), "f": "s", "u": "", "m": '"ahead"'}
        await chat.broker.xadd(key(ROOM), entry, id=f"{ahead_ms + min(n, 58)}-{n}")
    await burst(member, "back", 100)
    await until(lambda: len(member.messages) == 160, "all is heard")
    back = [entry for entry in member.heard if isinstance(entry, Heard) and entry.message.startswith("back")]
    assert [entry.id for entry in back] == [Id(ahead_ms + 58, n) for n in range(61, 161)], "ascending, and dense"
    now_ms = await clock_ms(chat)
    assert all(now_ms - 60_000 < at <= now_ms for at in member.ats[-100:]), "not tomorrow"
    assert len(await chat.log(ROOM)) >= 100, "nothing young is trimmed"

    async def aged() -> bool:
        return await clock_ms(chat) > now_ms + 2000

    await until(aged, "all are older than retention_s")
    await burst(member, "new", 2 * LOOK)
    log = await chat.log(ROOM)
    assert len(log) <= 2 * LOOK + RADIX, "what is old is gone"
    assert [entry.id.n for entry in log] == list(range(193 - len(log), 193))
    assert not member.gaps


async def test_a_server_that_cannot_trim_is_told_of(quick_node: NodeFactory, chat: Chat, broker: Broker) -> None:
    """stream-node-max-* of 0: XTRIM cuts whole nodes, and all of a log is one. The caps did not hold, in silence."""
    await chat.broker.config_set("stream-node-max-entries", 0)
    await chat.broker.config_set("stream-node-max-bytes", 0)
    node = await quick_node(retention_entries_min=1, retention_entries_max=50)
    member = await chat.join(node, ROOM)
    await burst(member, "many", 500)
    assert await node.metric("hiroba_trims_in_vain_total") >= 1
    (line,) = [line for line in node.lines() if "cannot be trimmed" in line]
    assert "stream-node-max-entries" in line and "hiroba broker apply" in line


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


async def test_the_minimum_of_entries_has_a_bound_in_bytes(quick_node: NodeFactory, chat: Chat) -> None:
    """A hundred of the largest messages are 6.4 MB: what age may not remove must not fill the broker for ever."""
    cap, size = 40_000, 4_000
    node = await quick_node(retention_s=1, retention_entries_min=100, retention_bytes_min=cap)
    member = await chat.join(node, ROOM)
    await burst(member, "large", 64, size)
    young = await chat.log(ROOM)

    async def aged() -> bool:
        seconds, _ = await chat.broker.time()
        return seconds * 1000 > young[-1].id.ms + 2000

    await until(aged, "all are older than retention_s")
    await burst(member, "small", LOOK)
    log = await chat.log(ROOM)
    assert sum(len(entry.message) for entry in log) <= cap + RADIX * size
    assert [entry.id.n for entry in log] == list(range(81 - len(log), 81)), "the newest stay, in one piece"
