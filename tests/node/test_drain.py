"""SIGTERM: not ready, wait for the load balancer, close paced with words, leave nothing behind, exit 0."""

import asyncio
import json
import signal
import time

import pytest

from gateway.core.closes import Close
from tests.conftest import NodeFactory
from tests.node.conftest import redis_only
from tests.support.broker import Broker
from tests.support.client import Client, Crowd
from tests.support.node import Node
from tests.support.raw import Raw, handshake
from tests.support.until import until

pytestmark = redis_only


async def groups(broker: Broker) -> list[bytes]:
    """All consumer groups there are."""
    async with broker.client() as client:
        logs = [key async for key in client.scan_iter(_type="stream")]
        return [group["name"] for log in logs for group in await client.xinfo_groups(log)]


async def test_a_drain_from_its_first_word_to_its_last(broker: Broker, start_node: NodeFactory, crowd: Crowd) -> None:
    node = await start_node(lb_wait_s=0.6, drain_s=0.2, linger_s=60)
    new, old = await crowd.join(node, "r"), await crowd.join(node, "r", "plain")
    await old.say("before")
    await new.hears("before")
    assert len(await groups(broker)) == 2  # the room's and the probe's
    node.process.signal(signal.SIGTERM)

    async def unready() -> bool:
        status, text = await node.get("/readyz", ops=True)
        return (status, text) == (503, "draining\n")

    await until(unready, "/readyz says no")
    assert await node.metric("hiroba_ready") == 0
    late = await crowd.join(node, "r")  # the load balancer has not looked yet
    await late.say("while it waits")
    await new.hears("before", "while it waits")
    for client in (new, late):
        assert await client.closed() == (1012, "this node is going away, connect again")
        last = client.heard[-1]
        assert last["type"] == "reconnect"
        assert 0 <= last["after_s"] <= 5
    assert await old.closed() == (1012, "this node is going away, connect again")
    assert old.messages == ["before", "while it waits"], "plain hears messages and nothing else"
    assert await node.process.ended() == 0
    assert await groups(broker) == []
    async with broker.client() as redis:
        left = [key async for key in redis.scan_iter()]
    assert sorted(key.rpartition(b":")[2] for key in left) == [b"r", b"rooms"], "only the log stays, and that it is one"
    events = [json.loads(line)["event"] for line in node.lines()]
    assert events[-1] == "stopped"
    assert "stopping" in events


async def test_a_handshake_under_way_when_the_drain_begins_is_refused(
    broker: Broker, start_node: NodeFactory, crowd: Crowd
) -> None:
    """At once, with a word: let in, it would be in nobody's list, and be cut without a close frame at the end."""
    node = await start_node(lb_wait_s=0, drain_s=0.2, close_s=0.5, probe_s=60, publish_timeout_s=1)
    member = await crowd.join(node, "r")
    broker.pause()
    waiting = [await crowd.connect(node) for _ in range(5)]
    asked = [asyncio.create_task(raw.ask(handshake(f"room{n}"))) for n, raw in enumerate(waiting)]

    async def under_way() -> bool:
        return await node.metric("hiroba_connections") == 6

    await until(under_way, "they wait for the broker")
    node.process.signal(signal.SIGTERM)
    assert await asyncio.gather(*asked) == [503] * 5
    assert all(b"Retry-After: " in raw.head for raw in waiting)
    assert all(b"going away" in raw.data for raw in waiting)
    assert (await member.closed())[0] == 1012
    assert await node.process.ended() == 0
    broker.cont()
    refused = [line for line in map(json.loads, node.lines()) if line.get("reason") == "draining"]
    assert len(refused) == 5


async def test_nobody_is_let_in_and_then_cut_without_a_word(start_node: NodeFactory, crowd: Crowd) -> None:
    """Handshakes all through a drain: each ends with a status, or a close frame. A reset only where no 101 was."""
    node = await start_node(lb_wait_s=0.2, drain_s=0.3, close_s=0.5)
    came: list[Raw] = []

    async def keep_coming(number: int) -> None:
        for n in range(1_000):
            try:
                raw = await crowd.connect(node)
            except OSError:
                return
            came.append(raw)
            raw.write(handshake(f"room{number}_{n}"))
            await until(lambda raw=raw: raw.head or raw.over.done(), "an answer", every_s=0.001)

    coming = asyncio.gather(*(keep_coming(number) for number in range(4)))
    await until(lambda: len(came) > 20, "a crowd")
    node.process.signal(signal.SIGTERM)
    await coming
    assert await node.process.ended() == 0
    await until(lambda: all(raw.over.done() for raw in came), "all are over")
    let_in = [raw for raw in came if raw.head and raw.status == 101]
    assert len(let_in) > 20
    assert [raw.close_frame() for raw in let_in] == [(1012, Close.DRAIN.text)] * len(let_in)
    assert {raw.status for raw in came if raw.head} <= {101, 503}


