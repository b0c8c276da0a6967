"""Who is here, whatever befalls nodes and broker: nobody is told as gone who is there, and the truth comes in time."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.cluster.conftest import QUICK, redis_only
from tests.conftest import NodeFactory
from tests.support import process
from tests.support.broker import Broker, BrokerOptions
from tests.support.client import Client, Crowd
from tests.support.node import Node
from tests.support.onlooker import Onlooker, come, look
from tests.support.proxy import Proxy
from tests.support.tokens import SECRET

KEYS: dict[str, object] = {"token_keys": f"HS256:{SECRET}"}
# Some seconds: on a busy machine a node must not be late with ten heartbeats.
GRACE: dict[str, object] = {**KEYS, "presence_grace_s": 4}


@redis_only
async def test_of_a_node_that_is_killed_who_comes_back_was_never_gone(
    broker: Broker, quick_node: NodeFactory, crowd: Crowd
) -> None:
    """The others are told to have left, once, and not before their time."""
    here, there = await asyncio.gather(quick_node(**GRACE), quick_node(**GRACE))
    ann = await look(crowd, here, "ann")
    await come(crowd, there, "bob")
    await come(crowd, there, "carl")
    await ann.sees("ann", "bob", "carl")
    killed_at = time.monotonic()
    await there.kill()
    await come(crowd, here, "bob")
    await ann.sees("ann", "bob")
    assert time.monotonic() - killed_at > 3.5
    assert ann.left == ["carl"]


@redis_only
async def test_a_broker_that_was_flushed_makes_nobody_leave(
    broker: Broker, proxy: Proxy, far_node: NodeFactory, quick_node: NodeFactory, crowd: Crowd
) -> None:
    """The nodes say again who is there, also one that comes late to it. Who came is told at once, and who went in the
    end."""
    here, there = await asyncio.gather(quick_node(**GRACE), far_node(**GRACE))
    ann, bob = await look(crowd, here, "ann"), await look(crowd, there, "bob")
    carl = await come(crowd, there, "carl")
    await ann.sees("ann", "bob", "carl")
    proxy.freeze()
    async with broker.client() as redis:
        await redis.flushall()
    await carl.leave()
    await come(crowd, here, "dora")
    await ann.sees("ann", "bob", "carl", "dora")
    proxy.thaw()
    for onlooker in (ann, bob):
        await onlooker.sees("ann", "bob", "dora")
        assert onlooker.left == ["carl"]


@redis_only
@pytest.mark.long
async def test_a_broker_that_is_killed_makes_nobody_leave(
    broker: Broker, quick_node: NodeFactory, crowd: Crowd
) -> None:
    """Another server answers, with what it had: the nodes say again who is there. Who went meanwhile is told so."""
    here, there = await asyncio.gather(quick_node(**GRACE), quick_node(**GRACE))
    ann, bob = await look(crowd, here, "ann"), await look(crowd, there, "bob")
    carl = await come(crowd, here, "carl")
    await ann.sees("ann", "bob", "carl")
    await broker.kill()
    await carl.leave()
    await broker.start()
    await come(crowd, there, "dora")
    for onlooker in (ann, bob):
        await onlooker.sees("ann", "bob", "dora")
        assert onlooker.left == ["carl"]


@redis_only
async def test_a_node_that_drains_makes_nobody_leave(broker: Broker, quick_node: NodeFactory, crowd: Crowd) -> None:
    """Its users come back elsewhere within their time."""
    here, there = await asyncio.gather(quick_node(**GRACE), quick_node(**GRACE))
    ann, bob = await look(crowd, here, "ann"), await look(crowd, there, "bob")
    await ann.sees("ann", "bob")
    assert await there.stop() == 0
    back = await look(crowd, here, "bob")
    await back.sees("ann", "bob")
    await come(crowd, here, "carl")
    await (await come(crowd, here, "dora")).leave()
    await ann.sees("ann", "bob", "carl")  # dora left behind what bob's former node had said
    assert ann.left == ["dora"] and "bob" not in bob.left


# ---- against a model ----

USERS = ["ann", "bob", "carl"]
# Somebody comes, to one of two nodes, by one more connection; one of somebody's connections ends; somebody reloads, and
# comes back by the other node; a node is killed, and started again; the broker forgets all; all wait until they agree.
steps = st.one_of(
    st.tuples(st.just("come"), st.sampled_from(USERS), st.integers(0, 1)),
    st.tuples(st.just("go"), st.sampled_from(USERS)),
    st.tuples(st.just("reload"), st.sampled_from(USERS)),
    st.tuples(st.just("kill"), st.integers(0, 1)),
    st.tuples(st.just("flush")),
    st.tuples(st.just("agree")),
)
GRACE_S = 2.0


class Story:
    """Users with connections on two nodes, each with somebody who looks; and the model: who has any connection."""

    def __init__(self, crowd: Crowd, broker: Broker, nodes: list[Node], room: str) -> None:
        self.crowd = crowd
        self.broker = broker
        self.nodes = nodes
        self.room = room
        self.connections: dict[str, list[tuple[int, Client]]] = {user: [] for user in USERS}
        self.onlookers: list[Onlooker] = []
        # Since when a user has no connection, and the longest that he had none since he first came.
        self.gone_at: dict[str, float] = {}
        self.away_s: dict[str, float] = {}

    async def tell(self, plan: list[tuple[Any, ...]]) -> None:
        self.onlookers = [await look(self.crowd, node, f"looker{at}", self.room) for at, node in enumerate(self.nodes)]
        for act, *arguments in plan:
            await getattr(self, f"_{act}")(*arguments)
        await self._agree()

    async def _come(self, user: str, node: int) -> None:
        self.connections[user].append((node, await come(self.crowd, self.nodes[node], user, self.room)))
        if user in self.gone_at:
            self.away_s[user] = max(self.away_s.get(user, 0.0), time.monotonic() - self.gone_at.pop(user))

    async def _go(self, user: str) -> None:
        if self.connections[user]:
            _, client = self.connections[user].pop(0)
            await client.leave()
            self._went(user)

    async def _reload(self, user: str) -> None:
        if self.connections[user]:
            node, _ = self.connections[user][0]
            await self._go(user)
            await self._come(user, 1 - node)

    def _went(self, user: str) -> None:
        if not self.connections[user]:
            self.gone_at[user] = time.monotonic()

    async def _kill(self, at: int) -> None:
        """All its users lose their connections; who looked there comes back when it does."""
        await self.nodes[at].kill()
        for user, connections in self.connections.items():
            left = [one for one in connections if one[0] != at]
            if len(left) < len(connections):
                self.connections[user] = left
                self._went(user)
        self.nodes[at].process.spawn()
        await self.nodes[at].wait_ready()
        self.onlookers[at] = await look(self.crowd, self.nodes[at], f"looker{at}", self.room)

    async def _flush(self) -> None:
        async with self.broker.client() as redis:
            await redis.flushall()

    async def _agree(self) -> None:
        there = [user for user, connections in self.connections.items() if connections]
        for onlooker in self.onlookers:
            await onlooker.sees("looker0", "looker1", *there)
        for user in USERS:
            away_s = max(self.away_s.get(user, 0.0), time.monotonic() - self.gone_at.get(user, time.monotonic()))
            if away_s < GRACE_S / 2:
                assert not [onlooker for onlooker in self.onlookers if user in onlooker.left], f"{user} never left"


@pytest.fixture
def house(tmp_path: Any) -> Iterator[tuple[Broker, list[Node]]]:
    """A broker and two nodes that outlive the stories."""
    broker = Broker(tmp_path / "broker", BrokerOptions())
    quick = {**QUICK, **KEYS, "presence_grace_s": GRACE_S}
    nodes = [Node(broker.url, tmp_path, name, **quick) for name in ("here", "there")]

    async def start() -> None:
        await broker.start()
        await asyncio.gather(*(node.start() for node in nodes))

    asyncio.run(start())
    process.started.clear()
    yield broker, nodes
    for child in (*(node.process for node in nodes), broker.process):
        child.kill_now()
    assert not [line for node in nodes for line in node.lines() if '"level": "error"' in line]


def tell_stories(house: tuple[Broker, list[Node]], stories: int) -> None:
    broker, nodes = house
    told = 0
    with asyncio.Runner() as runner:

        @settings(max_examples=stories, phases=[Phase.generate])  # what fails has waited long: no shrinking
        @given(st.lists(steps, min_size=4, max_size=10))
        def story_comes_true(plan: list[tuple[Any, ...]]) -> None:
            nonlocal told

            async def one() -> None:
                async with Crowd() as crowd:
                    await Story(crowd, broker, nodes, f"room{told}").tell(plan)

            told += 1
            runner.run(one())

        story_comes_true()


def test_all_see_who_is_there(house: tuple[Broker, list[Node]]) -> None:
    """Whoever comes, goes, reloads, by whichever node; whoever dies or forgets: in the end all see the same, and nobody
    who was never away for long is told to have left."""
    tell_stories(house, 4)


@pytest.mark.long
def test_all_see_who_is_there_in_many_stories(house: tuple[Broker, list[Node]]) -> None:
    """The same."""
    tell_stories(house, 40)
