"""Servers that lack what others had, behind one address, with any clock: what is gone is told in its place, exactly.

Ids, counts and the server's name are no proof of which history a log is in; its entries' epochs are.
"""

import asyncio
from itertools import pairwise

import pytest

from tests.cluster.chat import GAP_CLOSE, Chat, Heard, Id, Member, Told, balanced, chat_on, key, say
from tests.cluster.conftest import redis_only
from tests.conftest import BrokerFactory, NodeFactory
from tests.node.test_slow_readers import deaf, flood, numbers
from tests.support.broker import PASSWORDS, Broker
from tests.support.client import Crowd
from tests.support.node import Node
from tests.support.proxy import Proxy
from tests.support.until import until

ROOM = "square"
HOUR_MS = 3_600_000


async def clock_ahead(chat: Chat, room: str, by_ms: int) -> Heard:
    """The server's clock was ahead once: ids of this room go on from there. Its first entry."""
    seconds, _ = await chat.broker.time()
    first = Id(seconds * 1000 + by_ms, 1)
    entry = {"v": "1", "b": "3", "f": "s", "u": "", "m": '"0"'}
    await chat.broker.xadd(key(room), entry, id=str(first))
    return Heard(first, "0")


def told(member: Member) -> list[int | Heard | None]:
    """What it heard; of gaps how many entries were lost."""
    return [item.lost if isinstance(item, Told) else item for item in member.heard]


async def changed(*nodes: Node) -> None:
    """Each node has met another server."""

    async def all_have() -> bool:
        return all([await node.metric("hiroba_broker_changes_total") >= 1 for node in nodes])

    await until(all_have, "the nodes met the other server")
    await asyncio.gather(*(node.wait_ready() for node in nodes))


@redis_only
@pytest.mark.parametrize("said", [1, 5, 9])
@pytest.mark.parametrize("ahead_ms", [-HOUR_MS, 0, HOUR_MS], ids=["clock ahead", "clocks agree", "clock behind"])
async def test_an_empty_server_in_the_place_of_another_is_told_to_who_comes_back_to_it(
    lasting_node: NodeFactory, start_broker: BrokerFactory, chat: Chat, proxy: Proxy, said: int, ahead_ms: int
) -> None:
    """Its clock is behind, or not. Nobody can know what the former had beside: a gap of unknown size, then all."""
    here, paused = await asyncio.gather(lasting_node(), lasting_node())
    old = [await clock_ahead(chat, ROOM, ahead_ms)]
    speaker, witness = await chat.join(here, ROOM), await chat.join(paused, ROOM)
    plain = await chat.join(paused, ROOM, "plain")
    old += await say(speaker, *(f"old {n}" for n in range(4)))
    await witness.hears("old 3")
    await plain.hears("old 3")
    paused.pause()
    other = await start_broker()
    proxy.lead_to(other.port)
    proxy.cut()
    await changed(here)
    new = await say(speaker, *(f"new {n}" for n in range(said)))
    paused.cont()
    for member in (speaker, witness):
        await until(lambda member=member: member.messages[-1] == f"new {said - 1}", "a member hears the last")
        assert told(member) == [*old[1:], None, *new]
        place = next(gap for gap in member.gaps)
        assert (place.after, place.before.n) == (old[-1].id, 1)
    assert await plain.closed() == GAP_CLOSE
    # Those who come back with what they had, to either node: told as well, and nothing of the new log is missing.
    for node in (here, paused):
        back = await chat.join(node, ROOM, after=old[-1].id)
        assert not back.welcomes[0]["recovered"]
        new += await say(speaker, f"for {node.process.name}")
        await back.hears(*(entry.message for entry in new))
        assert told(back) == [None, *new]
        late = await chat.join(node, ROOM, history=100)
        assert late.welcomes[0]["last_id"] == str(new[-1].id)
        await late.hears(*(entry.message for entry in new))
        assert not late.gaps
    # And with what they have of the new one, whose ids are perhaps below what is gone: nothing is missing.
    for node in (here, paused):
        for had in (new[-1], new[0]):
            knows = await chat.join(node, ROOM, after=had.id)
            assert knows.welcomes[0]["recovered"], had
            plain = await chat.join(node, ROOM, "plain", after=had.id)
            new += await say(speaker, f"for who has {had.id} by {node.process.name}")
            for member in (knows, plain):
                await member.hears(*(entry.message for entry in new[new.index(had) + 1 :]))
                assert member.connected and not member.gaps


