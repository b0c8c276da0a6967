"""What the tests of one or two real nodes share: a node that serves a whole module."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.support import process
from tests.support.broker import Broker, BrokerOptions
from tests.support.node import Node

redis_only = pytest.mark.parametrize("broker", ["redis"], indirect=True)


@pytest.fixture(scope="module")
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Broker, Node]]:
    """A broker and a node on it, with the module's own SETTINGS, that outlive a test: starting takes a second."""
    directory = tmp_path_factory.mktemp("house")
    broker = Broker(directory / "broker", BrokerOptions())
    asyncio.run(broker.start())
    node = Node(broker.url, directory, "shared-node", **getattr(request.module, "SETTINGS", {}))
    asyncio.run(node.start())
    process.started.remove(broker.process)
    process.started.remove(node.process)
    yield broker, node
    node.process.kill_now()
    broker.process.kill_now()
    # Whatever clients did, the node has nothing to complain of; nor has the broker, of what the node may do.
    assert not [line for line in node.lines() if '"level": "error"' in line]


@pytest.fixture
def shared_node(house: tuple[Broker, Node]) -> Iterator[Node]:
    """The module's node. Tests take rooms of their own, and compare counters with what they were before."""
    _, node = house
    process.started.append(node.process)  # a failure shows its log
    yield node
    assert node.process.running, "the node must outlive whatever the test did"
    process.started.remove(node.process)
