"""What can befall the broker's data and connections: healed, counted, and told exactly where something was lost."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.cluster.chat import GAP_CLOSE, Chat, Heard, Id, Talker, balanced, chat_on, key, say
from tests.cluster.conftest import Stage
from tests.support.until import until


@pytest.fixture
async def chat(stage: Stage) -> AsyncIterator[Chat]:
    async with stage.broker.client() as client, chat_on(client) as everybody:
        yield everybody


def acknowledged(*talkers: Talker) -> list[Heard]:
    """All that these talkers got an id for, in the order in which it was appended."""
    acks = [Heard(id, ref) for talker in talkers for ref, id in talker.member.acks.items()]
    first = {entry.id.ms for entry in acks if entry.id.n == 1}

    def order(entry: Heard) -> tuple[int, bool, int]:
        """Where one log ended and the next began within a ms, high counts come before low ones."""
        ms, n = entry.id
        return ms, ms in first and n <= len(talkers), n

    return sorted(acks, key=order)


# ---- the log is gone ----


async def test_a_flush_under_traffic_is_healed_and_each_member_is_told_exactly_what_it_lost(
    stage: Stage, chat: Chat, room: str
) -> None:
    members = [await chat.join(node, room) for node in stage.nodes]
    talkers = [chat.talk(await chat.join(node, room), name) for node, name in zip(stage.nodes, "ab", strict=True)]
    for _ in range(5):
        await asyncio.gather(*(talker.more(10) for talker in talkers))
        await chat.broker.flushall()
    await asyncio.gather(*(talker.more(10) for talker in talkers))
    await chat.quiet()
    for talker in talkers:
        assert not talker.member.errors
    ever = acknowledged(*talkers)
    for member in members + [talker.member for talker in talkers]:
        await balanced(member, ever)
    for node in stage.nodes:
        await stage.counted(node, "hiroba_groups_healed_total")
        assert await node.is_ready()


@pytest.mark.parametrize("vanish", ["FLUSHALL", "DEL"])
async def test_entries_that_vanish_before_a_node_reads_them_are_told_as_a_gap_there_and_nowhere_else(
    stage: Stage, chat: Chat, room: str, vanish: str
) -> None:
    here, paused = stage.nodes
    speaker, witness = await chat.join(here, room), await chat.join(paused, room)
    plain_here, plain_there = await chat.join(here, room, "plain"), await chat.join(paused, room, "plain")
    ever = await say(speaker, "both hear this")
    await balanced(witness, ever)
    paused.pause()
    lost = [f"lost {n}" for n in range(7)]
    ever += await say(speaker, *lost)
    await plain_here.hears("both hear this", *lost)
    await balanced(speaker, ever)
    await (chat.broker.flushall() if vanish == "FLUSHALL" else chat.broker.delete(key(room)))
    ever += await say(speaker, "after it")
    paused.cont()
    await balanced(witness, ever)
    await balanced(speaker, ever)
    assert [gap.lost for gap in witness.gaps] == [7] and not speaker.gaps
    assert await plain_there.closed() == GAP_CLOSE
    await plain_here.hears("both hear this", *lost, "after it")
    await stage.counted(paused, "hiroba_gaps_total")
    assert await stage.grown(here, "hiroba_gaps_total") == 0


async def test_a_log_that_vanishes_after_all_have_read_it_is_no_gap(stage: Stage, chat: Chat, room: str) -> None:
    """As when it expired. The room counts from 1 again."""
    members = [await chat.join(node, room) for node in stage.nodes]
    plain = await chat.join(stage.nodes[1], room, "plain")
    ever: list[Heard] = []
    for turn in range(3):
        ever += await say(members[0], f"one {turn}", f"two {turn}")
        await plain.hears(f"one {turn}", f"two {turn}")
        for member in members:
            await balanced(member, ever)
        await chat.broker.delete(key(room))
    assert [entry.id.n for entry in ever] == [1, 2] * 3
    for member in members:
        assert not member.gaps
    assert plain.connected


async def test_a_resume_into_a_log_that_began_again_is_told(stage: Stage, chat: Chat, room: str) -> None:
    """Nobody who was away can know what the old log still got."""
    node, other = stage.nodes
    speaker, leaver = await chat.join(node, room), await chat.join(node, room)
    ever = await say(speaker, "one", "two")
    await balanced(leaver, ever)
    await leaver.leave()
    ever += await say(speaker, "three")
    await chat.broker.delete(key(room))
    ever += await say(speaker, "four")
    await balanced(speaker, ever)
    await leaver.resume(other)
    assert not leaver.welcomes[-1]["recovered"]
    plain = await chat.join(other, room, "plain", after=ever[0].id)
    assert await plain.closed() == GAP_CLOSE


async def test_a_log_trimmed_under_a_paused_node_is_a_gap_for_its_members_alone(
    stage: Stage, chat: Chat, room: str
) -> None:
    here, paused = stage.nodes
    speaker, witness = await chat.join(here, room), await chat.join(paused, room)
    plain = await chat.join(paused, room, "plain")
    ever = await say(speaker, "both hear this")
    await balanced(witness, ever)
    paused.pause()
    ever += await say(speaker, *(f"message {n}" for n in range(40)))
    await chat.broker.xtrim(key(room), maxlen=3, approximate=False)
    paused.cont()
    await balanced(witness, ever)
    await balanced(speaker, ever)
    assert [gap.lost for gap in witness.gaps] == [37] and not speaker.gaps
    assert await plain.closed() == GAP_CLOSE
    await stage.counted(paused, "hiroba_gaps_told_total", 2)


# ---- the groups ----


async def test_a_destroyed_group_is_put_back_and_nothing_is_lost(stage: Stage, chat: Chat, room: str) -> None:
    members = [await chat.join(node, room) for node in stage.nodes]
    talker = chat.talk(await chat.join(stage.nodes[0], room), "a")
    for _ in range(5):
        await talker.more(5)
        for group in await chat.groups(room):
            await chat.broker.xgroup_destroy(key(room), group)
    await talker.more(5)
    await chat.quiet()
    for member in members:
        await balanced(member, await chat.log(room))
        assert not member.gaps
    for node in stage.nodes:
        await stage.counted(node, "hiroba_groups_healed_total")


@pytest.mark.parametrize("to", ["$", "0"])
async def test_a_group_moved_by_hand_neither_loses_nor_repeats(stage: Stage, chat: Chat, room: str, to: str) -> None:
    """Moved ahead of what this node has read, or back to the beginning; found by the sweep if nothing follows."""
    here, paused = stage.nodes
    speaker, witness = await chat.join(here, room), await chat.join(paused, room)
    ever = await say(speaker, "one", "two")
    await balanced(witness, ever)
    for followed in (True, False):
        paused.pause()
        ever += await say(speaker, f"three {followed}", f"four {followed}")
        for group in await chat.groups(room):
            await chat.broker.xgroup_setid(key(room), group, to)
        paused.cont()
        if followed:
            ever += await say(speaker, "five")
        for member in (witness, speaker):
            await balanced(member, ever)
            assert not member.gaps


# ---- the entries ----


async def test_an_entry_of_an_unknown_format_is_a_gap_of_one_for_everybody(stage: Stage, chat: Chat, room: str) -> None:
    """As when a newer node writes beside this one. Also for who reads it later, from the stream."""
    node, _ = stage.nodes
    speaker, behind = await chat.join(node, room), await chat.join(node, room)
    ever = await say(speaker, "one", "two")
    await balanced(behind, ever)
    await behind.leave()
    newer = Id(ever[-1].id.ms, ever[-1].id.n + 1)
    await chat.broker.xadd(key(room), {"v": "2", "b": "4", "who": "knows"}, id=str(newer))
    ever += [Heard(newer, None), *await say(speaker, "four", "five")]
    await balanced(speaker, ever)
    await behind.resume(node)
    await balanced(behind, ever)
    for member in (speaker, behind):
        assert [gap.lost for gap in member.gaps] == [1]
    assert await stage.grown(node, "hiroba_gaps_total") == 1


@pytest.mark.parametrize(
    "fields",
    [{"v": "1", "b": "1", "f": b"\xff", "u": "", "m": "1"}, {"hello": "world"}, {"v": "1"}],
    ids=["not UTF-8", "a stranger's", "half"],
)
async def test_nothing_that_a_stranger_adds_stops_a_node(
    stage: Stage, chat: Chat, room: str, fields: dict[str, bytes | str]
) -> None:
    """`XADD key *`: an id outside of the room's count, too."""
    node, _ = stage.nodes
    speaker = await chat.join(node, room)
    await say(speaker, "one")
    await chat.broker.xadd(key(room), fields)
    await say(speaker, "two")
    await speaker.hears("one", "two")
    assert speaker.gaps
    late = await chat.join(node, room, after=speaker.heard[0].id)  # type: ignore[union-attr]  # a message came first
    await late.hears("two")
    assert late.gaps


