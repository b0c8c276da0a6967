"""What the tests of several nodes share: nodes that notice quickly, and a chat on the test's broker."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.cluster.chat import Chat, chat_on
from tests.conftest import NodeFactory
from tests.support import process
from tests.support.broker import Broker, BrokerOptions
from tests.support.node import Metrics, Node
from tests.support.proxy import Proxy
from tests.support.until import until

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
}

redis_only = pytest.mark.parametrize("broker", ["redis"], indirect=True)


@pytest.fixture
async def quick_node(start_node: NodeFactory) -> NodeFactory:
    """`await quick_node(sweep_s=60)`: a ready node that sees faults within seconds."""

    async def start(**settings: object) -> Node:
        return await start_node(**{**QUICK, **settings})

    return start


@pytest.fixture
async def proxy(broker: Broker) -> AsyncIterator[Proxy]:
    async with Proxy(broker.port) as proxy:
        yield proxy


@pytest.fixture
async def far_node(quick_node: NodeFactory, proxy: Proxy, broker: Broker) -> NodeFactory:
    """A node whose road to the broker leads through the proxy: it can be cut off, or led elsewhere."""

    async def start(**settings: object) -> Node:
        return await quick_node(broker_url=broker.url_at("127.0.0.1", proxy.port), **settings)

    return start


@pytest.fixture
async def lasting_node(far_node: NodeFactory) -> NodeFactory:
    """The same, taken for dead by nobody while it is cut off."""

    async def start(**settings: object) -> Node:
        return await far_node(**{"node_ttl_s": 60, **settings})

    return start


@pytest.fixture
async def chat(broker: Broker) -> AsyncIterator[Chat]:
    async with broker.client() as client, chat_on(client) as everybody:
        yield everybody


class Stage:
    """A broker and two nodes that outlive a test. Each takes a room of its own, and counts from what there was."""

    def __init__(self, broker: Broker, nodes: tuple[Node, Node]) -> None:
        self.broker = broker
        self.nodes = nodes
        self.before: dict[Node, Metrics] = {}

    async def grown(self, node: Node, name: str, **labels: str) -> float:
        """By how much a counter grew in this test; summed over the labels not named."""

        def total(metrics: Metrics) -> float:
            wanted = [f'{label}="{value}"' for label, value in labels.items()]
            return sum(
                value
                for key, value in metrics.items()
                if key.partition("{")[0] == name and all(label in key for label in wanted)
            )

        return total(await node.metrics()) - total(self.before[node])

    async def counted(self, node: Node, name: str, at_least: float = 1, **labels: str) -> None:
        """Waits until a counter has grown so much in this test."""

        async def enough() -> bool:
            return await self.grown(node, name, **labels) >= at_least

        await until(enough, f"{name} {labels} grows by {at_least}")


@pytest.fixture(scope="module", params=["redis", "valkey"])
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Started once for a module: starting takes longer than most tests."""
    directory = tmp_path_factory.mktemp("stage")
    broker = Broker(directory / "broker", BrokerOptions(kind=request.param))
    # A node that a test pauses must not be taken for dead.
    here, there = (Node(broker.url, directory, name, **{**QUICK, "node_ttl_s": 60}) for name in ("here", "there"))

    async def start() -> None:
        await broker.start()
        await asyncio.gather(here.start(), there.start())

    asyncio.run(start())
    process.started.clear()
    yield Stage(broker, (here, there))
    for child in (here.process, there.process, broker.process):
        child.kill_now()


@pytest.fixture
async def stage(house: Stage) -> AsyncIterator[Stage]:
    """The module's broker and nodes, ready."""
    children = [house.broker.process, *(node.process for node in house.nodes)]
    process.started.extend(children)  # a failure shows their logs
    for node in house.nodes:
        await node.wait_ready()
        house.before[node] = await node.metrics()
    yield house
    for child in children:
        child.cont()
        assert child.running, f"{child.name} must outlive whatever the test did"
        process.started.remove(child)


_rooms = itertools.count(1)


@pytest.fixture
def room() -> str:
    """A room in which nobody was before."""
    return f"room{next(_rooms)}"
