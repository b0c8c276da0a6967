"""How a node goes away: not ready, wait for the load balancer, send the clients off, flush, leave no trace."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from gateway.broker.broker import Broker
from gateway.broker.errors import BrokerGone, BrokerRefused
from gateway.edge.edge import Edge
from gateway.process.hurry import unless
from gateway.settings.model import Settings

# What a hurried node gives its clients to take the close frame, and the broker to forget it.
HURRY_S = 0.5

log = structlog.get_logger()


async def drain(edge: Edge, broker: Broker, settings: Settings, hurry: asyncio.Event) -> None:
    """Run once, after /readyz said no. `hurry` cuts every wait short."""
    await unless(hurry, asyncio.sleep(settings.lb_wait_s))
    log.info("draining", connections=edge.connections, drain_s=settings.drain_s)
    await unless(hurry, edge.drain(settings.drain_s))
    if hurry.is_set():
        await edge.drain(0)
        await _within(HURRY_S, edge.empty())
        await _within(HURRY_S, _withdraw(broker))
    else:
        await _within(settings.close_s + HURRY_S, edge.empty())
        await _within(settings.publish_timeout_s, _say_and_withdraw(edge, broker))


async def _say_and_withdraw(edge: Edge, broker: Broker) -> None:
    """What clients said before they went may still wait for the site's word."""
    await asyncio.gather(*edge.context.saying, return_exceptions=True)
    await _withdraw(broker)


async def _withdraw(broker: Broker) -> None:
    try:
        await broker.withdraw()
    except (BrokerGone, BrokerRefused) as exc:
        log.warning("left without telling the broker; other nodes will sweep", error=str(exc))


async def _within(seconds: float, step: Coroutine[Any, Any, None]) -> None:
    try:
        async with asyncio.timeout(seconds):
            await step
    except TimeoutError:
        log.warning("gave up waiting", step=getattr(step, "__qualname__", ""), seconds=seconds)
