"""The published clients of Durable Streams, TypeScript and Python, read and write rooms of a real node."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import durable_streams
import pytest
from durable_streams import AsyncDurableStream, RetentionGoneError

from tests.conftest import NodeFactory
from tests.support.broker import Broker
from tests.support.client import Crowd
from tests.support.durable import address
from tests.support.need import need_tool
from tests.support.npm import installed
from tests.support.until import until

pytestmark = pytest.mark.parametrize("broker", ["redis"], indirect=True)

STREAMS = Path(__file__).parents[1] / "conformance" / "streams"


class Script:
    """client.js, doing one thing."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.heard: list[Any] = []

    async def hear(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.heard += json.loads(line)


@asynccontextmanager
async def doing(url: object, what: str, *words: str) -> AsyncIterator[Script]:
    """Runs until it ends by itself, with nothing to complain of."""
    await asyncio.to_thread(installed, STREAMS)
    process = await asyncio.create_subprocess_exec(
        need_tool("node", "nodejs"), STREAMS / "client.js", str(url), what, *words, stdout=subprocess.PIPE
    )
    script = Script(process)
    hearing = asyncio.create_task(script.hear())
    try:
        yield script
        async with asyncio.timeout(60):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await hearing


async def done(url: object, what: str, *words: str) -> list[Any]:
    async with doing(url, what, *words) as script:
        await script.process.wait()
    return script.heard


async def test_the_typescript_client_creates_writes_and_reads_a_room(start_node: NodeFactory, crowd: Crowd) -> None:
    node = await start_node(messages_per_s=0)
    ann = await crowd.join(node, "r")
    assert await done(address(node, "r"), "create", "one", "two") == ["application/json"]
    await ann.hears({"said": "one"}, {"said": "two"})
    await ann.say("three")
    await ann.hears({"said": "one"}, {"said": "two"}, "three")
    assert await done(address(node, "r"), "read") == ann.messages
    words = [f"{n}" for n in range(200)]
    for epoch in ("0", "1"):  # a producer that begins anew begins an epoch
        assert await done(address(node, "r"), "produce", epoch, *words) == []
    assert await done(address(node, "r"), "produce", "0", *words) == [], "fenced off, it claims the next one"
    await ann.hears({"said": "one"}, {"said": "two"}, "three", *words * 3)


@pytest.mark.parametrize("live", ["long-poll", "sse"])
async def test_the_typescript_client_follows_a_room(start_node: NodeFactory, crowd: Crowd, live: str) -> None:
    node = await start_node(messages_per_s=0)
    ann = await crowd.join(node, "r")
    for n in range(150):
        await ann.say(n)
    await ann.hears(*range(150))
    async with doing(address(node, "r"), "follow", "160", live) as script:
        await until(lambda: script.heard == list(range(150)), "what was said before", every_s=0.05)
        for n in range(150, 160):
            await ann.say(n)
            await until(lambda n=n: script.heard[-1] == n, "what is said", every_s=0.05)
    assert script.heard == list(range(160)), "each once, in order"


async def test_the_python_client_creates_writes_and_reads_a_room(start_node: NodeFactory, crowd: Crowd) -> None:
    node = await start_node(messages_per_s=0)
    url = str(address(node, "r"))
    ann = await crowd.join(node, "r")
    async with await AsyncDurableStream.create(url, content_type="application/json") as room:
        for n in range(3):
            await room.append({"said": n})
        head = await room.head()
    await ann.hears(*({"said": n} for n in range(3)))
    async with durable_streams.astream(url, live=False) as response:
        assert await response.read_json() == ann.messages
        assert response.offset == head.offset and response.up_to_date


@pytest.mark.parametrize("live", ["long-poll", "sse"])
async def test_the_python_client_follows_a_room(start_node: NodeFactory, crowd: Crowd, live: Any) -> None:
    node = await start_node(messages_per_s=0)
    url = str(address(node, "r"))
    ann = await crowd.join(node, "r")
    await ann.say("before")
    await ann.hears("before")
    heard: list[Any] = []

    async def follow() -> None:
        async with durable_streams.astream(url, offset="-1", live=live) as response:
            async for item in response.iter_json():
                heard.append(item)
                if len(heard) == 11:
                    return

    following = asyncio.create_task(follow())
    await until(lambda: heard == ["before"], "what was said before")
    for n in range(10):
        await ann.say(n)
        await until(lambda n=n: heard[-1] == n, "what is said")
    async with asyncio.timeout(20):
        await following
    assert heard == ["before", *range(10)]


async def test_the_python_client_hears_that_its_offset_is_gone(
    start_node: NodeFactory, broker: Broker, crowd: Crowd
) -> None:
    node = await start_node(messages_per_s=0)
    url = str(address(node, "r"))
    async with await AsyncDurableStream.create(url, content_type="application/json") as room:
        old = (await room.append("said, and trimmed")).next_offset
        await room.append("said, and trimmed too")
        await room.append("left")
    await node.kill()
    async with broker.client() as redis:
        (key,) = [key async for key in redis.scan_iter(match="hiroba:*:log:r", count=1000)]
        await redis.xtrim(key, maxlen=1, approximate=False)
    await node.start()
    with pytest.raises(RetentionGoneError):
        async with durable_streams.astream(url, offset=old, live=False):
            pass
    async with durable_streams.astream(url, offset="-1", live=False) as response:
        assert await response.read_json() == ["left"]
