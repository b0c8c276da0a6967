"""Every way to a broker: TLS, passwords, unix sockets, late brokers, wrong ones; and no password anywhere."""

import asyncio
import json
import re
from typing import Any

import pytest
from redis.asyncio.client import Monitor

from tests.conftest import BrokerFactory, NodeFactory
from tests.node.conftest import redis_only
from tests.support.broker import PASSWORDS, Broker
from tests.support.certs import make_certs
from tests.support.client import Crowd
from tests.support.node import Node
from tests.support.ports import free_port
from tests.support.raw import frame
from tests.support.until import until

PASSWORD = "p@ss/wo:rd%2F#hush"
# As it is, and as a URL has it.
TRACES = ("hush", "p@ss", "p%40ss")


async def assert_nothing_tells(*nodes: Node) -> None:
    for node in nodes:
        told = "\n".join(node.lines())
        if node.process.running:
            for path in ("/metrics", "/readyz", "/healthz"):
                told += (await node.get(path, ops=True))[1]
        for trace in TRACES:
            assert trace not in told


def warnings(node: Node) -> list[dict[str, object]]:
    """What was said at start above level info."""
    lines = [json.loads(line) for line in node.lines()]
    return [line for line in lines if line["level"] not in ("info", "debug")]


# The wheel's valkey-server is built without TLS.
@redis_only
@pytest.mark.parametrize(
    ("kind", "way"), [("redis", "tls"), ("redis", "unix"), ("redis", "tcp"), ("valkey", "unix"), ("valkey", "tcp")]
)
async def test_a_chat_over_every_road(
    start_broker: BrokerFactory, start_node: NodeFactory, crowd: Crowd, kind: str, way: str
) -> None:
    """With user and password; at level debug, where libraries talk most."""
    options = {way: True} if way != "tcp" else {}
    broker = await start_broker(kind=kind, user="gate", password=PASSWORD, **options)
    node = await start_node(broker_url=broker.url, log_level="debug")
    client = await crowd.join(node, "部屋", history=5)
    await client.say("x", ref=1)
    assert (await client.answer(1))["type"] == "ack"
    await client.hears("x")
    await assert_nothing_tells(node)
    await broker.kill()
    await until(lambda: warnings(node), "a line about it")
    await assert_nothing_tells(node)


@redis_only
async def test_a_certificate_that_is_rotated_in_order_is_met_at_the_next_connect(
    start_broker: BrokerFactory, start_node: NodeFactory, crowd: Crowd
) -> None:
    """The CA's file changed before the server's did, and nodes never came back: they had read it once, at start."""
    broker = await start_broker(tls=True)
    node = await start_node(broker_url=broker.url, probe_s=1, broker_timeout_s=1)
    assert broker.certs is not None
    broker.certs.ca.rename(broker.certs.ca.with_suffix(".old"))
    await broker.kill()
    away = await until(lambda: warnings(node), "the broker is away")
    make_certs(broker.directory / "certs")
    await broker.start()

    async def chats() -> bool:
        return await node.is_ready()

    await until(chats, "the node is back")
    client = await crowd.join(node, "r", history=5)
    await client.say("x")
    await client.hears("x")
    assert "broker is away" in str(away[0]["event"])


@redis_only
async def test_a_file_of_tls_that_is_missing_is_named_and_awaited(
    start_broker: BrokerFactory, start_node: NodeFactory
) -> None:
    """It was a traceback; whoever mounts it late need not restart the node."""
    broker = await start_broker(tls=True)
    assert broker.certs is not None
    mounted = broker.certs.ca
    late = mounted.with_name("late.pem")
    node = await start_node(broker_url=broker.url.replace(mounted.name, late.name), ready=False, heartbeat_s=0.2)
    (away,) = await until(lambda: warnings(node), "the broker is away")
    assert f"ssl_ca_certs={late}): No such file or directory" in str(away["reason"])
    late.write_bytes(mounted.read_bytes())
    await node.wait_ready()
    assert len(warnings(node)) == 1


@redis_only
async def test_a_password_alone_and_a_numbered_database(
    start_broker: BrokerFactory, start_node: NodeFactory, crowd: Crowd
) -> None:
    broker = await start_broker(password=PASSWORD)
    node = await start_node(broker_url=broker.url.replace("/0", "/7"))
    client = await crowd.join(node, "r")
    await client.say("x")
    await client.hears("x")
    async with broker.client() as redis:
        assert list(await redis.info("keyspace")) == ["db7"]


