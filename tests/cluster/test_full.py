"""A broker that takes nothing for a time: people stay, come and read, are told why, and it heals by itself."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis

from gateway.broker.keys import Keys
from gateway.telemetry.repeats import LINES_MAX
from tests.cluster.chat import Chat, Member, key
from tests.cluster.conftest import QUICK, redis_only
from tests.conftest import BrokerFactory, NodeFactory
from tests.support.broker import Broker
from tests.support.node import Node
from tests.support.until import until

NODES = Keys("hiroba", 0).nodes
# A node that gave no sign of life for so long is dead to the others.
TTL_S = 1.0
SOON: dict[str, object] = {**QUICK, "heartbeat_s": 0.25, "node_ttl_s": TTL_S, "probe_s": 1, "sweep_s": 0.5}


@pytest.fixture(params=["redis", "valkey"])
async def broker(start_broker: BrokerFactory, request: pytest.FixtureRequest) -> Broker:
    return await start_broker(kind=request.param)


@pytest.fixture
async def nodes(start_node: NodeFactory) -> list[Node]:
    return [await start_node(**SOON), await start_node(**SOON)]


async def passed(operator: Redis, seconds: float) -> None:
    """Waits by the server's clock."""

    async def now() -> float:
        whole, micro = await operator.time()
        return float(whole + micro / 1e6)

    began = await now()

    async def over() -> bool:
        return await now() > began + seconds

    await until(over, f"{seconds} s passed")


async def refused(member: Member, ref: str, size: int = 1) -> str:
    """Says something that has to be refused; the reason."""
    await member.say(ref.ljust(size, "."), ref)
    await until(lambda: member.answered(ref), f"{ref} is answered")
    assert member.errors.get(ref) == "refused", member.acks
    return member.texts[ref]


def events(node: Node) -> list[str]:
    return [json.loads(line)["event"] for line in node.lines()]


# ---- what the server lacks, and gets back ----

Step = Callable[[Redis, Broker], Awaitable[None]]


async def no_memory(operator: Redis, broker: Broker) -> None:
    await operator.config_set("maxmemory", 1)


async def memory(operator: Redis, broker: Broker) -> None:
    await operator.config_set("maxmemory", 0)


async def saved(operator: Redis, status: str) -> None:
    await operator.bgsave()

    async def done() -> bool:
        persistence = await operator.info("persistence")
        return not persistence["rdb_bgsave_in_progress"] and persistence["rdb_last_bgsave_status"] == status

    await until(done, f"a snapshot ended {status}")


async def no_disk(operator: Redis, broker: Broker) -> None:
    (broker.directory / "dump.rdb").mkdir()  # nothing can be renamed to that
    await operator.config_set("save", "3600 1000000")
    await saved(operator, "err")


async def disk(operator: Redis, broker: Broker) -> None:
    (broker.directory / "dump.rdb").rmdir()
    await saved(operator, "ok")


async def no_replicas(operator: Redis, broker: Broker) -> None:
    await operator.config_set("min-replicas-to-write", 1)


async def replicas(operator: Redis, broker: Broker) -> None:
    await operator.config_set("min-replicas-to-write", 0)


