"""What all nodes must hear: every one of them hears it, also after it was cut off, and whatever befalls the broker."""

import asyncio
from contextlib import suppress

import pytest

from gateway.broker.keys import Keys
from gateway.broker.orders import NoSpace
from gateway.core.orders import Issued, Kick, Token
from tests.cluster.conftest import redis_only
from tests.cluster.test_which_history import replicate
from tests.conftest import BrokerFactory, NodeFactory
from tests.support.broker import Broker
from tests.support.node import Node
from tests.support.orders import give, know, lift
from tests.support.proxy import Proxy
from tests.support.until import until

KEYS = Keys("hiroba", 0)
ANN, BOB, EVE = Kick("ann"), Kick("bob", "lobby"), Token("t-1")


async def cut_off(node: Node, proxy: Proxy) -> None:
    proxy.refusing = True
    proxy.cut()

    async def unready() -> bool:
        return not await node.is_ready()

    await until(unready, "the node is cut off")


async def back(node: Node, proxy: Proxy) -> None:
    proxy.refusing = False
    await node.wait_ready()


async def test_every_node_hears_an_order_and_one_that_starts_later_knows_it(
    quick_node: NodeFactory, broker: Broker
) -> None:
    """By the bell: the sweep is far away."""
    nodes = [await quick_node(sweep_s=60), await quick_node(sweep_s=60)]
    await give(broker, ANN, BOB, EVE, Issued("", 60))
    await know(nodes, 4)
    await lift(broker, BOB)
    await know(nodes, 3)
    assert await nodes[0].metric("hiroba_orders_heard_total", kind="kick") == 3
    nodes.append(await quick_node(sweep_s=60))
    await know(nodes, 3)
    await give(broker, BOB)
    await know(nodes, 4)
    lines = [line for line in nodes[0].lines() if '"event": "order"' in line]
    assert len(lines) == 6 and '"user": "bob", "room": "lobby"' in lines[-1], "the nodes' logs say who was put out"


@redis_only
async def test_an_order_ends_by_itself(quick_node: NodeFactory, broker: Broker) -> None:
    node = await quick_node()
    await give(broker, ANN, for_s=0.5)
    await give(broker, BOB)
    await know([node], 1)
    async with broker.client() as client:
        assert 60 < await client.ttl(KEYS.standing) <= 660

        async def has_left() -> bool:
            await give(broker, EVE)
            return len(await client.zrange(KEYS.standing, 0, -1)) == 3

        await until(has_left, "two that stand, and the stamp", every_s=0.1)


@redis_only
async def test_a_node_that_was_cut_off_goes_on_where_it_was(
    lasting_node: NodeFactory, quick_node: NodeFactory, broker: Broker, proxy: Proxy
) -> None:
    """By the log, and the sooner of the two: nobody is let in before the set was looked at."""
    near, far = await quick_node(), await lasting_node()
    await give(broker, ANN)
    await know([near, far], 1)
    await cut_off(far, proxy)
    await give(broker, BOB, EVE)
    await lift(broker, ANN)
    await know([near], 2)
    await back(far, proxy)
    await know([far], 2)

    async def heard() -> bool:
        return await far.metric("hiroba_orders_heard_total") == 4

    await until(heard, "each of them from the log as well")


@redis_only
async def test_a_node_that_fell_off_the_log_reads_what_stands(
    lasting_node: NodeFactory, quick_node: NodeFactory, broker: Broker, proxy: Proxy
) -> None:
    """It knows what was given meanwhile and what was lifted, though the log holds nothing of it any more."""
    near, far = await quick_node(), await lasting_node(sweep_s=60)
    await give(broker, ANN)
    await know([near, far], 1)
    await cut_off(far, proxy)
    await give(broker, BOB, EVE, Issued("eve", 60))
    await lift(broker, ANN)
    await know([near], 3)
    async with broker.client() as client:
        await client.xtrim(KEYS.orders, maxlen=1, approximate=False)
    await back(far, proxy)
    await know([far], 3)
    assert await far.metric("hiroba_orders_given_again_total") == 0


async def test_what_stands_survives_the_brokers_death(quick_node: NodeFactory, broker: Broker) -> None:
    nodes = [await quick_node(), await quick_node()]
    await give(broker, ANN, BOB)
    await know(nodes, 2)
    await broker.restart()
    await give(broker, EVE)
    await know(nodes, 3)
    await know([await quick_node()], 3)


@redis_only
async def test_what_a_flush_took_the_nodes_give_again(quick_node: NodeFactory, broker: Broker) -> None:
    """Nobody comes back in because somebody emptied the broker; what was lifted stays lifted."""
    nodes = [await quick_node(), await quick_node()]
    await give(broker, ANN, BOB, EVE)
    await lift(broker, BOB)
    await know(nodes, 2)
    async with broker.client() as client:
        await client.flushall()

        async def there_again() -> bool:
            return len(await client.zrange(KEYS.standing, 0, -1)) == 4

        await until(there_again, "two orders, one that was lifted, and the stamp are there again")
    await know([*nodes, await quick_node()], 2)
    assert sum([await node.metric("hiroba_orders_given_again_total") for node in nodes]) == 3, "each by one of them"


