"""What the tests of one or two real nodes share: a crowd of clients, and nodes that do not take their time."""

from collections.abc import AsyncIterator

import pytest

from tests.support.client import Crowd

redis_only = pytest.mark.parametrize("broker", ["redis"], indirect=True)


@pytest.fixture
async def crowd() -> AsyncIterator[Crowd]:
    """`ann = await crowd.join(node, "room", "plain", history=5)`."""
    async with Crowd() as everybody:
        yield everybody
