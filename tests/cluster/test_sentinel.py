"""A master that dies or is deposed, and the sentinels that name another: nodes follow, and tell what was lost."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cluster.chat import chat_on, say
from tests.cluster.conftest import QUICK
from tests.support.node import Node
from tests.support.sentinel import Watched

ROOM = "square"


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    watched = Watched(tmp_path / "watched")
    yield await watched.start()
    for process in watched.processes:
        process.kill_now()


@pytest.fixture
async def nodes(watched: Watched, tmp_path: Path) -> AsyncIterator[list[Node]]:
    nodes = [Node(watched.url, tmp_path, f"node{n}", **QUICK) for n in range(2)]
    await asyncio.gather(*(node.start() for node in nodes))
    yield nodes
    for node in nodes:
        node.process.kill_now()


async def test_smoke(watched: Watched, nodes: list[Node]) -> None:
    async with watched.brokers[1].client() as client, chat_on(client) as chat:
        speaker = await chat.join(nodes[0], ROOM)
        plain = await chat.join(nodes[1], ROOM, "plain")
        await say(speaker, "one")
        await plain.hears("one")
        await watched.in_step(watched.brokers[0])
        import time

        t = time.monotonic()
        await watched.brokers[0].kill()
        await watched.promoted(watched.brokers[0])
        print("promoted", time.monotonic() - t)
        await say(speaker, "two")
        print("two", time.monotonic() - t)
        await plain.hears("one", "two")
        print(nodes[0].process.tail())