async def test_closes_are_paced(start_node: NodeFactory, crowd: Crowd) -> None:
    """Not all at once, and in no order that a client could guess; new ones are refused meanwhile."""
    node = await start_node(lb_wait_s=0, drain_s=1.5)
    clients = [await crowd.join(node, "r") for _ in range(30)]
    ended: list[tuple[float, int]] = []

    async def wait(number: int, client: Client) -> None:
        assert (await client.closed())[0] == 1012
        ended.append((time.monotonic(), number))

    waits = asyncio.gather(*(wait(n, client) for n, client in enumerate(clients)))
    node.process.signal(signal.SIGTERM)
    await until(lambda: ended, "the first close")
    raw = await crowd.connect(node)
    assert await raw.ask(handshake("r")) == 503
    assert b"Retry-After: " in raw.head
    await waits
    assert ended[-1][0] - ended[0][0] > 0.7, "spread over drain_s"
    assert [number for _, number in ended] != sorted(number for _, number in ended)
    afters = [client.heard[-1]["after_s"] for client in clients]
    assert len(set(afters)) > 10, "they do not all come back at once"
    assert await node.process.ended() == 0


async def test_what_was_said_last_is_in_the_log(start_node: NodeFactory, crowd: Crowd) -> None:
    """Acknowledged or told: nothing said before the close vanishes without a word."""
    one, two = await asyncio.gather(start_node(lb_wait_s=0, drain_s=0, messages_per_s=0), start_node())
    speaker, witness = await crowd.join(one, "r"), await crowd.join(two, "r")
    for n in range(30):
        await speaker.say(n, ref=n)
    one.process.signal(signal.SIGTERM)
    assert (await speaker.closed())[0] == 1012
    acked = len(speaker.of_type("ack"))
    await witness.until(lambda: len(witness.messages) >= acked, "everything acknowledged")
    assert witness.messages == list(range(len(witness.messages)))
    assert await one.process.ended() == 0


async def test_resume_on_another_node_after_a_drain(start_node: NodeFactory, crowd: Crowd) -> None:
    """With the last id a v1 client misses nothing."""
    one, two = await asyncio.gather(start_node(lb_wait_s=0, drain_s=0), start_node(messages_per_s=0))
    mover, speaker = await crowd.join(one, "r"), await crowd.join(two, "r")
    await speaker.say(0)
    await mover.hears(0)
    one.process.signal(signal.SIGTERM)
    assert (await mover.closed())[0] == 1012
    for n in range(1, 20):
        await speaker.say(n)
    moved = await crowd.join(two, "r", after=mover.ids[-1])
    assert (await moved.welcome())["recovered"] is True
    await moved.hears(*range(1, 20))


@pytest.mark.parametrize("signals", [("SIGTERM", "SIGTERM"), ("SIGTERM", "SIGINT"), ("SIGINT",)], ids="+".join)
async def test_a_second_signal_and_ctrl_c_hurry(
    broker: Broker, start_node: NodeFactory, crowd: Crowd, signals: tuple[str, ...]
) -> None:
    node = await start_node(lb_wait_s=60, drain_s=60)
    client = await crowd.join(node, "r")
    await client.say("x")
    await client.hears("x")
    for name in signals:
        node.process.signal(getattr(signal, name))

        async def unready() -> bool:
            return not await node.is_ready()

        await until(unready, "it knows")
    code, reason = await client.closed()
    assert (code, reason) == (1012, Close.DRAIN.text)
    assert await node.process.ended(within_s=20) == 0, "not after lb_wait_s"
    assert await groups(broker) == []


async def test_clients_that_do_not_answer_hold_nobody_up(start_node: NodeFactory, crowd: Crowd) -> None:
    """Their close frame went out; after close_s they are cut."""
    node = await start_node(lb_wait_s=0, drain_s=0, close_s=0.5, handshake_timeout_s=120)
    deaf = await crowd.member(node, "r")
    deaf.transport.pause_reading()
    half = await crowd.connect(node)
    half.write(handshake("r")[:50])
    assert await node.stop(within_s=30) == 0, "not after handshake_timeout_s, nor never"
    deaf.transport.resume_reading()
    assert await deaf.closed() == (1012, "this node is going away, connect again")


async def test_a_drain_without_a_broker_ends_too(broker: Broker, start_node: NodeFactory, crowd: Crowd) -> None:
    """Others will sweep what it leaves; it says so."""
    node = await start_node(lb_wait_s=0, drain_s=0, publish_timeout_s=1, close_s=0.5)
    client = await crowd.join(node, "r")
    broker.pause()
    node.process.signal(signal.SIGTERM)
    assert (await client.closed())[0] == 1012
    assert await node.process.ended() == 0
    assert not any("Traceback" in line for line in node.lines())
    broker.cont()


async def test_a_node_that_never_had_a_broker_ends_at_once(broker: Broker, start_node: NodeFactory) -> None:
    await broker.kill()
    node: Node = await start_node(ready=False, lb_wait_s=0, drain_s=0, publish_timeout_s=1)

    async def up() -> bool:
        return (await node.get("/healthz", ops=True))[0] == 200

    await until(up, "it serves")
    assert await node.stop() == 0
    assert not any("Traceback" in line for line in node.lines())
