"""Chromium's own EventSource over the kill of a node and the drain of another: each message once, in order."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
from playwright.async_api import Page

from tests.browser.conftest import WindowFactory
from tests.conftest import NodeFactory
from tests.deploy.cluster import Cluster
from tests.deploy.test_nginx import written
from tests.support.broker import Broker
from tests.support.client import Client, Crowd
from tests.support.nginx import nginx
from tests.support.node import Node
from tests.support.ports import free_port
from tests.support.until import until

pytestmark = pytest.mark.parametrize("broker", ["redis"], indirect=True)

ROOT = Path(__file__).parents[2]
# Each message is kept, and what EventSource tells beside them.
LISTEN = """() => {
  window.heard = []; window.told = [];
  const source = window.source = new EventSource("/sse/chat/lobby/?history=50");
  source.onmessage = (event) => heard.push(JSON.parse(event.data).message);
  for (const kind of ["welcome", "gap", "reconnect", "refused"]) {
    source.addEventListener(kind, (event) => told.push(JSON.parse(event.data)));
  }
}"""


async def told(page: Page, kind: str) -> list[dict[str, object]]:
    return [event for event in await page.evaluate("told") if event["type"] == kind]


async def serves(node: Node) -> bool:
    return await node.metric("hiroba_wire_connections", wire="sse") > 0


async def welcomed(page: Page, times: int) -> None:
    async def is_back() -> bool:
        return len(await told(page, "welcome")) == times

    await until(is_back, f"welcome number {times}", within_s=60)


class Door:
    """Two nodes behind a proxy that is configured as we ship it."""

    def __init__(self, nodes: list[Node], url: str, has_both: Callable[[], Awaitable[bool]]) -> None:
        self.nodes = nodes
        self.url = url
        # Whether it would let somebody in by either node.
        self.has_both = has_both


async def by_haproxy(broker: Broker, directory: Path) -> Door:
    cluster = await Cluster.start(broker, directory, 2, lb_wait_s=2.5, drain_s=0.1)

    async def both_are_up() -> bool:
        return all([(await cluster.balancer.status(number)).startswith("UP") for number in range(2)])

    return Door(cluster.nodes, cluster.balancer.url("/chat/"), both_are_up)


async def by_nginx(broker: Broker, directory: Path) -> Door:
    """It learns of a node from its answers, so there is nothing to wait for."""
    nodes = [
        Node(broker.url, directory, f"node{n}", trusted_proxies="127.0.0.1", lb_wait_s=0, drain_s=0.1) for n in (0, 1)
    ]
    await asyncio.gather(*(node.start() for node in nodes))
    port = free_port()
    nginx(directory, written("nginx.md", at_8000=port, at_8001=nodes[0].port, at_8002=nodes[1].port)).spawn()

    async def serves() -> bool:
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return True
        return False

    await until(serves, "nginx serves")
    return Door(nodes, f"http://127.0.0.1:{port}/chat/", serves)


@pytest.mark.parametrize("open_door", [by_haproxy, pytest.param(by_nginx, marks=pytest.mark.long)])
async def test_an_event_source_loses_nothing_over_a_kill_and_a_drain(
    broker: Broker, tmp_path: Path, window: WindowFactory, open_door: Callable[[Broker, Path], Awaitable[Door]]
) -> None:
    """The room is empty when it comes: its URL alone would resume from nowhere."""
    door = await open_door(broker, tmp_path)
    page = await window()
    await page.goto(door.url)
    await page.evaluate(LISTEN)
    await welcomed(page, 1)
    first, second = door.nodes
    if not await serves(first):
        first, second = second, first
    async with Crowd() as crowd:
        speaker = await crowd.join(second, "lobby")
        await first.kill()
        await say(speaker, 0, 10)
        await welcomed(page, 2)
        await say(speaker, 10, 20)
        await first.start()
        await until(door.has_both, "both nodes are there again", within_s=60)
        await say(speaker, 20, 30)
        second.process.signal(15)
        other = await crowd.join(first, "lobby")
        await welcomed(page, 3)
        await say(other, 30, 40)

        async def has_all() -> bool:
            return bool(await page.evaluate("heard.length") >= 40)

        await until(has_all, "all that was said")
    assert await page.evaluate("heard") == list(range(40))
    assert [event["recovered"] for event in await told(page, "welcome")] == [False, True, True]
    assert len(await told(page, "reconnect")) == 1 and not await told(page, "gap")
    assert await page.evaluate("source.readyState") == 1
    assert await second.process.ended() == 0


async def test_the_example_of_the_page_of_wires(start_node: NodeFactory, window: WindowFactory) -> None:
    """As it stands there. Its EventSource is given up once, which it does by itself for a proxy's 502."""
    node = await start_node()
    (example,) = re.findall(r"```js\n(.+?)```", (ROOT / "docs/protocol.md").read_text("utf-8"), re.DOTALL)
    page = await window()
    await page.goto(node.url("/chat/"))
    given = "window.shown = []; const show = (message) => shown.push(message); const Real = window.EventSource;"
    kept = "class EventSource extends Real { constructor(url) { super(url); window.source = this; } }"
    await page.evaluate(f"() => {{ {given} {kept} {example} }}")
    async with Crowd() as crowd:
        speaker = await crowd.join(node, "lobby")
        await until(lambda: serves(node), "it listens")
        await say(speaker, 0, 3)

        async def shows(count: int) -> bool:
            return bool(await page.evaluate("shown.length") >= count)

        await until(lambda: shows(3), "all three")
        await page.evaluate("source.close(); source.onerror()")
        await say(speaker, 3, 6)
        await until(lambda: shows(6), "it is back, behind the last one", within_s=60)
    assert await page.evaluate("shown") == list(range(6))


async def say(speaker: Client, first: int, behind: int) -> None:
    for n in range(first, behind):
        await speaker.say(n)
    await speaker.until(lambda: speaker.messages[-1:] == [behind - 1], "its own")
