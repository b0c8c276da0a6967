"""Requests that a dead connection delivers late, brokers and roads that freeze: told as it was, done at most once."""

import asyncio

import pytest

from tests.cluster.chat import Chat, Heard, balanced, key, say
from tests.cluster.conftest import redis_only
from tests.conftest import NodeFactory
from tests.support.broker import PASSWORDS, Broker
from tests.support.node import Node
from tests.support.proxy import Link, Proxy
from tests.support.until import until

ROOM = "square"


async def probe_timeout(node: Node) -> bool:
    """Whether the node ever doubted the road."""
    return await node.metric("hiroba_probe_timeouts_total") > 0


async def unready(node: Node) -> bool:
    return not await node.is_ready()


async def deliver(link: Link, broker: Broker) -> bytes:
    """What a dead connection held, over another one: as when no CLIENT KILL could reach it. The broker's answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", broker.port)
    writer.write(f"AUTH gateway {PASSWORDS['gateway']}\r\n".encode())
    assert await asyncio.wait_for(reader.readline(), 10) == b"+OK\r\n"
    writer.write(link.up.held)
    answer = await asyncio.wait_for(reader.read(65_536), 10)
    writer.close()
    await writer.wait_closed()
    return answer


async def test_a_publish_call_that_arrives_late_neither_doubles_nor_reorders(
    far_node: NodeFactory, chat: Chat, broker: Broker, proxy: Proxy
) -> None:
    node = await far_node()
    speaker = await chat.join(node, ROOM)
    ever = await say(speaker, "one")
    proxy.hold_at(b"two")
    await speaker.say("two")
    link = await proxy.held()
    link.cut_client()
    ever.append(Heard(await speaker.acked("two"), "two"))
    # After its retry: the answer of then. The probe's calls may have gone on; then it is refused.
    first = await deliver(link, broker)
    assert str(ever[-1].id).encode() in first or b"STALE" in first
    ever += await say(speaker, "three")
    assert b"STALE" in await deliver(link, broker)
    assert await chat.log(ROOM) == ever
    link.up.thaw()  # its own connection is closed by now
    ever += await say(speaker, "four")
    await balanced(speaker, ever)
    assert await chat.log(ROOM) == ever
    assert not speaker.gaps and not speaker.errors


@redis_only
async def test_a_call_that_ran_and_whose_answer_and_memory_are_gone_is_told_unknown(
    far_node: NodeFactory, chat: Chat, proxy: Proxy
) -> None:
    """The once key is gone with a flush, or because others took the node for dead: a retry could double."""
    node = await far_node()
    speaker, witness = await chat.join(node, ROOM), await chat.join(node, ROOM)
    await say(speaker, "one")
    (publish,) = [link for link in proxy.open_links if await _lane(chat, link, "publish")]
    publish.down.freeze()
    await speaker.say("two")
    await witness.hears("one", "two")
    await chat.broker.delete(*[found async for found in chat.broker.scan_iter("hiroba:*:once:*")])
    publish.cut()
    await until(lambda: speaker.answered("two"), "it is answered")
    assert speaker.errors["two"] == "unknown"
    await say(speaker, "three")
    await witness.hears("one", "two", "three")
    assert [entry.message for entry in await chat.log(ROOM)] == ["one", "two", "three"]


async def _lane(chat: Chat, link: Link, lane: str) -> bool:
    """Whether this connection of the proxy's is a node's lane of that name."""
    clients = await chat.broker.client_list()
    return any(one["addr"] == link.server_side and one["name"].endswith(f"-{lane}") for one in clients)


@pytest.mark.parametrize("followed", [True, False], ids=["more follows", "silence follows"])
async def test_a_read_that_arrives_late_moves_no_node_past_an_entry(
    far_node: NodeFactory, quick_node: NodeFactory, chat: Chat, broker: Broker, proxy: Proxy, followed: bool
) -> None:
    """It moves the group over entries that nobody got. The node's own cursor is the truth."""
    node, other = await asyncio.gather(far_node(), quick_node())
    speaker, witness = await chat.join(other, ROOM), await chat.join(node, ROOM)
    ever = await say(speaker, "one")
    await balanced(witness, ever)
    (reads,) = [link for link in proxy.open_links if await _lane(chat, link, "read")]
    proxy.hold_at(b"XREADGROUP", key(ROOM))
    ever += await say(speaker, "two")  # rings; the read is caught
    link = await proxy.held()
    assert link is reads and b"XREADGROUP" in link.up.held
    link.cut_client()
    await balanced(witness, ever)
    node.pause()
    ever += await say(speaker, "three")
    assert b"three" in await deliver(link, broker)
    node.cont()
    if followed:
        ever += await say(speaker, "four")
    await balanced(witness, ever)
    assert not witness.gaps


