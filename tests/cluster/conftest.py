"""What the tests of several nodes share: nodes that notice quickly, and a chat on the test's broker."""

from collections.abc import AsyncIterator

import pytest

from tests.cluster.chat import Chat, chat_on
from tests.conftest import NodeFactory
from tests.support.broker import Broker
from tests.support.node import Node

# Times of a node that a test can wait for; the order between them is that of the defaults.
QUICK: dict[str, object] = {
    "messages_per_s": 0,
    "probe_s": 2,
    "broker_timeout_s": 1,
    "heartbeat_s": 0.5,
    "node_ttl_s": 3,
    "sweep_s": 1,
    "linger_s": 0.2,
    "close_s": 1,
    "drain_s": 0,
    "lb_wait_s": 0,
    "log_level": "info",
}

redis_only = pytest.mark.parametrize("broker", ["redis"], indirect=True)


@pytest.fixture
async def quick_node(start_node: NodeFactory) -> NodeFactory:
    """`await quick_node(sweep_s=60)`: a ready node that sees faults within seconds."""

    async def start(**settings: object) -> Node:
        return await start_node(**{**QUICK, **settings})

    return start


@pytest.fixture
async def chat(broker: Broker) -> AsyncIterator[Chat]:
    async with broker.client() as client, chat_on(client) as everybody:
        yield everybody
