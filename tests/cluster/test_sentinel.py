"""A master that dies or is deposed, and the sentinels that name another: nodes follow, and tell what was lost."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from deploy.pages import typed
from tests.cluster.chat import GAP_CLOSE, Chat, Heard, Member, Told, balanced, chat_on, say
from tests.cluster.conftest import QUICK
from tests.conftest import BrokerFactory
from tests.support.broker import PASSWORDS, Broker
from tests.support.client import Crowd
from tests.support.node import Node
from tests.support.onlooker import come, look
from tests.support.ports import free_port
from tests.support.sentinel import PASSWORD, SERVICE, Sentinel, Watched, admit, url_of
from tests.support.tokens import SECRET
from tests.support.until import until

ROOM = "square"


both_kinds = pytest.mark.parametrize("watched", ["redis", "valkey"], indirect=True)


@pytest.fixture
async def watched(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Watched]:
    """Redis, unless a test asks for both."""
    watched = Watched(tmp_path / "watched", getattr(request, "param", "redis"))
    yield await watched.start()
    for process in watched.processes:
        process.kill_now()


@pytest.fixture
async def nodes(watched: Watched, tmp_path: Path) -> AsyncIterator[list[Node]]:
    # A node that a test pauses must not be taken for dead.
    nodes = [Node(watched.url, tmp_path, f"node{n}", **{**QUICK, "node_ttl_s": 60}) for n in range(2)]
    await asyncio.gather(*(node.start() for node in nodes))
    yield nodes
    for node in nodes:
        node.process.kill_now()


@pytest.fixture
async def chat(watched: Watched) -> AsyncIterator[Chat]:
    """The log that it sees is that of the replica, the master to be."""
    async with watched.brokers[1].client() as client, chat_on(client) as everybody:
        yield everybody


async def cut_off(replica: Broker, master: Broker) -> None:
    """The replica gets no more of what the master acknowledges."""
    async with replica.client() as client:
        await client.config_set("masterauth", "another")
    async with master.client() as client:
        await client.execute_command("CLIENT KILL TYPE replica")

        async def alone() -> bool:
            return (await client.info("replication"))["connected_slaves"] == 0

        await until(alone, "the master has no replica")


async def written(broker: Broker) -> int:
    """How many publish calls this server ran, or refused, for nodes: a replica is given what they did."""
    async with broker.client() as client:
        stats = await client.info("commandstats")
    return int(stats.get("cmdstat_evalsha", {"calls": 0})["calls"])


async def still(chat: Chat, watched: Watched, master: Broker) -> None:
    """Nothing is under way. A master that ends while it answers one node and not yet the other leaves an entry of which
    that other never heard, and cannot tell."""
    await chat.quiet()
    await watched.in_step(master)


def ever(log: Sequence[Heard], *members: Member) -> list[Heard]:
    """All that ever was in the log: what is there now, and what members heard or got an id for."""
    heard = {item for member in members for item in member.heard if isinstance(item, Heard)}
    acked = {Heard(id, ref) for member in members for ref, id in member.acks.items()}
    return sorted({*log, *heard, *acked}, key=lambda entry: entry.id)


async def nobody_missed_or_doubled(chat: Chat, members: Sequence[Member], plain: Sequence[Member]) -> list[Heard]:
    """Returns the entries that the new master has not got."""
    log = await chat.log(ROOM)
    all_entries = ever(log, *members)
    for member in members:
        await balanced(member, all_entries)
        assert member.connected
    for member in (*members, *plain):
        assert max(Counter(member.messages).values()) == 1, "nothing comes twice"
    for member in plain:
        await until(lambda member=member: member.plain[-1] == log[-1].message, "a plain member hears the last")
        assert member.plain == [entry.message for entry in all_entries] and member.connected
    return [entry for entry in all_entries if entry not in log]


async def test_a_killed_master_is_followed_by_all_and_what_comes_back_is_only_a_replica(
    watched: Watched, nodes: list[Node], chat: Chat
) -> None:
    """Under traffic, on both wires. Everything that is heard comes once, in order; everybody chats on."""
    former, replica = watched.brokers
    members = [await chat.join(node, ROOM) for node in nodes]
    plain = [await chat.join(node, ROOM, "plain") for node in nodes]
    speakers = [await chat.join(node, ROOM) for node in nodes]
    talkers = [chat.talk(speaker, name) for speaker, name in zip(speakers, "ab", strict=True)]
    await asyncio.gather(*(talker.more(50) for talker in talkers))
    await still(chat, watched, former)
    await former.kill()
    talkers = [chat.talk(speaker, name) for speaker, name in zip(speakers, "cd", strict=True)]
    assert await watched.promoted(former) is replica
    await asyncio.gather(*(talker.more(50) for talker in talkers))
    await former.start()
    await watched.in_step(replica)
    await asyncio.gather(*(talker.more(50) for talker in talkers))
    await chat.quiet()
    assert not any(talker.member.errors for talker in talkers)
    assert await nobody_missed_or_doubled(chat, [*members, *speakers], plain) == []
    assert await written(former) == 0
    for node in nodes:
        assert await node.metric("hiroba_broker_changes_total") == 1
        assert not any("Traceback" in line or "geheim" in line for line in node.lines())


async def test_a_master_and_a_sentinel_that_freeze_together_are_left_and_thawed_get_no_more_to_do(
    watched: Watched, nodes: list[Node], chat: Chat
) -> None:
    """As when their machine hangs or vanishes: no connection ends by itself, and one sentinel answers nobody."""
    former, replica = watched.brokers
    plain = [await chat.join(node, ROOM, "plain") for node in nodes]
    speakers = [await chat.join(node, ROOM) for node in nodes]
    talkers = [chat.talk(speaker, name) for speaker, name in zip(speakers, "ab", strict=True)]
    await asyncio.gather(*(talker.more(20) for talker in talkers))
    await still(chat, watched, former)
    frozen = watched.sentinels.pop(0)
    for process in (former.process, frozen.process):
        process.pause()
    talkers = [chat.talk(speaker, name) for speaker, name in zip(speakers, "cd", strict=True)]
    assert await watched.promoted(former) is replica
    await asyncio.gather(*(talker.more(20) for talker in talkers))
    for process in (former.process, frozen.process):
        process.cont()
    calls = await written(former)
    await asyncio.gather(*(talker.more(50) for talker in talkers))
    assert await written(former) == calls
    await chat.quiet()
    assert not any(speaker.errors for speaker in speakers)
    assert await nobody_missed_or_doubled(chat, speakers, plain) == []


@both_kinds
async def test_what_the_replica_never_got_is_a_gap_for_those_who_had_not_heard_it_and_for_nobody_else(
    watched: Watched, nodes: list[Node], chat: Chat
) -> None:
    """Replication is asynchronous: acknowledged entries go with the master. Counts go on from what the replica has, so
    that they show nothing; whose doorbell rang for them knows."""
    (here, paused), (former, replica) = nodes, watched.brokers
    speaker, witness = await chat.join(here, ROOM), await chat.join(paused, ROOM)
    plain_here, plain_there = await chat.join(here, ROOM, "plain"), await chat.join(paused, ROOM, "plain")
    kept = await say(speaker, "one", "two")
    await balanced(witness, kept)
    await watched.in_step(former)
    await cut_off(replica, former)
    lost = await say(speaker, "heard by both")
    await balanced(witness, [*kept, *lost])
    paused.pause()
    lost += await say(speaker, *(f"lost {n}" for n in range(7)))
    await balanced(speaker, [*kept, *lost])
    await former.kill()
    assert await watched.promoted(former) is replica
    new = await say(speaker, "after it")
    assert await chat.log(ROOM) == [*kept, *new] and new[0].id.n == 3, "the counts show nothing"
    paused.cont()
    new += await say(speaker, "and on")
    for member in (speaker, witness):
        await balanced(member, [*kept, *lost, *new])
    assert [gap.lost for gap in witness.gaps] == [7] and not speaker.gaps
    assert await plain_there.closed() == GAP_CLOSE
    await plain_here.hears(*(entry.message for entry in [*kept, *lost, *new]))

    # Those who come back: with an entry that is gone now, with one from before it, by either node.
    for node in nodes:
        knows = await chat.join(node, ROOM, after=lost[-1].id)
        knows.start = lost[-1].id
        older = await chat.join(node, ROOM, after=kept[-1].id)
        older.start = kept[-1].id
        assert knows.welcomes[-1]["recovered"]
        new += await say(speaker, f"for who came back by {node.process.name}")
        await balanced(knows, new)
        await balanced(older, [*lost, *new])
        assert not knows.gaps
        # The one node has the lost entries in its memory, and gives them; the other has not, and says so.
        assert [gap.lost for gap in older.gaps] == ([] if node is here else [8])


async def test_who_comes_after_a_failover_is_owed_what_it_asks_for_and_nothing_from_before_it_came(
    watched: Watched, nodes: list[Node], chat: Chat
) -> None:
    """Before the new master has anything new, and after. One node read all that was torn off, and still gives it to
    those who come back; the other knows how much it was."""
    (here, paused), (former, replica) = nodes, watched.brokers
    speaker, _ = await chat.join(here, ROOM), await chat.join(paused, ROOM)
    kept = await say(speaker, "one", "two")
    await watched.in_step(former)
    await cut_off(replica, former)
    paused.pause()
    lost = await say(speaker, *(f"lost {n}" for n in range(3)))
    await balanced(speaker, [*kept, *lost])
    await former.kill()
    assert await watched.promoted(former) is replica
    paused.cont()
    await until(lambda: followed(nodes), "both nodes have followed")
    for node in nodes:
        read = await node.metric("hiroba_reads_total")

        async def compared(node: Node = node, read: float = read) -> bool:
            return await node.metric("hiroba_reads_total") >= read + 2

        await until(compared, "it has looked what the new master has")

    new_here, new_there = [await chat.join(node, ROOM) for node in nodes]
    plain = [await chat.join(node, ROOM, "plain") for node in nodes]
    with_history = [await chat.join(node, ROOM, "plain", history=10) for node in nodes]
    back_here, back_there = [await chat.join(node, ROOM, after=kept[-1].id) for node in nodes]
    back_here.start = back_there.start = kept[-1].id
    assert [back.welcomes[-1]["recovered"] for back in (back_here, back_there)] == [True, False]
    await balanced(back_here, lost)
    new = await say(speaker, "after it")
    assert await chat.log(ROOM) == [*kept, *new] and new[0].id.n == 3, "the counts show nothing"
    for node in nodes:
        with_history.append(await chat.join(node, ROOM, "plain", history=10))
        late = await chat.join(node, ROOM, after=kept[-1].id)
        assert late.welcomes[-1]["recovered"] == (node is here)
    new += await say(speaker, "and on")
    for member in (back_here, back_there):
        await balanced(member, [*lost, *new])
    assert [gap.lost for gap in back_there.gaps] == [3] and not back_here.gaps
    for member in (new_here, new_there):
        await balanced(member, new)
    texts = [entry.message for entry in new]
    for member in plain:
        await member.hears(*texts)
        assert member.plain == texts and member.connected
    for n, member in enumerate(with_history):
        await member.hears(*texts)
        torn = [] if n % 2 else lost
        assert member.plain == [entry.message for entry in [*kept, *torn, *new]] and member.connected


async def test_a_master_that_wants_a_replica_and_has_none_refuses_what_a_failover_would_lose(
    watched: Watched, nodes: list[Node], chat: Chat
) -> None:
    """min-replicas-to-write 1."""
    former, replica = watched.brokers
    async with former.client() as client:
        await client.config_set("min-replicas-to-write", 1)
    speaker, plain = await chat.join(nodes[0], ROOM), await chat.join(nodes[1], ROOM, "plain")
    ever = await say(speaker, "before")
    await plain.hears("before")
    await watched.in_step(former)
    await cut_off(replica, former)
    await speaker.say("refused")
    await until(lambda: speaker.answered("refused"), "it is answered")
    assert speaker.errors == {"refused": "refused"}
    for node in nodes:
        await until(lambda node=node: unready(node), "/readyz says no")
    await former.kill()
    assert await watched.promoted(former) is replica
    for node in nodes:
        await node.wait_ready()
    ever += await say(speaker, "after")
    await balanced(speaker, ever)
    await plain.hears("before", "after")
    assert await chat.log(ROOM) == ever and not speaker.gaps


async def unready(node: Node) -> bool:
    return not await node.is_ready()


async def test_a_log_of_which_the_replica_never_got_anything_begins_again(
    watched: Watched, nodes: list[Node], chat: Chat
) -> None:
    """Counting from 1. What else the master may have taken along nobody knows: a gap of unknown size."""
    former, replica = watched.brokers
    await cut_off(replica, former)
    members = [await chat.join(node, ROOM) for node in nodes]
    plain = await chat.join(nodes[1], ROOM, "plain")
    lost = await say(members[0], "one", "two", "three")
    await plain.hears("one", "two", "three")
    for member in members:
        await balanced(member, lost)
    await former.kill()
    await watched.promoted(former)
    new = await say(members[0], "four", "five")
    assert await chat.log(ROOM) == new and [entry.id.n for entry in new] == [1, 2]
    for member in members:
        await until(lambda member=member: member.last == new[-1].id, "a member hears the last")
        assert [item.lost if isinstance(item, Told) else item for item in member.heard] == [*lost, None, *new]
    assert await plain.closed() == GAP_CLOSE


@both_kinds
async def test_a_failover_under_traffic_that_was_announced_by_a_pause_loses_and_refuses_nothing(
    watched: Watched, nodes: list[Node], chat: Chat
) -> None:
    """As docs/operations.md has it: writes wait at the former master until there is another, and go there."""
    former, replica = watched.brokers
    members = [await chat.join(node, ROOM) for node in nodes]
    plain = [await chat.join(node, ROOM, "plain") for node in nodes]
    speakers = [await chat.join(node, ROOM) for node in nodes]
    talkers = [chat.talk(speaker, name) for speaker, name in zip(speakers, "ab", strict=True)]
    await asyncio.gather(*(talker.more(50) for talker in talkers))
    hosts = {"MASTER": f"127.0.0.1 -p {former.port}", "SENTINEL -p 26379": f"127.0.0.1 -p {watched.sentinels[0].port}"}
    text = typed("docs/operations.md", "export REDISCLI_AUTH=…    # BROKER_OPERATOR_PASSWORD\nredis-cli -h", hosts)
    typing = await asyncio.create_subprocess_shell(
        text.replace("…", PASSWORDS["operator"]), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await asyncio.wait_for(typing.communicate(), 20)
    assert said.split() == [b"OK", b"OK"]
    assert await watched.promoted(former) is replica
    await asyncio.gather(*(talker.more(50) for talker in talkers))
    await chat.quiet()
    everybody = [*members, *(talker.member for talker in talkers)]
    assert not any(member.errors or member.gaps for member in everybody)
    assert await nobody_missed_or_doubled(chat, everybody, plain) == []
    await chat.answers_agree(ROOM)


async def test_a_master_that_is_deposed_unannounced_is_left_as_soon_as_the_sentinels_say_so(
    watched: Watched, nodes: list[Node], chat: Chat
) -> None:
    """It would take writes for some 10 s more, until it is made a replica, and all of them would be lost. Those of the
    first moment are: who had not heard them is told, as far as their bells came, and who can't be told is sent away."""
    former, replica = watched.brokers
    members = [await chat.join(node, ROOM) for node in nodes]
    plain = [await chat.join(node, ROOM, "plain") for node in nodes]
    speakers = [await chat.join(node, ROOM) for node in nodes]
    talkers = [chat.talk(speaker, name) for speaker, name in zip(speakers, "ab", strict=True)]
    await asyncio.gather(*(talker.more(50) for talker in talkers))
    await watched.failover()
    assert await watched.promoted(former) is replica
    await asyncio.gather(*(talker.more(50) for talker in talkers))
    await until(lambda: followed(nodes), "both nodes have followed")
    async with former.client() as client, chat_on(client) as at_the_former:
        assert (await client.info("replication"))["role"] == "master", "it is still one, and nobody's"
        left = await at_the_former.log(ROOM)
    calls = await written(former)
    await asyncio.gather(*(talker.more(50) for talker in talkers))
    assert await written(former) == calls
    await chat.quiet()
    log = await chat.log(ROOM)
    torn = [entry for entry in left if entry not in log]
    kept, new = left[: len(left) - len(torn)], log[len(left) - len(torn) :]
    assert log == [*kept, *new]
    for member, speaker, plain_one in zip(members, speakers, plain, strict=True):
        await until(lambda member=member: member.last == log[-1].id, "a member hears the last")
        await until(lambda speaker=speaker: speaker.last == log[-1].id, "so does who speaks")
        assert member.heard == speaker.heard and member.connected and speaker.connected
        heard = torn[: len(member.messages) - len(log)]
        assert [item for item in member.heard if isinstance(item, Heard)] == [*kept, *heard, *new], "once, in order"
        for gap in member.gaps:
            assert (gap.after, gap.before) == ([*kept, *heard][-1].id, new[0].id)
            assert gap.lost is not None and 0 < gap.lost <= len(torn) - len(heard)
        everything = member.messages if not member.gaps else [entry.message for entry in [*kept, *heard]]
        await plain_one.hears(*everything)
        assert await plain_one.closed() == GAP_CLOSE if member.gaps else plain_one.connected


