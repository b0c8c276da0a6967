"""A network that says nothing any more: no RST, no FIN, and the browser's socket looks open for minutes."""

from pathlib import Path

import pytest
from playwright.async_api import Page

from tests.browser.conftest import WindowFactory
from tests.browser.door import Door
from tests.browser.room import TYPING_BYTES_MAX, enter, outbox_is, say, shows, state
from tests.conftest import NodeFactory
from tests.support.proxy import Link, Proxy
from tests.support.until import until

pytestmark = pytest.mark.parametrize("broker", ["redis"], indirect=True)

# What says to a page that its network may be another one now.
EVENTS = {
    "online": "window.dispatchEvent(new Event('online'))",
    "visibilitychange": "document.dispatchEvent(new Event('visibilitychange'))",
}


def lobby(road: Proxy) -> str:
    return f"http://127.0.0.1:{road.port}/chat/lobby/"


async def test_a_page_that_only_reads_notices_a_dead_network(
    start_node: NodeFactory, window: WindowFactory, shots: Path
) -> None:
    """It asks, for in a quiet room it would hear nothing either; and it is back when the network is."""
    # Below the page's own patience, a node's ping_s sets its pace.
    node = await start_node(ping_s=1)
    alice, bob = await window(), await window()
    async with Proxy(node.port) as road:
        await enter(alice, lobby(road))
        await enter(bob, node.url("/chat/lobby/"))
        road.freeze()
        await state(alice, "reconnecting")
        await alice.screenshot(path=shots / "dead-network.png")
        await say(bob, "meanwhile")
        road.thaw()
        await shows(alice, "meanwhile\n")
        await state(alice, "connected")


@pytest.mark.long
async def test_it_notices_with_the_settings_as_they_are(start_node: NodeFactory, window: WindowFactory) -> None:
    """Within 20 s. It was 110 s and more."""
    node = await start_node()
    alice = await window()
    async with Proxy(node.port) as road:
        await enter(alice, lobby(road))
        road.freeze()
        await alice.wait_for_selector("#chat-state[data-state=reconnecting]", timeout=60_000)


async def test_a_laptop_that_wakes_in_another_network_notices_within_20_s(
    start_node: NodeFactory, window: WindowFactory
) -> None:
    """Its timers stood still meanwhile, and no event says anything. Settings as they are; the page's clock is ours."""
    node = await start_node()
    alice = await window()
    await alice.clock.install()
    async with Proxy(node.port) as road:
        await enter(alice, lobby(road))
        road.freeze()
        await alice.clock.fast_forward(3_600_000)
        await alice.clock.run_for(19_000)
        await state(alice, "reconnecting")
        road.thaw()
        await alice.clock.resume()
        await state(alice, "connected")


@pytest.mark.parametrize("event", EVENTS)
async def test_a_page_asks_at_once_when_the_network_may_have_changed(
    start_node: NodeFactory, window: WindowFactory, event: str
) -> None:
    """A laptop that wakes, a phone in another network: the socket may be one of the network before."""
    node = await start_node()
    alice = await window()
    async with Door(node.port) as door:
        await enter(alice, door.url("/chat/lobby/"))
        # Of who is here it hears unasked, and any frame is an answer.
        door.withhold = door.silent = True
        # Far sooner than it would ask by itself, and only once while it waits for the answer.
        for _ in range(3):
            await alice.evaluate(EVENTS[event])
        await until(lambda: door.pings, "it asks", within_s=5)
        assert door.pings == 1


async def test_a_page_that_hears_its_answers_stays(start_node: NodeFactory, window: WindowFactory) -> None:
    node = await start_node(ping_s=1)
    alice = await window()
    async with Door(node.port) as door:
        await enter(alice, door.url("/chat/lobby/"))
        await until(lambda: door.pings >= 4, "four answers")
        assert len(door.handshakes) == 1
        await state(alice, "connected")


async def test_offline_is_said_at_once_and_forgotten_as_fast(start_node: NodeFactory, window: WindowFactory) -> None:
    node = await start_node()
    alice = await window()
    await enter(alice, node.url("/chat/lobby/"))
    await alice.context.set_offline(True)
    # Chromium's own event; nothing else could tell it so soon.
    await alice.wait_for_selector("#chat-state[data-state=reconnecting]", timeout=5_000)
    await alice.context.set_offline(False)
    await state(alice, "connected")


async def entered(alice: Page, road: Proxy) -> Link:
    """Goes in; the connection of its WebSocket."""
    road.hold_at(b"Upgrade: websocket")
    await alice.goto(lobby(road))
    link = await road.held()
    link.up.thaw()
    await state(alice, "connected")
    return link


async def lose(alice: Page, road: Proxy, link: Link, text: str) -> None:
    """Says something that stays in the network, and comes back on another connection."""
    link.up.freeze()
    await say(alice, text)
    await until(lambda: link.up.held_bytes > TYPING_BYTES_MAX, "the text is on its way")
    connections = len(road.links)
    await alice.evaluate("window.dispatchEvent(new Event('offline'))")
    await until(lambda: len(road.links) > connections, "alice comes back")
    await state(alice, "connected")


async def test_a_text_that_a_dead_network_delivers_late_is_not_doubled(
    start_node: NodeFactory, window: WindowFactory
) -> None:
    """The kernel holds it until the network is back, and sends it on a connection that the page has let go of."""
    # After 1.1 s the text would be sent again, were the connection not one that went silent.
    node = await start_node(publish_timeout_s=0.1)
    alice, bob = await window(), await window()
    await alice.clock.install()
    async with Proxy(node.port) as road:
        await enter(bob, node.url("/chat/lobby/"))
        link = await entered(alice, road)
        await lose(alice, road, link, "perhaps")
        await alice.clock.run_for(5_000)
        await outbox_is(alice, ["perhaps"])
        link.up.thaw()
        await shows(alice, "perhaps\n")
        await outbox_is(alice, [])
        await say(alice, "done")
        await shows(bob, "perhaps\ndone\n")


async def test_a_text_that_a_dead_network_lost_is_sent_again(start_node: NodeFactory, window: WindowFactory) -> None:
    """Once the node must have cut off the silent connection: after twice its ping_s."""
    node = await start_node(publish_timeout_s=0.1, ping_s=1)
    alice, bob = await window(), await window()
    async with Proxy(node.port) as road:
        await enter(bob, node.url("/chat/lobby/"))
        link = await entered(alice, road)
        await lose(alice, road, link, "perhaps")
        await shows(alice, "perhaps\n")
        await outbox_is(alice, [])
        link.up.thaw()
        await say(alice, "done")
        await shows(bob, "perhaps\ndone\n")
