"""One connection of a node falls silent in one direction while all others work: it is found, said, and made anew."""

import asyncio

import pytest

from tests.cluster.chat import Chat, balanced, say
from tests.cluster.conftest import redis_only
from tests.conftest import NodeFactory
from tests.support.node import Node
from tests.support.proxy import Proxy
from tests.support.until import until

LANES = ("publish", "read", "doorbell", "page")


async def unready(node: Node) -> bool:
    return not await node.is_ready()


@redis_only
@pytest.mark.parametrize("lane", LANES)
async def test_a_connection_that_falls_silent_is_found_said_and_made_anew(
    far_node: NodeFactory, chat: Chat, proxy: Proxy, lane: str
) -> None:
    """The doorbell's was never missed in 150 s: the sweep reads the probe's log too, and stood in for the bell."""
    node = await far_node(probe_s=1, sweep_s=0.2)
    speaker = await chat.join(node, "square")
    ever = await say(speaker, "zero")
    for count, way in enumerate(("up", "down"), 1):
        silent = await proxy.link_named(f"-{lane}", chat.broker)
        others = [link for link in proxy.open_links if link is not silent]
        proxy.refusing = True  # else it is back before anybody could look
        getattr(silent, way).freeze()
        await until(lambda: unready(node), f"/readyz says no: {way}")

        async def found(count: int = count) -> bool:
            return await node.metric("hiroba_probe_timeouts_total") >= count

        await until(found, "it is left")
        assert f"the {lane} lane is silent" in "".join(node.lines())
        assert set(others) <= set(proxy.open_links), "the others work, and are kept"
        proxy.refusing = False
        await node.wait_ready()
        rung = await node.metric("hiroba_doorbells_total")

        async def turned(rung: float = rung) -> bool:
            return await node.metric("hiroba_doorbells_total") >= rung + 2

        await until(turned, "each connection was asked again")  # else its patience is twice as long
        late = await chat.join(node, f"opened_after_{way}", history=10)
        await say(late, "one", "two")
        ever += await say(speaker, f"back {way}")
        await balanced(speaker, ever)
        assert not speaker.gaps and not speaker.errors
        assert await node.metric("hiroba_probe_timeouts_total") == count
        assert await node.metric("hiroba_broker_reconnects_total", lane=lane) >= count
        whole = await chat.join(node, "square", history=10)
        await whole.hears(*(entry.message for entry in ever))
        await chat.answers_agree("square")


@redis_only
async def test_a_subscription_that_nobody_confirms_has_a_bound_of_its_own(
    far_node: NodeFactory, chat: Chat, proxy: Proxy
) -> None:
    """Every join of a room that was not open already was answered 503 after 10 s."""
    node = await far_node(probe_s=60, broker_timeout_s=1)
    proxy.hold_at(b"SSUBSCRIBE")
    joining = asyncio.create_task(chat.join(node, "square"))
    await proxy.held()
    speaker = await joining
    await balanced(speaker, await say(speaker, "one"))
    assert "no answer to SSUBSCRIBE" in "".join(node.lines())
    assert await node.metric("hiroba_broker_reconnects_total", lane="doorbell") >= 1