@redis_only
@pytest.mark.denied
@pytest.mark.parametrize("rule", ["xinfo|groups", "client|kill", "client|id", "expire"])
async def test_an_acl_that_lacks_a_rule_costs_what_the_rule_was_for(
    broker: Broker, start_node: NodeFactory, crowd: Crowd, rule: str
) -> None:
    """A rolling upgrade meets the old ACL: it is said once which rule is missing, and people chat on. Without CLIENT
    KILL a node whose connections broke all at once never came back."""
    async with broker.client() as client:
        await client.execute_command("ACL", "SETUSER", "gateway", f"-{rule}")
        node = await start_node(sweep_s=0.2, probe_s=2, heartbeat_s=0.2, node_ttl_s=0.5)  # nobody is swept before
        ann = await crowd.join(node, "r")
        for n in range(4):
            await ann.say(n, ref=n)
            await ann.hears(*range(n + 1))
            if n == 1:
                logs = [key async for key in client.scan_iter(match="*:log:r")]
                await client.delete(*logs)
            if n == 2:
                await client.execute_command("CLIENT", "KILL", "USER", "gateway")
                await until(lambda: [line for line in warnings(node) if "away" in str(line["event"])], "it noticed")
                await node.wait_ready()

    def missing() -> list[object]:
        return [line["missing"] for line in warnings(node) if "missing" in line]

    await until(lambda: missing() == [f"+{rule}"], "a line that says so")


@redis_only
@pytest.mark.parametrize("kind", ["redis", "valkey"])
async def test_a_server_in_cluster_mode_gets_one_sentence(
    start_broker: BrokerFactory, start_node: NodeFactory, kind: str
) -> None:
    """Named redis:// it was ready, and refused every publish: CROSSSLOT."""
    broker = await start_broker(kind=kind, directives=("cluster-enabled yes", f"cluster-port {free_port()}"))
    async with broker.client() as client:
        await client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        state: Any = None
        while state != "ok":
            state = (await client.execute_command("CLUSTER INFO"))["cluster_state"]
    node = await start_node(broker_url=broker.url, ready=False, probe_s=1)
    (away,) = await until(lambda: warnings(node), "a line")
    assert "runs in cluster mode" in str(away["reason"])
    # Several tries later:
    await until(lambda: _tries(node), "it tries again")
    assert len(warnings(node)) == 1 and not await node.is_ready()


async def _tries(node: Node) -> bool:
    return await node.metric("hiroba_broker_reconnects_total") > 10


@redis_only
async def test_a_broker_that_comes_late(broker: Broker, start_node: NodeFactory, crowd: Crowd) -> None:
    """One clear line and a retry loop, /readyz false, no traceback; then it comes up by itself."""
    await broker.kill()
    node = await start_node(ready=False, handshake_timeout_s=0.3)
    await until(lambda: warnings(node), "a line")
    status, text = await node.get("/readyz", ops=True)
    assert (status, text) == (503, "the road to the broker is not proven: [Errno 111] Connection refused\n")
    assert (await node.get("/healthz"))[0] == 200
    assert (await node.get("/chat/"))[0] == 200
    status, headers = await crowd.refused(node, "r")
    assert (status, "Retry-After" in headers) == (503, True)  # type: ignore[operator]

    async def tried() -> bool:
        return await node.metric("hiroba_broker_reconnects_total") > 10

    await until(tried, "it tries again and again")
    (line,) = warnings(node)
    assert line["event"] == "broker is away: trying again"
    assert line["broker"] == f"127.0.0.1:{broker.port}"
    await broker.start()
    await node.wait_ready()
    client = await crowd.join(node, "r")
    await client.say("x")
    await client.hears("x")
    assert len(warnings(node)) == 1
    assert any("broker is back" in line for line in node.lines())


@redis_only
async def test_a_wrong_way_in_is_one_clear_line(start_broker: BrokerFactory, start_node: NodeFactory) -> None:
    plain, tls = await start_broker(user="gate", password=PASSWORD), await start_broker(password=PASSWORD, tls=True)
    unix = await start_broker(user="gate", password=PASSWORD, unix=True)
    wrong = {
        unix.url.replace("wo%3Ard", "another"): "WRONGPASS",
        plain.url.replace("wo%3Ard", "another"): "WRONGPASS",
        plain.url.replace("gate", "gato"): "WRONGPASS",
        f"redis://127.0.0.1:{plain.port}/0": "NOAUTH",
        plain.url.replace("redis:", "rediss:"): "no answer",
        tls.url.partition("?")[0]: "certificate verify failed",
    }
    starts = [
        start_node(ready=False, broker_url=url, broker_timeout_s=1, lb_wait_s=0, publish_timeout_s=1) for url in wrong
    ]
    for node, words in zip(await asyncio.gather(*starts), wrong.values(), strict=True):

        async def tried(node: Node = node) -> bool:
            return await node.metric("hiroba_broker_reconnects_total") > 5

        await until(tried, "it tries again")
        assert not await node.is_ready()
        (line,) = warnings(node)
        assert words in str(line["reason"])
        assert not any("Traceback" in text for text in node.lines())
        await assert_nothing_tells(node)
        assert await node.stop() == 0