# ---- the scripts and the connections ----


async def test_a_script_flush_is_not_noticed_by_anybody(stage: Stage, chat: Chat, room: str) -> None:
    node, _ = stage.nodes
    talker = chat.talk(await chat.join(node, room), "a")
    for _ in range(3):
        await talker.more(5)
        await chat.broker.script_flush()
    await talker.more(5)
    await chat.quiet()
    await balanced(talker.member, await chat.log(room))
    await chat.answers_agree(room)
    assert not talker.member.errors and not talker.member.gaps
    await stage.counted(node, "hiroba_scripts_loaded_total", 2)


LANES = ("publish", "read", "doorbell")


@pytest.mark.parametrize("lanes", [*((lane,) for lane in LANES), LANES], ids=[*LANES, "all"])
async def test_lanes_that_are_killed_come_back_and_nothing_is_lost(
    stage: Stage, chat: Chat, room: str, lanes: tuple[str, ...]
) -> None:
    node, other = stage.nodes
    members = [await chat.join(node, room), await chat.join(other, room)]
    plain = await chat.join(node, room, "plain")
    talkers = [chat.talk(await chat.join(one, room), name) for one, name in ((node, "a"), (other, "b"))]
    names = {f"hiroba-{members[0].welcomes[0]['node']}-{lane}" for lane in lanes}

    async def ids() -> list[str]:
        clients = [client for client in await chat.broker.client_list() if client["name"] in names]
        return [client["id"] for client in clients] if len(clients) == len(names) else []

    for _ in range(2):
        await asyncio.gather(*(talker.more(10) for talker in talkers))
        for id in await until(ids, f"{lanes} are there"):
            await chat.broker.client_kill_filter(_id=id)
    await asyncio.gather(*(talker.more(10) for talker in talkers))
    await chat.quiet()
    log = await chat.log(room)
    for member in members:
        await balanced(member, log)
        assert not member.gaps
    await until(lambda: len(plain.plain) >= len(log), "the plain member hears all")
    assert plain.plain == [entry.message for entry in log] and plain.connected
    await chat.answers_agree(room)
    for lane in lanes:
        await stage.counted(node, "hiroba_broker_reconnects_total", 2, lane=lane)
    lost = await stage.grown(other, "hiroba_broker_reconnects_total")
    assert lost == 0, "the other node lost none of its connections"
