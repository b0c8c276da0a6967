"""Orders as `hiroba kick` and `hiroba revoke` give them, without a process for each."""

import asyncio
from collections.abc import Sequence

from gateway.broker.orders import Given, without_a_node
from gateway.core.orders import Target
from gateway.settings.model import Settings
from tests.support.broker import Broker
from tests.support.node import Node
from tests.support.until import BUDGET_S, until


async def give(broker: Broker, *targets: Target, for_s: float = 600.0, **settings: object) -> list[Given]:
    """They stand, and are said in the control log, in this order."""
    async with (
        asyncio.timeout(BUDGET_S),
        without_a_node(broker.url, Settings(**settings), lambda lane, down: None) as orders,  # type: ignore[arg-type]
    ):
        return [await orders.give(target, None, for_s) for target in targets]


async def lift(broker: Broker, *targets: Target) -> None:
    async with (
        asyncio.timeout(BUDGET_S),
        without_a_node(broker.url, Settings(), lambda lane, down: None) as orders,
    ):
        for target in targets:
            await orders.lift(target)


async def know(nodes: Sequence[Node], count: int) -> None:
    """Waits until each of them knows of so many orders that stand."""
    for node in nodes:

        async def knows(node: Node = node) -> bool:
            return await node.metric("hiroba_orders_standing") == count

        await until(knows, f"{node.process.name} knows of {count} orders")