@pytest.mark.parametrize("unread", [0, 3], ids=["all was read", "three were not"])
async def test_a_second_flush_while_the_read_after_the_first_is_under_way_is_counted_exactly(
    far_node: NodeFactory, quick_node: NodeFactory, chat: Chat, proxy: Proxy, unread: int
) -> None:
    """The bells of the third log are heard before the answer that holds the second one's entry."""
    node, other = await asyncio.gather(far_node(probe_s=60), quick_node())
    speaker, witness = await chat.join(other, ROOM), await chat.join(node, ROOM)
    ever = await say(speaker, "a1", "a2")
    await balanced(witness, ever)
    await chat.broker.flushall()
    proxy.hold_at(b'"b1"', way="down")  # in quotes: a node's id is hexadecimal
    ever += await say(speaker, "b1")
    link = await proxy.held()
    ever += await say(speaker, *(f"b{n}" for n in range(2, 2 + unread)))
    await chat.broker.flushall()
    heard = await node.metric("hiroba_doorbells_total")
    ever += await say(speaker, "c1", "c2")

    async def rang() -> bool:
        return await node.metric("hiroba_doorbells_total") >= heard + 2

    await until(rang, "its bells are heard")
    link.down.thaw()
    await balanced(witness, ever)
    assert [gap.lost for gap in witness.gaps] == [unread] * bool(unread)


@redis_only
@pytest.mark.parametrize("asked", [False, True], ids=["the lane is down", "the lane breaks meanwhile"])
async def test_a_room_left_while_the_broker_is_away_keeps_no_group(
    far_node: NodeFactory, chat: Chat, proxy: Proxy, asked: bool
) -> None:
    """Nobody else would sweep it as long as this node lives."""
    node = await far_node(probe_s=60)
    speaker = await chat.join(node, ROOM)
    await balanced(speaker, await say(speaker, "one"))
    assert await chat.groups(ROOM)
    proxy.refusing = True
    if asked:
        proxy.hold_at(b"DESTROY")
    else:
        proxy.cut()
    await speaker.leave()

    async def closed() -> bool:
        return await node.metric("hiroba_rooms") == 0

    await until(closed, "the room is closed")
    if asked:
        await proxy.held()
        proxy.cut()
    assert await chat.groups(ROOM), "it could not be left"
    proxy.refusing = False

    async def left() -> bool:
        return not await chat.groups(ROOM)

    await until(left, "the group is gone")
    returned = await chat.join(node, ROOM, history=1)
    await say(returned, "two")
    await returned.hears("one", "two")
    assert not returned.gaps


@redis_only
async def test_who_had_nothing_taken_yet_is_told_for_certain_what_becomes_of_a_message(
    far_node: NodeFactory, chat: Chat, proxy: Proxy
) -> None:
    """No answer of this node's is kept, for there was none to keep: what is sent again can't have been forgotten."""
    await chat.broker.config_set("maxmemory", 1)
    node = await far_node()
    speaker = await chat.join(node, ROOM)
    for ref in ("full", "lost on its way"):
        if ref == "lost on its way":
            proxy.hold_at(ref.encode())
        await speaker.say(ref)
        if ref == "lost on its way":
            (await proxy.held()).cut()
        await until(lambda ref=ref: speaker.answered(ref), f"{ref} is answered")
    assert speaker.errors == {"full": "refused", "lost on its way": "refused"}


@redis_only
async def test_what_piled_up_while_a_node_was_cut_off_is_read_in_bounded_pieces(
    far_node: NodeFactory, quick_node: NodeFactory, chat: Chat, proxy: Proxy
) -> None:
    """COUNT goes by what a room lately held; after an absence that says nothing, and a reply could be of any size."""
    node, other = await asyncio.gather(far_node(probe_s=60), quick_node())
    speaker, witness = await chat.join(other, ROOM), await chat.join(node, ROOM)
    ever = await say(speaker, "small")
    await balanced(witness, ever)
    proxy.refusing = True
    proxy.cut()
    long = [f"{n}".ljust(65_000, ".") for n in range(100)]  # 64 of them are 4 MiB
    for n, message in enumerate(long):
        await speaker.say(message, f"{n}")
    ever += [Heard(await speaker.acked(f"{n}"), message) for n, message in enumerate(long)]
    proxy.refusing = False
    await balanced(witness, ever)
    samples = await node.metrics()
    batches = [samples[f'hiroba_deliver_batch_entries_bucket{{le="{most}"}}'] for most in ("64.0", "+Inf")]
    assert batches[0] == batches[1], "more than 4 MiB in one reply"


# ---- frozen ----


async def test_a_broker_that_freezes_longer_than_the_probe_waits_loses_and_doubles_nothing(
    quick_node: NodeFactory, chat: Chat, broker: Broker
) -> None:
    nodes = await asyncio.gather(*(quick_node(probe_s=0.5) for _ in range(2)))
    members = [await chat.join(node, ROOM) for node in nodes]
    plain = await chat.join(nodes[1], ROOM, "plain")
    talkers = [chat.talk(await chat.join(node, ROOM), name) for node, name in zip(nodes, "ab", strict=True)]
    await asyncio.gather(*(talker.more(10) for talker in talkers))
    broker.pause()
    for node in nodes:
        await until(lambda node=node: unready(node), "/readyz says no")
        await until(lambda node=node: probe_timeout(node), "the road is doubted")
    broker.cont()
    for node in nodes:
        await node.wait_ready()
    await asyncio.gather(*(talker.more(10) for talker in talkers))
    await chat.quiet()
    log = await chat.log(ROOM)
    for member in members:
        await balanced(member, log)
        assert not member.gaps and member.connected
    await until(lambda: len(plain.plain) >= len(log), "the plain member hears all")
    assert plain.plain == [entry.message for entry in log] and plain.connected
    assert not any(talker.member.errors for talker in talkers)
    await chat.answers_agree(ROOM)