async def outlives(
    nodes: list[Node], chat: Chat, broker: Broker, take: Step, give: Step, reason: str, ready: bool = True
) -> None:
    here, there = nodes
    speaker, listener = await chat.join(here, "old"), await chat.join(there, "old", "plain")
    quiet = await chat.join(here, "elsewhere")
    for member in (speaker, quiet):
        await member.say("before")
        await member.hears("before")
    await listener.hears("before")
    reconnects = [await node.metric("hiroba_broker_reconnects_total") for node in nodes]

    await take(chat.broker, broker)
    assert reason in await refused(speaker, "in vain")
    await passed(chat.broker, 2 * TTL_S)  # long enough for each to bury the other, and to doubt the road three times
    for node, before in zip(nodes, reconnects, strict=True):
        told = f"publishes are refused: {reason}\n"
        assert await node.get("/readyz", ops=True) == ((200, f"ready, but {told}") if ready else (503, told))
        assert await node.metric("hiroba_broker_reconnects_total") == before, "a refusal proves the road"
        assert await node.metric("hiroba_publishes_refused_total", reason="refused") >= 2
    new, late = await chat.join(there, "nobody_was_here"), await chat.join(there, "elsewhere", history=1)
    await late.hears("before")
    assert reason in await refused(new, "in vain as well")
    assert speaker.connected and listener.connected, "only who speaks on plain has to be closed"

    await give(chat.broker, broker)

    async def healed() -> bool:
        return all([await node.get("/readyz", ops=True) == (200, "ready\n") for node in nodes])

    await until(healed, "both nodes are as they were")
    for member in (speaker, new, late):
        await member.say("after")
        await member.hears("after")
    await listener.hears("before", "after")
    await quiet.hears("before", "after")
    await passed(chat.broker, 2 * TTL_S)
    assert await chat.broker.zcard(NODES) == len(nodes)
    for node in nodes:
        assert not {"node is gone", "this node was forgotten by the others: proving all its rooms"} & {*events(node)}


async def test_a_full_broker_refuses_messages_and_nothing_else(nodes: list[Node], chat: Chat, broker: Broker) -> None:
    """It was an outage that never ended: no node ready, all joins 503, nodes that declared each other dead."""
    await outlives(nodes, chat, broker, no_memory, memory, "the broker's memory is full")


@redis_only
async def test_a_broker_with_a_full_disk_refuses_messages_and_nothing_else(
    nodes: list[Node], chat: Chat, broker: Broker
) -> None:
    """Every write is refused then, heartbeats and groups too (MISCONF)."""
    await outlives(nodes, chat, broker, no_disk, disk, "the broker cannot write to its disk")


@redis_only
async def test_a_node_that_starts_on_a_full_broker_lets_people_in(
    start_node: NodeFactory, chat: Chat, broker: Broker
) -> None:
    """A rolling restart does not wait for the disk: what is refused is this node's name in the registry, for now."""
    first = await start_node(**SOON)
    speaker = await chat.join(first, "room")
    await speaker.say("before")
    await speaker.acked("before")
    await no_disk(chat.broker, broker)
    second = await start_node(**SOON)
    late = await chat.join(second, "room", history=1)
    await late.hears("before")
    await disk(chat.broker, broker)
    await until(lambda: chat.broker.zscore(NODES, _id(second)), "it is registered")
    await until(lambda: _taken(speaker), "messages go through again", every_s=0.1)
    await until(lambda: late.messages[-1] == speaker.messages[-1], "and are heard")


def _id(node: Node) -> str:
    return str(json.loads(node.lines()[0])["node"])


async def _taken(member: Member) -> bool:
    text = f"try-{len(member.acks) + len(member.errors)}"
    await member.say(text)
    await until(lambda: member.answered(text), "an answer")
    return text in member.acks


@redis_only
async def test_a_broker_that_misses_its_replicas_refuses_messages_and_nothing_else(
    nodes: list[Node], chat: Chat, broker: Broker
) -> None:
    """It may have been deposed, and others know the new master: nobody new is sent here, and nobody inside loses."""
    await outlives(nodes, chat, broker, no_replicas, replicas, "the broker has too few replicas", ready=False)


async def no_rights(operator: Redis, broker: Broker) -> None:
    await operator.execute_command("ACL", "SETUSER", "gateway", "-@all")


