"""The registry's heartbeat on a real broker: what it says of this node comes before what it does for others."""

import asyncio

import pytest

from broker_config import users
from gateway.broker.endpoint import Endpoint
from gateway.broker.keys import Keys
from gateway.broker.lane import Lane
from gateway.broker.registry import Registry
from gateway.telemetry.clock import Clock
from tests.conftest import BrokerFactory
from tests.support.broker import PASSWORDS
from tests.support.until import until

TTL_S = 0.5

# What a node has, less one.
RULES = [*users.rules(PASSWORDS)["gateway"], "-del"]


@pytest.mark.denied
async def test_a_node_that_was_forgotten_hears_of_it_whatever_it_may_not_delete(start_broker: BrokerFactory) -> None:
    """Without +del the beat that found a dead node ended there, and no later one says that this node was forgotten."""
    broker = await start_broker(kind="redis")
    async with broker.client() as operator:
        await operator.execute_command("ACL", "SETUSER", "poorer", *RULES)
        lane = Lane("read", "n1", Endpoint(broker.url.replace("//gateway:", "//poorer:"), 5), 5, 60, lambda *_: None)
        clock, forgotten = Clock(), list[str]()
        registry = await asyncio.to_thread(  # it reads its script
            Registry, "n1", Keys("hiroba", 0), lane, clock, TTL_S, lambda: forgotten.append("n1")
        )
        running = [asyncio.create_task(work) for work in (lane.run(), clock.run())]
        await lane.up()
        await registry.beat()
        assert not forgotten, "it only came"
        await until(lambda: registry._settled, "others had their time")
        seconds, _ = await operator.time()
        await operator.delete("hiroba:nodes")
        await operator.zadd("hiroba:nodes", {"dead": (seconds - 60) * 1000, "lives": (seconds + 1) * 1000})
        await registry.beat()
        assert forgotten == ["n1"] and registry.alive == {"n1", "lives"}
        for task in running:
            task.cancel()
        await asyncio.wait(running)