@redis_only
async def test_a_flush_is_seen_though_somebody_gives_an_order_right_behind_it(
    quick_node: NodeFactory, broker: Broker
) -> None:
    node = await quick_node(sweep_s=60)
    await give(broker, ANN, BOB)
    await know([node], 2)
    async with broker.client() as client:
        await client.flushall()
    await give(broker, EVE)
    await know([node], 3)
    await know([await quick_node()], 3)


@redis_only
async def test_an_order_that_a_failover_lost_is_given_again_by_who_heard_it(
    lasting_node: NodeFactory, start_broker: BrokerFactory, broker: Broker, proxy: Proxy
) -> None:
    """The new master lacks the last one; a node that had not heard it hears it now."""
    here, paused = await asyncio.gather(lasting_node(), lasting_node())
    other = await start_broker(kind=broker.options.kind)
    await give(broker, ANN)
    await know([here, paused], 1)
    await replicate(other, broker)
    await replicate(other, None)
    paused.pause()
    await give(broker, BOB)
    await know([here], 2)
    proxy.lead_to(other.port)
    proxy.cut()
    paused.cont()
    await know([here, paused], 2)
    await give(other, EVE)
    await know([here, paused, await lasting_node()], 3)


@redis_only
@pytest.mark.parametrize("taken", [KEYS.standing, KEYS.given, KEYS.orders], ids=["ends", "given", "log"])
async def test_an_evicted_key_costs_no_order(quick_node: NodeFactory, broker: Broker, taken: bytes) -> None:
    """A server with another policy than noeviction takes whichever it likes."""
    node = await quick_node()
    await give(broker, ANN, BOB)
    await know([node], 2)
    async with broker.client() as client:
        await client.delete(taken)
        await give(broker, EVE)
        await know([node, await quick_node()], 3)
        assert len(await client.zrange(KEYS.standing, 0, -1)) == 4


@redis_only
async def test_revoking_older_tokens_makes_no_younger_ones_good_again(broker: Broker) -> None:
    """The moment of `issued` goes forward, or is lifted; a kick may be made shorter."""
    issued = Issued("ann", 600)
    (first,) = await give(broker, issued)
    (second,) = await give(broker, issued, for_s=60)
    assert second.order.until == first.order.until
    await lift(broker, issued)
    (third,), (kick,), (shorter,) = [
        await give(broker, one, for_s=s) for one, s in ((issued, 60), (ANN, 600), (ANN, 60))
    ]
    assert third.order.until < first.order.until and shorter.order.until < kick.order.until


@redis_only
async def test_no_order_is_taken_above_orders_max(broker: Broker) -> None:
    """Those that stand are not forgotten for a new one: whoever gives it is told."""
    await give(broker, ANN, BOB, orders_max=2)
    with pytest.raises(NoSpace, match="orders_max"):
        await give(broker, EVE, orders_max=2)
    await give(broker, BOB, for_s=700, orders_max=2)
    await lift(broker, ANN)
    with pytest.raises(NoSpace):
        await give(broker, EVE, orders_max=2)
    await give(broker, ANN, for_s=0.1, orders_max=2)

    async def has_ended() -> bool:
        with suppress(NoSpace):
            return bool(await give(broker, EVE, orders_max=2))
        return False

    await until(has_ended, "one of them has ended", every_s=0.1)


async def test_a_full_broker_takes_an_order_and_nodes_find_it(quick_node: NodeFactory, broker: Broker) -> None:
    """Its log takes nothing then; what stands is looked at every sweep_s."""
    node = await quick_node()
    await give(broker, ANN)
    async with broker.client() as client:
        await client.config_set("maxmemory", 1)
        (given,) = await give(broker, BOB)
        assert given.unsaid is not None
        await know([node], 2)
        await client.config_set("maxmemory", 0)
    await give(broker, EVE)
    await know([node], 3)


@redis_only
async def test_strangers_entries_end_no_node(quick_node: NodeFactory, broker: Broker) -> None:
    """Told once and counted; the orders around them are heard."""
    node = await quick_node()
    await give(broker, ANN)
    async with broker.client() as client:
        for key in (KEYS.standing, KEYS.given):
            await client.zadd(key, {b'["banish","ann"]': 9e15, b"\xff": 8e15})
        last = (await client.xrevrange(KEYS.orders, count=1))[0]
        ms, n = last[0].split(b"-")
        for at, message in enumerate((b"{}", b"\xff", b'{"target": ["kick"], "until": 1, "given": 1}'), int(n) + 1):
            await client.xadd(KEYS.orders, {**last[1], b"m": message}, id=b"%b-%d" % (ms, at))
    await give(broker, BOB)
    await know([node], 2)
    await know([await quick_node()], 2)
    assert await node.metric("hiroba_broker_nonsense_total", what="order") == 3
