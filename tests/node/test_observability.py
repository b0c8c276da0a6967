"""What an operator sees: metrics that are there and move, one line per closed connection, a console like the
tutorial's."""

import json
import re

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry import metrics
from tests.conftest import NodeFactory
from tests.node.conftest import redis_only
from tests.support.client import Crowd
from tests.support.node import Node
from tests.support.until import until

SETTINGS = {"messages_per_s": 0, "linger_s": 0.1, "probe_s": 1, "sweep_s": 0.5}

COUNTERS = {name for _, name, _ in metrics.COUNTERS} | {name for _, name, _, _ in metrics.LABELLED}
# What a person or an alert asks first; each must have a value on a node at work.
GAUGES = {
    "hiroba_sessions_live",
    "hiroba_sessions_behind",
    "hiroba_connections",
    "hiroba_connections_max",
    "hiroba_rooms",
    "hiroba_tails_bytes",
    "hiroba_publish_queue_entries",
    "hiroba_probe_age_seconds",
    "hiroba_broker_clock_offset_seconds",
    "hiroba_ready",
    "hiroba_tasks",
    "hiroba_gather_seconds",
    "hiroba_lag_seconds",
    "hiroba_process_resident_bytes",
    "hiroba_process_open_descriptors",
}
LABELS = {"reason", "what", "lane", "wire", "code", "kind", "operation", "status", "le", "version", "python", "node"}


async def test_every_metric_is_there_with_a_sentence_and_no_rooms_name(shared_node: Node, crowd: Crowd) -> None:
    ann = await crowd.join(shared_node, "secretplans")
    await ann.say("x")
    await ann.hears("x")

    async def page() -> str:
        """With the lag that only a sweep finds out: until then it is unknown, and left out."""
        _, text = await shared_node.get("/metrics", ops=True)
        return text if "\nhiroba_lag_seconds " in text else ""

    text = await until(page, "the sweep went round")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families.keys() >= COUNTERS
    assert {name for _, name, _, _ in metrics.HISTOGRAMS} <= families.keys()
    assert families.keys() >= GAUGES
    for name, family in families.items():
        assert len(family.documentation) > 10, name
        labels = {label for sample in family.samples for label in sample.labels}
        assert labels <= LABELS, name
    assert "secretplans" not in text
    assert families["hiroba_build_info"].samples[0].labels["version"]


async def test_metrics_count_what_happened(shared_node: Node, crowd: Crowd) -> None:
    async def empty() -> bool:
        return await shared_node.metric("hiroba_rooms") == 0

    await until(empty, "the room of the test before is closed")
    before = await shared_node.metrics()
    ann, bob = await crowd.join(shared_node, "counted"), await crowd.join(shared_node, "counted", "plain")
    for n in range(10):
        await ann.say(n, ref=n)
    await bob.hears(*range(10))
    await ann.answer(9)
    guest = await crowd.join(shared_node, "counted", "plain", history=10)
    await guest.hears(*range(10))
    after = await shared_node.metrics()
    probes = after["hiroba_entries_published_total"] - before["hiroba_entries_published_total"] - 10
    assert 0 <= probes < 60

    def grown(name: str) -> float:
        return after[name] - before.get(name, 0)

    assert grown("hiroba_messages_received_total") == 10
    assert grown("hiroba_entries_delivered_total") == 30
    frame = len('{"message":0}') + 2
    assert grown("hiroba_delivered_bytes_total") > 20 * frame
    assert grown("hiroba_walks_total") == 1
    assert grown("hiroba_groups_made_total") >= 1
    assert grown("hiroba_delivery_latency_seconds_count") == 10
    assert 0 < grown("hiroba_delivery_latency_seconds_sum") < 10 * 5
    assert grown("hiroba_deliver_batch_entries_sum") == 20, "two wires"
    assert grown("hiroba_publish_batch_entries_sum") >= 10
    assert grown("hiroba_publish_latency_seconds_count") == grown("hiroba_publish_calls_total") > 0
    for name in (
        "hiroba_doorbells_total",
        "hiroba_reads_total",
        "hiroba_read_rooms_total",
        "hiroba_process_cpu_seconds_total",
    ):
        assert grown(name) > 0, name
    assert after["hiroba_sessions_live"] == 3
    assert after["hiroba_connections"] == 3
    assert after["hiroba_rooms"] == 1
    assert after["hiroba_tails_bytes"] > 0
    assert after["hiroba_ready"] == 1
    assert after["hiroba_probe_age_seconds"] < 30
    assert abs(after["hiroba_broker_clock_offset_seconds"]) < 1, "the same machine's clock"

    async def ticked() -> bool:
        return (
            await shared_node.metric("hiroba_event_loop_lag_seconds_count")
            > after["hiroba_event_loop_lag_seconds_count"]
        )

    await until(ticked, "the loop's lag is measured again and again")