@redis_only
@pytest.mark.denied
@pytest.mark.parametrize("take", [no_disk, no_rights])
async def test_a_broker_that_refuses_everything_fills_no_log(
    start_node: NodeFactory, chat: Chat, broker: Broker, take: Step
) -> None:
    """1,000 rooms and a full disk: 15,444 lines in 60 s. Each room met the refusal in each round of the sweep."""
    node = await start_node(**SOON)
    members = await asyncio.gather(*(chat.join(node, f"room{n}") for n in range(200)))
    for member in members:
        await member.say("hello")
    await asyncio.gather(*(member.acked("hello") for member in members))
    before = len(node.lines())
    await take(chat.broker, broker)
    for text in ("in vain", "in vain again"):
        for member in members:
            await member.say(text)
        await until(lambda text=text: all(text in member.errors for member in members), "all are refused")  # type: ignore[misc]
        await passed(chat.broker, TTL_S)
    came = [chat.join(node, f"new{n}") for n in range(2 * LINES_MAX)]
    turned_away = sum(isinstance(end, Exception) for end in await asyncio.gather(*came, return_exceptions=True))
    assert turned_away == (len(came) if take is no_rights else 0)
    lines = Counter(events(node)[before:])
    assert lines.pop("websocket", 0) == turned_away, "a line for each who came is theirs"
    assert lines and max(lines.values()) <= LINES_MAX, lines


# ---- a full server heals by what expires ----


# What a server's use of memory goes up and down by itself: buffers of connections.
NOISE_BYTES = 200_000


async def fill(operator: Redis) -> int:
    """The server holds more than it may. How much that is."""
    used = int((await operator.info("memory"))["used_memory"])
    await operator.config_set("maxmemory", used - NOISE_BYTES)
    return used


async def test_what_expired_in_a_room_makes_space_for_what_is_said_there(
    start_node: NodeFactory, chat: Chat, broker: Broker
) -> None:
    """1,018 expired entries lay in the very room: it was trimmed only after an append that went through."""
    node = await start_node(**SOON, retention_s=1, retention_entries_min=10)
    speaker, other = await chat.join(node, "loud"), await chat.join(node, "quiet")
    for number in range(100):
        await speaker.say(str(number).ljust(20_000, "."), f"old-{number}")
    await until(lambda: "old-99" in speaker.acks, "all are said")
    await other.say("before")
    await other.acked("before")
    full = await fill(chat.broker)
    await refused(speaker, "too young to go")
    await passed(chat.broker, 1.5)
    for number in range(40):
        await speaker.say(f"{number}".ljust(2_000, "."), f"new-{number}")
        await speaker.acked(f"new-{number}")
    assert (await chat.broker.info("memory"))["used_memory"] < full
    log = await chat.log("loud")
    assert [entry.id.n for entry in log] == list(range(141 - len(log), 141)), "dense, and nothing of what was refused"


@redis_only
async def test_a_full_server_takes_no_more_than_was_freed(start_node: NodeFactory, chat: Chat, broker: Broker) -> None:
    """Once a write went through (XTRIM is one) Redis refuses a script nothing: that must not become the way in."""
    node = await start_node(**SOON, retention_s=3600)
    speaker = await chat.join(node, "loud")
    for number in range(20):
        await speaker.say(str(number))
        await speaker.acked(str(number))
    full = await fill(chat.broker)
    for number in range(40):
        await refused(speaker, f"more-{number}", 10_000)
    assert (await chat.broker.info("memory"))["used_memory"] < full + NOISE_BYTES
    assert len(await chat.log("loud")) == 20


@redis_only
async def test_a_room_in_which_nobody_speaks_makes_space_for_others(
    start_node: NodeFactory, chat: Chat, broker: Broker
) -> None:
    """Its log is trimmed when somebody publishes there. While the broker is full, the sweep does it."""
    node = await start_node(**SOON, retention_s=1, retention_entries_min=1)
    loud, other = await chat.join(node, "loud"), await chat.join(node, "quiet")
    for number in range(100):
        await loud.say(str(number).ljust(10_000, "."), f"old-{number}")
    await until(lambda: "old-99" in loud.acks, "all are said")
    await fill(chat.broker)
    await until(lambda: _taken(other), "another room takes messages again", every_s=0.1)
    assert await chat.broker.xlen(key("loud")) < 100