@redis_only
async def test_a_fresh_node_takes_no_id_of_another_history_for_one_of_its_own(
    lasting_node: NodeFactory, start_broker: BrokerFactory, chat: Chat, proxy: Proxy
) -> None:
    """The new log has ids on both sides of it, and even the count fits."""
    old_node = await lasting_node()
    await clock_ahead(chat, ROOM, HOUR_MS)
    speaker = await chat.join(old_node, ROOM)
    old = await say(speaker, "old 2", "old 3", "old 4")
    other = await start_broker()
    async with other.client() as client, chat_on(client) as new_chat:
        proxy.lead_to(other.port)
        proxy.cut()
        await old_node.kill()
        node = await lasting_node()
        member = await new_chat.join(node, ROOM)
        before = await say(member, *(f"new {n}" for n in range(1, 5)))
        assert before[-1].id.n == old[-1].id.n and before[-1].id < old[-1].id
        # The clock has caught up.
        entries = await client.xrange(key(ROOM))
        ms = old[-1].id.ms + 5
        await client.xadd(key(ROOM), entries[-1][1], id=f"{ms}-5")
        ahead = await new_chat.join(node, ROOM, after=old[-1].id)
        await say(member, "new 6")
        await member.hears("new 4", "new 6")
        back = await new_chat.join(node, ROOM, after=old[-1].id)
        await say(member, "new 7")
        for one in (ahead, back):
            assert not one.welcomes[0]["recovered"]
            await one.hears("new 6", "new 7")
        assert [gap.lost for gap in back.gaps] == [None]
        plain = await new_chat.join(node, ROOM, "plain", after=old[-1].id)
        assert await plain.closed() == GAP_CLOSE


async def replicate(broker: Broker, master: Broker | None) -> None:
    """REPLICAOF; waits until it is in step."""
    async with broker.client() as client:
        if master is None:
            await client.execute_command("REPLICAOF", "NO", "ONE")
            return
        await client.config_set("masterauth", PASSWORDS["operator"])
        await client.config_set("masteruser", "operator")
        await client.execute_command("REPLICAOF", "127.0.0.1", master.port)

        async def linked() -> bool:
            return (await client.info("replication")).get("master_link_status") == "up"

        await until(linked, "the replica is in step")


async def server_name(broker: Broker) -> str:
    async with broker.client() as client:
        return str((await client.info("server"))["run_id"])


@pytest.mark.parametrize("ahead_ms", [0, HOUR_MS], ids=["clock runs", "clock behind"])
@pytest.mark.parametrize("said", [pytest.param(1, marks=pytest.mark.long), 3, pytest.param(6, marks=pytest.mark.long)])
async def test_a_master_that_took_the_history_of_one_that_lacks_its_last_is_told_exactly(
    lasting_node: NodeFactory, start_broker: BrokerFactory, broker: Broker, chat: Chat, said: int, ahead_ms: int
) -> None:
    """Made a replica, and master again: the same server by name, run_id and address, and three messages are gone."""
    here, paused = await asyncio.gather(lasting_node(), lasting_node())
    other = await start_broker(kind=broker.options.kind)
    if ahead_ms:
        await clock_ahead(chat, ROOM, ahead_ms)
    speaker, witness = await chat.join(here, ROOM), await chat.join(paused, ROOM)
    plain_here, plain_there = await chat.join(here, ROOM, "plain"), await chat.join(paused, ROOM, "plain")
    kept = await say(speaker, "one", "two")
    await balanced(witness, kept)
    await plain_there.hears("one", "two")
    await replicate(other, broker)
    await replicate(other, None)
    paused.pause()
    lost = await say(speaker, "lost 1", "lost 2", "lost 3")
    await plain_here.hears("lost 1", "lost 2", "lost 3")
    name = await server_name(broker)
    await replicate(broker, other)
    await replicate(broker, None)
    assert await server_name(broker) == name
    await here.wait_ready()
    new = await say(speaker, *(f"new {n}" for n in range(said)))
    assert new[0].id.n == lost[0].id.n, "the counts show nothing"
    paused.cont()
    await speaker.hears(*(entry.message for entry in new))
    assert told(speaker) == [*kept, *lost, *new]
    await until(lambda: witness.messages[-1] == new[-1].message, "the other hears the last")
    assert told(witness) == [*kept, 3, *new]
    assert await plain_there.closed() == GAP_CLOSE
    await plain_here.hears(*(entry.message for entry in [*kept, *lost, *new]))
    # Who comes back with what is gone, by either node.
    for node in (here, paused):
        knows = await chat.join(node, ROOM, after=lost[-1].id)
        part = await chat.join(node, ROOM, after=lost[0].id)
        assert knows.welcomes[0]["recovered"]
        new += await say(speaker, f"for who came by {node.process.name}")
        await knows.hears(*(entry.message for entry in new))
        assert told(knows) == [*new]
        await part.hears(*(entry.message for entry in new))
        assert told(part) in ([2, *new], [*lost[1:], *new])


