"""The backup of docs/operations.md, made while people speak, restored into another directory."""

import shutil
from pathlib import Path

import aiohttp
import pytest

from tests.conftest import BrokerFactory
from tests.support.broker import Broker, BrokerOptions, Kind
from tests.support.node import Node
from tests.support.until import until

CONF = Path(__file__).parents[2] / "broker_config" / "valkey.conf"


@pytest.mark.parametrize("kind", ["redis", "valkey"])
async def test_a_copy_made_under_traffic_restores_what_was_acknowledged_before_it(
    start_broker: BrokerFactory, tmp_path: Path, kind: Kind
) -> None:
    broker = await start_broker(kind=kind, conf=CONF, appendfsync="always")
    node = await Node(broker.url, tmp_path, messages_per_s=0).start()
    acknowledged = []
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(node.ws_url("square"), protocols=("hiroba.v1",)) as ws,
        broker.client() as operator,
    ):

        async def say(count: int) -> None:
            for number in range(count):
                await ws.send_json({"type": "message", "message": number, "ref": number})
            answers = 0
            while answers < count:
                said = await ws.receive_json(timeout=20)
                if said["type"] == "ack":
                    acknowledged.append(said["id"].encode())
                    answers += 1

        await say(200)
        before = list(acknowledged)
        await operator.config_set("auto-aof-rewrite-percentage", 0)
        assert (await operator.info("persistence"))["aof_rewrite_in_progress"] == 0
        (restored := tmp_path / "restored").mkdir()
        await ws.send_json({"type": "message", "message": "meanwhile"})
        shutil.copytree(broker.directory / "appendonlydir", restored / "appendonlydir")
        await say(50)
        await operator.config_set("auto-aof-rewrite-percentage", 100)

    other = Broker(restored, BrokerOptions(kind=kind, conf=CONF, appendfsync="always"))
    await other.start()
    async with other.client() as operator:
        keys = [key async for key in operator.scan_iter(match="hiroba:*:log:square")]
        ids = [id for id, _ in await operator.xrange(keys[0])]
    assert ids[: len(before)] == before
    # A node goes on from there.
    again = await Node(other.url, tmp_path, "again").start()
    async with aiohttp.ClientSession() as http, http.ws_connect(again.ws_url("square", history=10)) as ws:
        heard = [(await ws.receive_json(timeout=20))["message"] for _ in range(10)]
    assert heard[-1] in (199, "meanwhile", *range(50))
    await until(again.is_ready, "the node is ready on the restored broker")
