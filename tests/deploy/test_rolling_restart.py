"""A new version is rolled out while people chat: every node behind the load balancer restarted, one by one."""

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from tests.deploy.cluster import Cluster
from tests.deploy.load import Load, codes
from tests.support.broker import Broker
from tests.support.node import Node
from tests.support.until import until

# A client is back within what the node asked for and so much more.
BACK_MS = 5_000


@dataclass
class Watch:
    """Looks at HAProxy's statistics all the time: which node got handshakes while it was down."""

    cluster: Cluster
    # By server: handshakes that it had got when it was first seen down; None while it is up.
    down_at: dict[str, int | None] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    async def run(self) -> None:
        while True:
            for name, row in (await self.cluster.balancer.states()).items():
                if not name.startswith("node"):
                    continue
                got, known = int(row["stot"]), self.down_at.get(name)
                if not row["status"].startswith("DOWN"):
                    self.down_at[name] = None
                elif known is None:
                    self.down_at[name] = got
                elif got != known:
                    self.wrong.append(f"{name} got {got - known} handshakes while it was down")
            await asyncio.sleep(0.02)


@dataclass
class Churn:
    """People who come and go all the time. Nobody may find a closed door."""

    cluster: Cluster
    came: int = 0
    refused: list[str] = field(default_factory=list)

    async def run(self) -> None:
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(connector=connector) as http:
            while True:
                try:
                    async with http.ws_connect(self.cluster.balancer.ws_url("churn")):
                        self.came += 1
                except (aiohttp.ClientError, OSError) as exc:
                    self.refused.append(repr(exc))
                await asyncio.sleep(0.05)


def refusals(node: Node) -> list[str]:
    lines = [json.loads(line) for line in node.lines() if '"REJECT"' in line]
    return [line["reason"] for line in lines]


async def restart(cluster: Cluster, number: int) -> None:
    node = cluster.nodes[number]
    assert await node.stop(within_s=60) == 0
    await node.start()

    async def back() -> bool:
        return await cluster.balancer.status(number) == "UP"

    await until(back, f"node{number} takes handshakes again", within_s=40, every_s=0.05)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.long)])
@pytest.mark.parametrize("broker", ["redis"], indirect=True)
async def test_all_nodes_are_restarted_and_nobody_loses_a_word(broker: Broker, tmp_path: Path, count: int) -> None:
    cluster = await Cluster.start(broker, tmp_path, count, drain_s=1.5)
    resuming = Load(cluster, tmp_path, "v1", users=33, rooms=3, rate=45)
    plain = Load(cluster, tmp_path, "plain", users=12, rooms=3, rate=30)
    await asyncio.gather(resuming.begin(), plain.begin())
    watch, churn = Watch(cluster), Churn(cluster)
    besides = [asyncio.create_task(watch.run()), asyncio.create_task(churn.run())]
    for number in range(count):
        await restart(cluster, number)
    for task in besides:
        assert not task.done(), task
        task.cancel()

    for load, outcome in ((resuming, await resuming.end()), (plain, await plain.end())):
        assert outcome.counts["closed"] >= load.users, "everybody was sent away at least once"
        assert codes(outcome) == {1012}
        (returned,) = outcome.result["returns"]
        if load is resuming:
            assert outcome.counts["resumed"] == returned["asked"] == returned["returned"]
            assert returned["overdue_ms"]["max"] <= BACK_MS

    assert watch.wrong == []
    assert churn.came > 100 and churn.refused == []
    assert [refusals(node) for node in cluster.nodes] == [[]] * count
