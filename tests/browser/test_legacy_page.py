"""A page written for the old chat, unchanged, on hiroba: the promise that a site can move without touching it."""

from pathlib import Path

import pytest
from playwright.async_api import Page

from tests.browser.conftest import WindowFactory
from tests.browser.room import log, say, shows
from tests.conftest import NodeFactory
from tests.support.broker import Broker
from tests.support.node import Node
from tests.support.until import BUDGET_S

LEGACY = (Path(__file__).parent / "legacy.html").read_text("utf-8")
WITHIN_MS = BUDGET_S * 1000

pytestmark = pytest.mark.parametrize("broker", ["redis"], indirect=True)


async def enter(page: Page, node: Node, room: str) -> None:
    """The old page on the node's own origin: its HTML is written into a page that came from there, as a site
    behind the same proxy would have sent it, without our Content-Security-Policy; its WebSocket is the node's."""
    await page.goto(node.url("/healthz"))
    await page.set_content(LEGACY.replace("{{ room_name }}", room))
    await page.wait_for_selector("body.open", timeout=WITHIN_MS)


async def test_two_old_pages_chat_over_two_nodes(start_node: NodeFactory, window: WindowFactory, shots: Path) -> None:
    here, there = await start_node(), await start_node()
    alice, bob, stranger = await window(bypass_csp=True), await window(bypass_csp=True), await window(bypass_csp=True)
    await enter(alice, here, "部屋")
    await enter(bob, there, "部屋")
    await enter(stranger, there, "elsewhere")

    await say(alice, "hello")
    await shows(bob, "hello\n")
    await say(bob, "こんにちは、広場")
    await shows(alice, "hello\nこんにちは、広場\n")
    # An empty message is a message.
    await say(alice, "")
    await shows(bob, "hello\nこんにちは、広場\n\n")
    await bob.click("#chat-message-submit")
    await say(bob, '</script> "quoted" \\ {}')
    expected = 'hello\nこんにちは、広場\n\n\n</script> "quoted" \\ {}\n'
    await shows(alice, expected)
    await shows(bob, expected)
    assert await log(stranger) == ""
    await alice.screenshot(path=shots / "legacy.png")


async def test_an_old_page_sees_nothing_but_messages_when_broker_and_node_go(
    broker: Broker, start_node: NodeFactory, window: WindowFactory
) -> None:
    """Any other frame would be printed as `undefined` by the old script."""
    here, there = await start_node(), await start_node()
    alice, bob = await window(bypass_csp=True), await window(bypass_csp=True)
    await enter(alice, here, "lobby")
    await enter(bob, there, "lobby")
    await say(alice, "before")
    await shows(bob, "before\n")

    await broker.kill()
    await say(alice, "meanwhile")
    await broker.start()
    await shows(alice, "before\nmeanwhile\n")
    await shows(bob, "before\nmeanwhile\n")

    assert await here.stop() == 0
    await alice.wait_for_selector('body.closed[title="1012"]', timeout=WITHIN_MS)
    await say(bob, "after")
    await shows(bob, "before\nmeanwhile\nafter\n")
    assert await log(alice) == "before\nmeanwhile\n"