# ---- sentinels that are of no help ----


def warnings(node: Node) -> list[dict[str, str]]:
    """What it told beside its start."""
    return [line for line in map(json.loads, node.lines()) if line["level"] != "info"]


async def test_sentinels_that_help_nobody_are_one_clear_line_each_and_asked_again(
    start_broker: BrokerFactory, tmp_path: Path
) -> None:
    """What to look at is named, no password is; as soon as a sentinel helps, the node is ready."""
    brokers = [await start_broker() for _ in range(2)]
    for broker in brokers:
        await admit(broker)
    one, other, locked = (
        Sentinel(tmp_path / name, broker.port, 1, *lines)
        for name, broker, *lines in (
            ("one", brokers[0]), ("other", brokers[1]), ("locked", brokers[0], f"requirepass {PASSWORD}"),
        )
    )  # fmt: skip
    for sentinel in (one, other):
        await sentinel.start()
    locked.process.spawn()
    nobody = free_port()
    let_in = f"{SERVICE}?sentinel_password={PASSWORD}"
    urls = {
        url_of(nobody): f"no sentinel answers (127.0.0.1:{nobody}: ",
        url_of(nobody, one.port, tail="chatt"): "no sentinel knows a service 'chatt'",
        url_of(locked.port): "no sentinel lets us in",
        url_of(locked.port, tail=f"{SERVICE}?sentinel_password=falsch"): "no sentinel lets us in",
        url_of(one.port, other.port): "the sentinels disagree about the master of 'chat'",
    }
    well = [url_of(nobody, locked.port, tail=let_in), url_of(nobody, one.port)]
    nodes = {url: Node(url, tmp_path, f"node{n}", **QUICK) for n, url in enumerate([*urls, *well])}
    await asyncio.gather(*(node.start(ready=url in well) for url, node in nodes.items()))
    for url, words in urls.items():
        node = nodes[url]

        async def tried(node: Node = node) -> bool:
            return await node.metric("hiroba_broker_reconnects_total") > 5

        await until(tried, "it tries again")
        (line,) = warnings(node)
        assert words in line["reason"] and not await node.is_ready()
    for node in nodes.values():
        assert not any(word in text for text in node.lines() for word in ("Traceback", "geheim", "falsch"))
        assert node.process.running
    # A sentinel that comes late, and one that is put right.
    await other.process.kill()
    await nodes[url_of(one.port, other.port)].wait_ready()
    late = Sentinel(tmp_path / "late", brokers[0].port, 1, port=nobody)
    await late.start()
    await nodes[url_of(nobody)].wait_ready()