@redis_only
async def test_publishes_to_a_broker_that_freezes_longer_than_their_timeout_are_told_as_it_was(
    quick_node: NodeFactory, chat: Chat, broker: Broker
) -> None:
    """What was sent is `unknown`, what was not is `timeout`, and never appears; plain is closed with 1013."""
    node = await quick_node(probe_s=0.5, publish_timeout_s=1)
    speaker, plain = await chat.join(node, ROOM), await chat.join(node, ROOM, "plain")
    await say(speaker, "before")
    broker.pause()
    for n in range(20):
        await speaker.say(f"meanwhile {n}")
    await plain.say("meanwhile, plainly")
    assert await plain.closed() == 1013
    await until(lambda: len(speaker.errors) == 20, "all are told")
    assert set(speaker.errors.values()) <= {"timeout", "unknown"}
    broker.cont()
    await node.wait_ready()
    await say(speaker, "after")
    log = await chat.log(ROOM)
    await balanced(speaker, log)
    await chat.answers_agree(ROOM)
    assert await node.metric("hiroba_publishes_refused_total", reason="timeout") >= 1


@redis_only
@pytest.mark.parametrize("way", ["down", "up"])
async def test_a_node_that_hears_or_says_nothing_is_not_ready_and_comes_back(
    far_node: NodeFactory, quick_node: NodeFactory, chat: Chat, proxy: Proxy, way: str
) -> None:
    """Its connections look healthy: only the probe shows it."""
    deaf, other = await asyncio.gather(far_node(probe_s=0.5), quick_node())
    talkers = [chat.talk(await chat.join(node, ROOM), name) for node, name in ((deaf, "a"), (other, "b"))]
    witness = await chat.join(deaf, ROOM)
    await asyncio.gather(*(talker.more(10) for talker in talkers))
    proxy.freeze(way)  # type: ignore[arg-type]  # one of the two
    await until(lambda: unready(deaf), "/readyz says no")
    await until(lambda: probe_timeout(deaf), "the road is doubted")
    await talkers[1].more(10)
    proxy.thaw()
    await deaf.wait_ready()
    await asyncio.gather(*(talker.more(10) for talker in talkers))
    await chat.quiet()
    log = await chat.log(ROOM)
    for member in (witness, *(talker.member for talker in talkers)):
        await balanced(member, log)
        assert not member.gaps
    await chat.answers_agree(ROOM)
    assert await other.metric("hiroba_probe_timeouts_total") == 0


# ---- taken for dead ----


@redis_only
async def test_a_node_that_was_paused_and_taken_for_dead_heals(quick_node: NodeFactory, chat: Chat) -> None:
    """Another removed its groups and its name; its sessions never notice."""
    paused, other = await asyncio.gather(*(quick_node(node_ttl_s=1.5, sweep_s=0.5) for _ in range(2)))
    witness, speaker = await chat.join(paused, ROOM), await chat.join(other, ROOM)
    plain = await chat.join(paused, ROOM, "plain")
    ever = await say(speaker, "one")
    await balanced(witness, ever)
    paused.pause()
    group = f"node:{witness.welcomes[0]['node']}".encode()
    ever += await say(speaker, "two", "three")

    async def swept() -> bool:
        return group not in await chat.groups(ROOM)

    await until(swept, "the other swept its group")
    paused.cont()
    ever += await say(speaker, "four")
    ever += await say(witness, "five")
    for member in (witness, speaker):
        await balanced(member, ever)
        assert not member.gaps
    await plain.hears("one", "two", "three", "four", "five")

    async def back() -> bool:
        registered = await chat.broker.zscore("hiroba:nodes", witness.welcomes[0]["node"])
        return registered is not None and not await swept()

    await until(back, "it has its group and its name again")
    assert await other.metric("hiroba_groups_swept_total") >= 1


@redis_only
async def test_a_lost_doorbell_is_found_by_the_sweep(far_node: NodeFactory, chat: Chat, proxy: Proxy) -> None:
    """Its bells are held back; all else works. A room nobody rings for waits a sweep at most."""
    node = await far_node(sweep_s=0.5, probe_s=60)
    speaker = await chat.join(node, ROOM)
    plain = await chat.join(node, ROOM, "plain")
    ever = await say(speaker, "one")
    (bells,) = [link for link in proxy.open_links if await _lane(chat, link, "doorbell")]
    bells.down.freeze()
    ever += await say(speaker, "two", "three")
    await balanced(speaker, ever)
    await plain.hears("one", "two", "three")
    assert not speaker.gaps
