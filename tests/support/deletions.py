"""Messages deleted as an operator does it, without a process for each."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.broker.deletions import Deletions
from gateway.broker.orders import Orders, road_of_its_own
from gateway.settings.model import Settings
from tests.support.broker import Broker
from tests.support.until import BUDGET_S


@asynccontextmanager
async def deletions(broker: Broker) -> AsyncIterator[Deletions]:
    settings = Settings()
    async with (
        asyncio.timeout(BUDGET_S),
        road_of_its_own(broker.url, settings, lambda lane, down: None) as road,
    ):
        yield Deletions(road.name, road.keys, road.lane, Orders(*road, settings).say, settings)