@redis_only
async def test_of_two_tears_in_a_row_both_are_told(
    lasting_node: NodeFactory, start_broker: BrokerFactory, chat: Chat, broker: Broker, proxy: Proxy
) -> None:
    """One after the other while a node was away; those who come back are told what they lost at each."""
    here, paused = await asyncio.gather(lasting_node(), lasting_node())
    brokers = [broker, await start_broker(), await start_broker()]
    speaker, witness = await chat.join(here, ROOM), await chat.join(paused, ROOM)
    ever = await say(speaker, "one", "two")
    await balanced(witness, ever)
    paused.pause()
    gone: list[list[Heard]] = []
    for turn, (former, next_) in enumerate(pairwise(brokers)):
        await replicate(next_, former)
        await replicate(next_, None)
        gone.append(await say(speaker, *(f"lost {turn} {n}" for n in range(2 + turn))))
        ever += gone[-1]
        await balanced(speaker, ever)
        proxy.lead_to(next_.port)
        proxy.cut()

        async def at_next(turn: int = turn) -> bool:
            return await here.metric("hiroba_broker_changes_total") == turn + 1

        await until(at_next, "the node has followed")
        ever += await say(speaker, f"kept {turn}")
        await balanced(speaker, ever)
    kept = [entry for entry in ever if entry not in gone[0] and entry not in gone[1]]
    paused.cont()
    await balanced(speaker, ever)
    await until(lambda: witness.messages[-1] == "kept 1", "the other hears the last")
    # Of the first it heard bells; of the second it never did.
    assert told(witness) == [*kept[:2], 2, *kept[2:]]
    for node in (here, paused):
        back = await chat.join(node, ROOM, after=kept[1].id)
        more = await say(speaker, f"for {node.process.name}")
        kept += more
        ever += more
        await back.hears(*(entry.message for entry in more))
        assert told(back) == (ever[2:] if node is here else [2, *kept[2:]]), "the one gives it from memory"


@redis_only
async def test_bells_of_another_installation_on_the_server_are_not_believed(
    lasting_node: NodeFactory, chat: Chat, broker: Broker
) -> None:
    """Pub/sub knows no database numbers: what rings is not in our log, and none of our entries is gone."""
    node = await lasting_node()
    speaker, plain = await chat.join(node, ROOM), await chat.join(node, ROOM, "plain")
    ever = await say(speaker, "one", "two")
    await plain.hears("one", "two")

    async def rings(*bells: str) -> None:
        before = await node.metric("hiroba_broker_nonsense_total", what="stray bell")
        for bell in bells:
            await chat.broker.execute_command("SPUBLISH", key(ROOM), bell)

        async def disbelieved() -> bool:
            return await node.metric("hiroba_broker_nonsense_total", what="stray bell") >= before + len(bells)

        await until(disbelieved, "they are not believed")

    ms = ever[-1].id.ms
    await rings(f"!{ms + 5}-1", f"{ms + 6}-22")
    ever += await say(speaker, "three")
    await chat.broker.connection_pool.disconnect()
    await broker.restart()

    async def listens() -> bool:
        return (await chat.broker.execute_command("PUBSUB", "SHARDNUMSUB", key(ROOM)))[1] > 0

    await until(listens, "its doorbell is connected")
    await rings(f"{ms + 7}-25")
    ever += await say(speaker, "four")
    await plain.hears("one", "two", "three", "four")
    assert told(speaker) == ever and plain.connected
    silent = await chat.join(node, "silent", "plain")
    for bell in (f"!{ms + 8}-1", f"{ms + 9}-30"):
        await chat.broker.execute_command("SPUBLISH", key("silent"), bell)
    await silent.say("first")
    await silent.hears("first")
    await silent.say("second")
    await silent.hears("first", "second")
    assert silent.connected


@redis_only
async def test_who_falls_off_a_log_whose_ids_are_below_what_is_gone_is_sent_away(
    lasting_node: NodeFactory, start_broker: BrokerFactory, chat: Chat, proxy: Proxy
) -> None:
    """A hole before it came is no loss of a plain reader's. Judged by ids of the former log, all holes were that."""
    node = await lasting_node(
        tail_bytes_max=100_000, retention_bytes_max=1_000_000, retention_entries_min=0, close_s=0.5
    )
    await clock_ahead(chat, ROOM, HOUR_MS)
    speaker = await chat.join(node, ROOM)
    await say(speaker, "old 2", "old 3")
    other = await start_broker()
    proxy.lead_to(other.port)
    proxy.cut()
    await changed(node)
    await say(speaker, "new 1", "new 2")
    await speaker.hears("new 1", "new 2")
    await speaker.leave()
    async with Crowd() as crowd:
        reader = await deaf(crowd, node, ROOM)
        await flood(await crowd.join(node, ROOM), 0, 200)
        reader.transport.resume_reading()
        assert await reader.closed() == (GAP_CLOSE, "entries were lost for this reader")
    assert numbers(reader) == list(range(len(numbers(reader)))), "up to the hole it had everything"