async def test_one_canonical_line_per_closed_connection(shared_node: Node, crowd: Crowd) -> None:
    """Session, room, reason, seconds open, frames and bytes each way."""
    ann, bob = await crowd.join(shared_node, "canonical"), await crowd.join(shared_node, "canonical", "plain")
    await ann.say("うん", ref=1)
    await bob.hears("うん")
    await ann.answer(1)
    session = (await ann.welcome())["session"]
    await ann.leave()
    await bob.send("{")
    await bob.closed()

    def lines() -> list[dict[str, object]]:
        found = [json.loads(line) for line in shared_node.lines() if "canonical" in line]
        return [line for line in found if line.get("step") == "DISCONNECT"]

    await until(lambda: len(lines()) == 2, "two lines")
    line = lines()[0]
    assert re.fullmatch(r"127\.0\.0\.1:\d+", str(line["peer"]))
    assert 0 < float(str(line["seconds"])) < 60
    said = '{"message": "うん", "type": "message", "ref": 1}'
    expected = {
        "level": "info",
        "event": "websocket",
        "path": "/ws/chat/canonical/",
        "session": session,
        "room": "canonical",
        "wire": "v1",
        "reason": "client",
        "frames_in": 1,
        "bytes_in": len(said.encode()),
        "frames_out": 1,
    }
    assert line.items() >= expected.items()
    assert (lines()[1]["wire"], lines()[1]["reason"], lines()[1]["frames_out"]) == ("plain", "bad_data", 1)
    heard = '{"message":"うん"}'
    assert lines()[1]["bytes_out"] == len(heard.encode()) + 2


@redis_only
async def test_the_console_shows_what_the_tutorials_server_showed(start_node: NodeFactory, crowd: Crowd) -> None:
    node = await start_node(log_format="console")
    assert (await node.get("/chat/demoroom/"))[0] == 200
    client = await crowd.join(node, "demoroom", "plain")
    await client.leave()
    await crowd.refused(node, "demoroom", headers={"Origin": "https://evil.example"})
    peer = r"\[127\.0\.0\.1:\d+\]"
    wanted = [
        r"HTTP GET /chat/demoroom/ 200 \[\d+\.\d\d, 127\.0\.0\.1:\d+\]",
        rf"WebSocket HANDSHAKING /ws/chat/demoroom/ {peer}",
        rf"WebSocket CONNECT /ws/chat/demoroom/ {peer}",
        rf"WebSocket DISCONNECT /ws/chat/demoroom/ {peer}",
        rf"WebSocket HANDSHAKING /ws/chat/demoroom/ {peer}",
        rf"WebSocket REJECT /ws/chat/demoroom/ {peer}",
    ]

    def access() -> list[str]:
        return [line for line in node.lines() if "demoroom" in line]

    await until(lambda: len(access()) == len(wanted), "six lines")
    for line, pattern in zip(access(), wanted, strict=True):
        assert re.match(r"\d\d:\d\d:\d\d " + pattern, line), line


@redis_only
async def test_start_up_says_where_and_what(start_node: NodeFactory) -> None:
    node = await start_node()
    told = "\n".join(node.lines())
    assert f"http://127.0.0.1:{node.port}/chat/" in told
    assert f"http://127.0.0.1:{node.ops_port}/metrics" in told
    versions = [json.loads(line).get("version") for line in node.lines()]
    assert any(versions)
    async with aiohttp.ClientSession() as http, http.get(node.ops_url("/metrics")) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
