"""A new version is rolled out while people chat: every node behind the load balancer restarted, one by one."""

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from tests.deploy.cluster import Cluster, crowd, judge, settle
from tests.support.broker import Broker
from tests.support.node import Node
from tests.support.until import until

# A client is back within what the node asked for and so much more.
BACK_S = 5.0


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
    watch, churn = Watch(cluster), Churn(cluster)
    async with crowd(cluster, ["red", "green", "blue"], listeners=10, plain=4, every_s=0.1) as (resumers, plains):
        besides = [asyncio.create_task(watch.run()), asyncio.create_task(churn.run())]
        for number in range(count):
            await restart(cluster, number)
        for task in besides:
            assert not task.done(), task
            task.cancel()
        await settle(cluster, resumers, plains)
        await judge(cluster, resumers, plains)

    outages = [outage for client in resumers for outage in client.outages]
    assert len(outages) >= len(resumers), "everybody was sent away at least once"
    assert {outage.code for outage in outages} == {1012}
    for outage in outages:
        assert outage.after_s is not None and outage.seconds <= outage.after_s + BACK_S
    assert {stay.code for plain in plains for stay in plain.stays} <= {1012, None}
    assert all(len(plain.stays) > 1 for plain in plains)

    assert watch.wrong == []
    assert churn.came > 100 and churn.refused == []
    assert [refusals(node) for node in cluster.nodes] == [[]] * count
