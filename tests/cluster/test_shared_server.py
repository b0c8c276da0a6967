"""Installations that share a server and know nothing of each other, by the number of a database or a prefix of keys."""

import asyncio

import pytest

from tests.cluster.chat import Chat, balanced, say
from tests.cluster.conftest import redis_only
from tests.conftest import NodeFactory
from tests.support.broker import Broker
from tests.support.node import Node

ROOM = "square"
pytestmark = redis_only


@pytest.fixture(params=["database", "key_prefix"])
async def staging(quick_node: NodeFactory, broker: Broker, request: pytest.FixtureRequest) -> tuple[Node, Node]:
    """Two nodes of another installation. No sweep comes in time for a bell that is not heard."""
    if request.param == "database":
        aside: dict[str, object] = {"broker_url": broker.url.replace("/0", "/1")}
    else:
        aside = {"key_prefix": "hiroba:staging"}
    return await asyncio.gather(quick_node(sweep_s=300, **aside), quick_node(sweep_s=300, **aside))


async def test_what_is_said_in_one_installation_disturbs_nobody_of_another(
    quick_node: NodeFactory, chat: Chat, staging: tuple[Node, Node]
) -> None:
    """Pub/sub ignores SELECT: staging's first word closed production's plain clients 4009, 5 of 5, and v1 heard of 20
    entries lost. And nodes of two installations are none of each other's business."""
    production = await quick_node()
    here = await chat.join(production, ROOM)
    plain = [await chat.join(production, ROOM, "plain") for _ in range(5)]
    ever = await say(here, *(f"said {n}" for n in range(20)))
    there, beside = [await chat.join(node, ROOM) for node in staging]
    apart = await say(there, "staging's first word")
    await balanced(beside, apart)
    ever += await say(here, "production goes on")
    await balanced(here, ever)
    for member in plain:
        await member.hears(*(entry.message for entry in ever))
    assert not here.gaps and not beside.gaps
    assert await production.metric("hiroba_logs_rewound_total") == 0
    nodes = [await chat.broker.zrange(key, 0, -1) for key in ("hiroba:nodes", "hiroba:staging:nodes")]
    assert here.welcomes[0]["node"].encode() in nodes[0]
    assert there.welcomes[0]["node"].encode() not in nodes[0]


async def test_bells_ring_within_an_installation(chat: Chat, staging: tuple[Node, Node]) -> None:
    """Beside database 0 and its prefix: heard by a bell, for the sweep is minutes away."""
    speaker, *others = [await chat.join(node, ROOM) for node in (*staging, *staging)]
    ever = await say(speaker, *(f"said {n}" for n in range(10)))
    for member in (speaker, *others):
        await balanced(member, ever)