async def test_a_replica_by_its_own_address_is_refused_in_words(watched: Watched, tmp_path: Path) -> None:
    """Not only by sentinels: a name may lead to it after a failover."""
    replica = watched.brokers[1]
    node = await Node(replica.url, tmp_path, **QUICK).start(ready=False)
    (line,) = await until(lambda: warnings(node), "it says so")
    assert line["reason"] == f"127.0.0.1:{replica.port} is a replica: only a master takes messages"
    assert not await node.is_ready()
    await watched.brokers[0].kill()
    await watched.promoted(watched.brokers[0])
    await node.wait_ready()
    assert await written(replica) > 0
    await node.stop()


async def followed(nodes: Sequence[Node]) -> bool:
    return all([await node.metric("hiroba_broker_changes_total") == 1 for node in nodes])


async def test_a_failover_makes_nobody_leave(watched: Watched, tmp_path: Path, crowd: Crowd) -> None:
    """The replica lacks what the master was told last: the nodes say it again to the new master, and nobody is told as
    gone who is there."""
    settings = {**QUICK, "node_ttl_s": 60, "presence_grace_s": 8, "token_keys": f"HS256:{SECRET}"}
    here, there = nodes = [Node(watched.url, tmp_path, f"node{n}", **settings) for n in range(2)]
    await asyncio.gather(*(node.start() for node in nodes))
    ann, bob = await look(crowd, here, "ann"), await look(crowd, there, "bob")
    await ann.sees("ann", "bob")
    master, replica = watched.brokers
    await watched.in_step(master)
    await cut_off(replica, master)
    await come(crowd, here, "carl")
    dora = await come(crowd, there, "dora")
    await bob.sees("ann", "bob", "carl", "dora")
    await master.kill()
    await dora.leave()
    await watched.promoted(master)
    for onlooker in (ann, bob):
        await onlooker.sees("ann", "bob", "carl", within_s=40)
        assert onlooker.left == ["dora"]
    for node in nodes:
        node.process.kill_now()
