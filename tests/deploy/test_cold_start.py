"""Nobody stands before an open door: a crowd that was cut off is back within seconds of its server's return.

docs/protocol.md, "Coming back". The harness does what it says; a real node starts late behind a real HAProxy.
"""

import asyncio
import time
from pathlib import Path

import aiohttp
import pytest

from loadtest.returns import STEP_MAX_S
from tests.conftest import NodeFactory
from tests.deploy.cluster import Cluster
from tests.deploy.load import Load
from tests.support.broker import Broker
from tests.support.haproxy import RISE, HAProxy
from tests.support.until import until

pytestmark = pytest.mark.parametrize("broker", ["redis"], indirect=True)

USERS = 100
AWAY_S = 6.0
# haproxy.cfg's.
RETRY_AFTER_S = 2
# The last refusal comes just before the node is up again, and then the longest step; the rest is for a busy machine.
BACK_S = RISE + RETRY_AFTER_S + STEP_MAX_S + 6


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_a_crowd_is_back_within_seconds_of_its_server(broker: Broker, tmp_path: Path) -> None:
    cluster = await Cluster.start(broker, tmp_path, 1)
    (node,) = cluster.nodes
    load = Load(cluster, tmp_path, "v1", users=USERS, rooms=10, rate=120)
    await load.begin()
    gone = time.monotonic()
    await node.kill()
    await asyncio.sleep(AWAY_S)
    await node.start()
    began = time.monotonic()
    outcome = await load.end(started_late=True)
    (returned,) = outcome.result["returns"]
    assert (returned["code"], returned["returned"]) == (1006, USERS)
    assert returned["away_ms"]["max"] <= (began - gone + BACK_S) * 1000
    # Retry-After was waited for: one try at once, one for each time it passed. Without it there would be no such bound.
    refused = sum(outcome.result["refusals"].values())
    assert USERS <= refused <= USERS * ((began - gone + RISE) / RETRY_AFTER_S + 2)


async def test_a_crowd_before_a_cold_server_uses_up_no_handshakes(start_node: NodeFactory, tmp_path: Path) -> None:
    """A 503 lets nobody in. Counted, a company behind one address got 429 when its server was there at last."""
    node = await start_node(ready=False)
    await node.kill()
    balancer = HAProxy([node], tmp_path, LB_ADDRESS_HANDSHAKES_MAX=5)
    balancer.process.spawn()
    statuses = []
    async with aiohttp.ClientSession() as http:

        async def handshake() -> int:
            try:
                await (await http.ws_connect(balancer.ws_url("office"))).close()
            except aiohttp.WSServerHandshakeError as refused:
                return refused.status
            return 101

        async def out() -> bool:
            return await balancer.status(0) == "DOWN"

        await until(out, "HAProxy knows that nobody is there", every_s=0.05)
        statuses = [await handshake() for _ in range(20)]
        assert set(statuses) == {503}
        await node.start()

        async def back() -> bool:
            return await balancer.status(0) == "UP"

        await until(back, "HAProxy knows that it is there again", every_s=0.05)
        assert await handshake() == 101