@redis_only
async def test_a_port_in_use_is_one_sentence(broker: Broker, start_node: NodeFactory) -> None:
    """It names the address and the flag, and the exit code is not 0."""
    first = await start_node()
    for port, ops_port, flag in [(first.port, None, "--port"), (None, first.ops_port, "--ops-port")]:
        second = await start_node(ready=False, port=port, ops_port=ops_port)
        assert await second.process.ended() == 1
        (line,) = [json.loads(text) for text in second.lines() if '"error"' in text]
        taken = port or ops_port
        assert line["event"] == (
            f"cannot listen on 127.0.0.1:{taken}: Address already in use; choose another with {flag}"
        )
        assert "Traceback" not in "".join(second.lines())


@redis_only
async def test_one_read_asks_for_no_more_than_4_mb(broker: Broker, start_node: NodeFactory, crowd: Crowd) -> None:
    """Of rooms whose entries may be of any size, after another connection, 256 in one call were 16 MB."""
    node = await start_node(sweep_s=3600)
    rooms, message_bytes_max = 150, 65_536
    for n in range(rooms):
        raw = await crowd.member(node, f"r{n}")
        raw.write(frame(b'{"message":1}'))
        await until(raw.payloads, "its own message: there is a log")
    # Of each read: COUNT, and the logs of rooms.
    reads: list[tuple[int, set[str]]] = []

    async def read_all(commands: Monitor) -> None:
        async for command in commands.listen():
            words = command["command"].split()
            if words[0] == "XREADGROUP":
                logs = {word for word in words if ":log:" in word}
                reads.append((int(words[words.index("COUNT") + 1]), logs))

    async with broker.client() as client, client.monitor() as commands:
        watching = asyncio.create_task(read_all(commands))
        await client.execute_command("CLIENT", "KILL", "USER", "gateway")
        try:
            await until(lambda: len(set().union(*(logs for _, logs in reads))) == rooms, "each room is read")
        finally:
            watching.cancel()
    assert max(count * len(logs) for count, logs in reads if logs) * message_bytes_max <= 4_194_304


@redis_only
async def test_a_broker_that_is_silent_is_told_once_and_not_once_per_lane(
    broker: Broker, start_node: NodeFactory
) -> None:
    """Each lane finds it out by itself, and was told as another reason."""
    node = await start_node(probe_s=1, broker_timeout_s=0.5)
    lanes = ("publish", "read", "doorbell", "page")
    broker.pause()

    async def all_lost() -> bool:
        lost = [await node.metric("hiroba_broker_reconnects_total", lane=lane) for lane in lanes]
        return min(lost) >= 2  # the connection, and one try

    await until(all_lost, "every lane is lost, and tries again in vain")
    reasons = [str(line["reason"]) for line in warnings(node)]
    assert len([reason for reason in reasons if "silent" in reason]) == 1
    assert len(reasons) == len({re.sub(r"[0-9.]+", "#", reason) for reason in reasons}), reasons
    broker.cont()
    await node.wait_ready()


@redis_only
async def test_the_reason_of_an_absence_is_told_anew_when_it_changes(broker: Broker, start_node: NodeFactory) -> None:
    """`connection lost` was all that was ever said; whoever looked for the network never saw WRONGPASS."""
    node = await start_node(probe_s=1)
    async with broker.client() as client:
        await client.execute_command("ACL", "SETUSER", "gateway", "resetpass", ">another")
        await client.execute_command("CLIENT", "KILL", "USER", "gateway")
        await until(lambda: any("WRONGPASS" in str(line["reason"]) for line in warnings(node)), "it is said")

        async def told() -> bool:
            status, text = await node.get("/readyz", ops=True)
            return status == 503 and "WRONGPASS" in text

        await until(told, "/readyz has it too")
        tries = await node.metric("hiroba_broker_reconnects_total")

        async def tried() -> bool:
            return await node.metric("hiroba_broker_reconnects_total") > tries + 3

        await until(tried, "it tries again and again")
        first, *others = warnings(node)
        assert first["event"] == "broker is away: trying again" and "connection lost" in str(first["reason"])
        assert {line["event"] for line in others} == {"broker is still away, for another reason"}
        kinds = {str(line["reason"]) for line in (first, *others)}
        assert len(kinds) == len(others) + 1, "each reason once"
        await client.execute_command("ACL", "SETUSER", "gateway", f">{PASSWORDS['gateway']}")
        await node.wait_ready()
    assert await node.get("/readyz", ops=True) == (200, "ready\n")
