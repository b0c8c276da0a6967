"""Chromium's own EventSource over the kill of a node and the drain of another: each message once, in order."""

import re
from pathlib import Path

import pytest
from playwright.async_api import Page

from tests.browser.conftest import WindowFactory
from tests.conftest import NodeFactory
from tests.deploy.cluster import Cluster
from tests.support.broker import Broker
from tests.support.client import Client, Crowd
from tests.support.node import Node
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


async def test_an_event_source_loses_nothing_over_a_kill_and_a_drain(
    broker: Broker, tmp_path: Path, window: WindowFactory
) -> None:
    """Behind HAProxy. The room is empty when it comes: its URL alone would resume from nowhere."""
    cluster = await Cluster.start(broker, tmp_path, 2, lb_wait_s=2.5, drain_s=0.1)
    page = await window()
    await page.goto(cluster.balancer.url("/chat/"))
    await page.evaluate(LISTEN)
    await welcomed(page, 1)
    first, second = sorted(cluster.nodes, key=lambda node: node is not cluster.nodes[0])
    if not await serves(first):
        first, second = second, first
    async with Crowd() as crowd:
        speaker = await crowd.join(second, "lobby")
        await first.kill()
        await say(speaker, 0, 10)
        await welcomed(page, 2)
        await say(speaker, 10, 20)
        await first.start()

        async def both_are_up() -> bool:
            return all([(await cluster.balancer.status(number)).startswith("UP") for number in range(2)])

        await until(both_are_up, "HAProxy has both again", within_s=60)
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
