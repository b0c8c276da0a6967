"""The harness against real nodes on a real broker: built-in scenarios, both wires, faults that resuming heals."""

import asyncio
import json
import shlex
import signal
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy.pages import typed
from loadtest.wires import WIRES
from tests.conftest import BrokerFactory
from tests.loadtest.harness import ROOT, Started, run, start
from tests.support.broker import Broker
from tests.support.node import Node
from tests.support.ports import free_port
from tests.support.tokens import SECRET
from tests.support.until import until


@pytest.fixture
async def nodes(start_broker: BrokerFactory, tmp_path: Path) -> AsyncIterator[list[Node]]:
    """Two nodes of one broker."""
    broker: Broker = await start_broker(kind="redis")
    made = [Node(broker.url, tmp_path, name, messages_per_s=0) for name in ("first", "second")]
    await asyncio.gather(*(node.start() for node in made))
    yield made
    await asyncio.gather(*(node.kill() for node in made))


def urls(nodes: list[Node]) -> tuple[str, ...]:
    """Both addresses, as for nodes without a load balancer."""
    return tuple(word for node in nodes for word in ("-H", node.url().replace("http://", "ws://")))


def figures(port: int) -> dict[str, float]:
    """What a run says of itself; nothing while it does not serve."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text = str(answer.read().decode())
    except OSError:
        return {}
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}


async def test_every_built_in_scenario_and_both_wires(nodes: list[Node], tmp_path: Path) -> None:
    """Two nodes, all scenarios at once, 120 users: nothing is lost however they come and go."""
    users, handshakes = 120, 400

    async def all_scenarios(wire: str, *more: str) -> Started:
        directory = tmp_path / wire
        scenarios = ("chatter", "presenter", "lurker", "churn", "stampede", "jitter")
        named = [word for name in scenarios for word in ("-f", name)]
        fast = ["--set", "every_s=1.5", "--set", "away_s=0.3", "--set", "stay_s=1"]
        crowd = ("-u", f"{users // 2}", "--rooms", "5", "-r", "60", "--rate", "150", "-t", "10m", "--wire", wire)
        return await start(directory, "--prometheus-port", "0", *urls(nodes), *named, *fast, *crowd, *more)

    async def they_come_and_go() -> bool:
        return sum([await node.metric("hiroba_handshakes_total") for node in nodes]) >= handshakes

    scrape = ("--metrics", nodes[0].ops_url("/metrics"), "--metrics", nodes[1].ops_url("/metrics"))
    harnesses = await asyncio.gather(all_scenarios("plain"), all_scenarios("v1", *scrape))
    await until(they_come_and_go, f"{handshakes - users} came back", within_s=60)
    for harness in harnesses:
        harness.process.send_signal(signal.SIGINT)
    plain, v1 = await asyncio.gather(*(harness.finish() for harness in harnesses))
    for outcome in (plain, v1):
        outcome.assert_clean()
        assert outcome.counts["sent"] > 0
        assert {row["name"] for row in outcome.result["scenarios"]} == {
            *("Chatter", "Presenter", "Listener", "Lurker", "Churn", "Stampede", "Jitter")
        }
    # Who was let in at the very end may not have heard of it.
    assert plain.counts["connected"] + v1.counts["connected"] >= handshakes - users
    assert v1.counts["resumed"] > 0 and v1.counts["replayed"] > 0
    assert plain.counts["resumed"] == 0
    assert any("not resumable" in note for note in plain.result["notes"])
    figures = v1.result["server"]["figures"]
    assert figures["connections_max"] > 0  # of what was there once a second
    assert figures["cpu_per_delivery_us"] > 0
    assert v1.result["server"]["closes"]["client"] > 0


async def test_a_node_that_is_killed_costs_resuming_users_nothing(nodes: list[Node], tmp_path: Path) -> None:
    """The run lasts until everybody is back: on a busy machine six seconds were over before they were in."""
    users, port = 40, free_port()
    crowd = ("-u", f"{users}", "--rooms", "4", "-r", "100", "--rate", "100", "-t", "10m", "--wire", "v1")
    harness = await start(tmp_path, "--prometheus-port", str(port), *urls(nodes), *crowd)

    async def all_are_in() -> bool:
        return (await asyncio.to_thread(figures, port)).get("hiroba_loadtest_users") == users

    async def all_are_back() -> bool:
        return await nodes[1].metric("hiroba_sessions_live") == users

    await until(all_are_in, "all users are in, by their own count", within_s=60)
    await nodes[0].kill()
    await until(all_are_back, "all users are on the second node", within_s=60)
    harness.process.send_signal(signal.SIGINT)
    outcome = await harness.finish()
    outcome.assert_clean()
    assert outcome.counts["resumed"] == outcome.counts["closed"] == users / 2
    assert outcome.counts["gaps"] == outcome.counts["not_recovered"] == 0


async def test_a_slow_reader_has_a_row_of_its_own(nodes: list[Node], tmp_path: Path) -> None:
    crowd = ("-f", "slow-reader", "--set", "read_bytes_s=4000", "--message-bytes", "1000")
    outcome = await run(
        tmp_path, *urls(nodes[:1]), *crowd, "-u", "12", "--rooms", "2", "--rate", "100", "-t", "5s", "-r", "50"
    )
    outcome.assert_clean()
    rows = {row["name"]: row for row in outcome.result["scenarios"]}
    assert rows["SlowReader"]["slow_on_purpose"]
    assert rows["SlowReader"]["latency_ms"]["p90"] > rows["Chatter"]["latency_ms"]["p90"]
    assert outcome.result["latency_ms"]["max"] == rows["Chatter"]["latency_ms"]["max"]


async def test_a_server_that_limits_the_rate_is_named_with_its_setting(
    start_broker: BrokerFactory, tmp_path: Path
) -> None:
    broker: Broker = await start_broker(kind="redis")
    node = Node(broker.url, tmp_path, "strict", messages_per_s=2, flood_s=0.2)
    await node.start()
    loud = ("--rate", "200", "--message-bytes", "2000")
    outcome = await run(tmp_path, *urls([node]), "-u", "3", "--rooms", "1", *loud, "-t", "3s")
    await node.kill()
    assert any("1008" in note and "messages_per_s" in note for note in outcome.result["notes"])


async def test_the_scenario_of_the_documentation_works(nodes: list[Node], tmp_path: Path) -> None:
    page = (ROOT / "docs" / "load-testing.md").read_text("utf-8")
    scenario = tmp_path / "gossip.py"
    scenario.write_text(page.split("```python\n", 1)[1].split("```", 1)[0])
    outcome = await run(tmp_path, *urls(nodes), "-f", str(scenario), "-u", "20", "-r", "50", "-t", "4s", "--rooms", "3")
    outcome.assert_clean()
    assert outcome.counts["sent"] > 0
    assert outcome.result["model"].startswith("closed")


async def test_the_run_has_metrics_of_its_own(nodes: list[Node], tmp_path: Path) -> None:
    port = free_port()
    crowd = ("-u", "10", "--rooms", "2", "-r", "50", "--rate", "50", "-t", "5s")
    harness = await start(tmp_path, *urls(nodes), *crowd, "--prometheus-port", str(port))

    async def delivers() -> bool:
        values = await asyncio.to_thread(figures, port)
        return values.get("hiroba_loadtest_delivered_total", 0) > 0 and values["hiroba_loadtest_users"] == 10

    await until(delivers, "deliveries in the run's metrics", within_s=30)
    outcome = await harness.finish()
    outcome.assert_clean()
    assert json.dumps(outcome.result)


async def test_a_server_that_lets_nobody_in_without_a_token(start_broker: BrokerFactory, tmp_path: Path) -> None:
    """Each user brings one of their own, over either wire; without, the first sentence says what is missing."""
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    broker = await start_broker(kind="redis")
    node = Node(broker.url, tmp_path, token_keys=f"HS256:{SECRET}", token_audience="hiroba", token_issuer="site")
    await node.start()
    here = {"wss://chat.example.org": node.url().replace("http://", "ws://"), "--token-key secret": "--token-key KEY"}
    fewer = {"-u 200": "-u 10", "--rate 100": "--rate 20", "-t 60s": "-t 1s"}
    command = typed("docs/load-testing.md", "hiroba loadtest run -H wss", here | fewer)
    keyed = shlex.split(command.replace("KEY", str(tmp_path / "secret")))[3:]
    crowd, more = keyed[: keyed.index("--token-key")], ("--rooms", "2", "-r", "100", "--settle", "1s")
    with_each = [
        run(tmp_path / wire, *keyed, *more, "--token-claim", "iss=site", "--wire", wire, "--prometheus-port", "0")
        for wire in WIRES
    ]
    try:
        refused, *let_in_all = await asyncio.gather(run(tmp_path / "without", *crowd, *more), *with_each)
        assert refused.exit_code == 1 and "401" in refused.err, refused.err
        for let_in in let_in_all:
            let_in.assert_clean()
            assert let_in.counts["connected"] == 10 and let_in.counts["sent"] > 0
            assert SECRET not in let_in.out + let_in.err + json.dumps(let_in.result)
    finally:
        await node.kill()


@pytest.mark.parametrize("text", [None, "short", "-----BEGIN PRIVATE KEY-----\nnone\n-----END PRIVATE KEY-----"])
async def test_a_key_that_is_none_is_refused_in_a_sentence(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "key").write_text(text)
    refused = await run(tmp_path / "run", "-H", "ws://127.0.0.1:1", "--token-key", str(tmp_path / "key"))
    assert refused.exit_code == 1 and refused.err.startswith("loadtest: --token-key") and refused.err.count("\n") == 1
