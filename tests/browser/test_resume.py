"""Our page comes back: it misses nothing, shows nothing twice, and what was typed reaches the log exactly once."""

import time
from itertools import pairwise

import pytest
from playwright.async_api import Page

from tests.browser.conftest import WindowFactory
from tests.browser.door import Door
from tests.browser.room import enter, log, noted, outbox_is, say, shows, state
from tests.conftest import NodeFactory
from tests.support.broker import Broker
from tests.support.node import Node
from tests.support.proxy import Proxy
from tests.support.until import until

pytestmark = pytest.mark.parametrize("broker", ["redis"], indirect=True)


async def test_what_was_said_meanwhile_is_shown_once(node: Node, window: WindowFactory) -> None:
    alice, bob = await window(), await window()
    async with Door(node.port) as door:
        await enter(alice, door.url("/chat/lobby/"))
        await enter(bob, node.url("/chat/lobby/"))
        await say(bob, "one")
        await shows(alice, "one\n")
        door.refusing = True
        door.cut()
        await state(alice, "reconnecting")
        await say(bob, "two")
        await say(bob, "three")
        await shows(bob, "one\ntwo\nthree\n")
        door.refusing = False
        await shows(alice, "one\ntwo\nthree\n")
        await state(alice, "connected")
        _, query = door.handshakes[-1]
        assert query["after"].endswith("-1")


async def test_a_room_that_was_empty_is_resumed_from_its_beginning(node: Node, window: WindowFactory) -> None:
    """Not by its history: more than fifty may have been said meanwhile."""
    alice = await window()
    async with Door(node.port) as door:
        await enter(alice, door.url("/chat/lobby/"))
        door.cut()
        await until(lambda: len(door.handshakes) > 1, "alice comes back")
        assert door.handshakes[0][1] == {"history": "50"}
        assert door.handshakes[1][1] == {"after": "0-0"}
        await state(alice, "connected")
        await say(alice, "first")
        await shows(alice, "first\n")


async def test_text_typed_while_disconnected_stays_and_is_sent_once(node: Node, window: WindowFactory) -> None:
    alice, bob = await window(), await window()
    async with Door(node.port) as door:
        await enter(alice, door.url("/chat/lobby/"))
        await enter(bob, node.url("/chat/lobby/"))
        door.refusing = True
        door.cut()
        await state(alice, "reconnecting")
        for text in ("one", "two", "two", "three"):
            await say(alice, text)
        await outbox_is(alice, ["one", "two", "two", "three"])
        await noted(alice, "waiting to be sent")
        # One of them is taken back: its words return to the field.
        await alice.locator("#chat-outbox li", has_text="three").get_by_role("button").last.click()
        assert await alice.input_value("#chat-message-input") == "three"
        door.refusing = False
        await shows(bob, "one\ntwo\ntwo\n")
        await shows(alice, "one\ntwo\ntwo\n")
        await outbox_is(alice, [])
        assert [frame["message"] for frame in door.sent] == ["one", "two", "two"]


async def test_a_message_whose_ack_was_lost_is_not_sent_again(node: Node, window: WindowFactory) -> None:
    alice, bob = await window(), await window()
    async with Door(node.port) as door:
        await enter(alice, door.url("/chat/lobby/"))
        await enter(bob, node.url("/chat/lobby/"))
        door.lose_next_ack = True
        await say(alice, "hello")
        # The same words, said by somebody else, before and after.
        await say(bob, "hello")
        await say(alice, "next")
        await shows(alice, "hello\nhello\nnext\n")
        await shows(bob, "hello\nhello\nnext\n")
        await outbox_is(alice, [])
        assert [frame["message"] for frame in door.sent] == ["hello", "next"]


async def test_a_message_lost_on_its_way_is_sent_again(start_node: NodeFactory, window: WindowFactory) -> None:
    node = await start_node(publish_timeout_s=2)
    alice, bob = await window(), await window()
    async with Door(node.port) as door:
        await enter(alice, door.url("/chat/lobby/"))
        await enter(bob, node.url("/chat/lobby/"))
        await say(bob, "hello")
        await shows(alice, "hello\n")
        door.refusing = door.lose_next_message = True
        await say(alice, "hello")
        await state(alice, "reconnecting")
        # Somebody else's, with the same words: not to be taken for ours.
        await say(bob, "hello")
        await shows(bob, "hello\nhello\n")
        door.refusing = False
        await shows(bob, "hello\nhello\nhello\n")
        await shows(alice, "hello\nhello\nhello\n")
        await outbox_is(alice, [])


async def test_a_message_that_the_lost_node_appends_late_is_not_doubled(
    broker: Broker, start_node: NodeFactory, window: WindowFactory
) -> None:
    """The window is on another node already, and has seen that its text is not in the log: not yet."""
    other = await start_node()
    alice, bob = await window(), await window()
    async with Proxy(broker.port) as road:
        node = await start_node(broker_url=broker.url_at("127.0.0.1", road.port))
        async with Door(node.port) as door:
            await enter(alice, door.url("/chat/lobby/"))
            await enter(bob, other.url("/chat/lobby/"))
            road.hold_at(b"perhaps")
            await say(alice, "perhaps")
            link = await road.held()
            door.node_port = other.port
            door.cut()
            await until(lambda: len(door.handshakes) > 1, "alice comes back")
            await state(alice, "connected")
            await say(bob, "news")
            await shows(alice, "news\n")
            link.up.thaw()
            await shows(alice, "news\nperhaps\n")
            await outbox_is(alice, [])
            await say(alice, "done")
            await shows(bob, "news\nperhaps\ndone\n")


async def test_the_window_moves_to_another_node_when_its_own_is_killed(
    start_node: NodeFactory, window: WindowFactory
) -> None:
    first, second = await start_node(), await start_node()
    alice, bob = await window(), await window()
    async with Door(first.port) as door:
        await enter(alice, door.url("/chat/lobby/"))
        await enter(bob, second.url("/chat/lobby/"))
        await say(alice, "before")
        await shows(bob, "before\n")
        door.node_port = second.port
        await first.kill()
        await say(alice, "mine")
        await say(bob, "yours")
        await until(lambda: _lines(alice, 3), "alice has all three")
        assert sorted((await log(alice)).split()) == ["before", "mine", "yours"]
        assert await log(alice) == await log(bob)


async def _lines(page: Page, count: int) -> bool:
    return (await log(page)).count("\n") >= count


async def test_a_draining_node_names_the_time_to_come_back(start_node: NodeFactory, window: WindowFactory) -> None:
    node, other = await start_node(), await start_node()
    alice = await window()
    async with Door(node.port) as door:
        await enter(alice, door.url("/chat/lobby/"))
        await say(alice, "before")
        await shows(alice, "before\n")
        door.node_port = other.port
        told = time.monotonic()
        await door.tell(type="reconnect", after_s=1.5)
        # Nothing new goes out to a node that leaves.
        await say(alice, "later")
        await outbox_is(alice, ["later"])
        await door.close(1012)
        await shows(alice, "before\nlater\n")
        came, query = door.handshakes[1]
        assert came - told >= 1.4
        assert query["after"].endswith("-1")


async def test_a_real_drain_sends_the_window_elsewhere(start_node: NodeFactory, window: WindowFactory) -> None:
    node, other = await start_node(), await start_node()
    alice = await window()
    async with Door(node.port) as door:
        await enter(alice, door.url("/chat/lobby/"))
        await say(alice, "before")
        await shows(alice, "before\n")
        door.node_port = other.port
        assert await node.stop() == 0
        await until(lambda: len(door.handshakes) > 1, "alice comes back")
        await say(alice, "after")
        await shows(alice, "before\nafter\n")


async def test_waits_between_tries_grow(node: Node, window: WindowFactory) -> None:
    alice = await window()
    async with Door(node.port) as door:
        await enter(alice, door.url("/chat/lobby/"))
        door.refusing = True
        door.cut()
        await until(lambda: len(door.handshakes) >= 5, "four tries")
        tries = [at for at, _ in door.handshakes[1:5]]
        # Full jitter: a wait is anywhere between 0 and 1 s, 2 s, 4 s. None goes beyond its step; and that all
        # three together stay below 0.1 s would be one run in fifty thousand.
        waits = [later - earlier for earlier, later in pairwise(tries)]
        assert all(wait < step_s + 1 for wait, step_s in zip(waits, (1.0, 2.0, 4.0), strict=True)), waits
        assert sum(waits) > 0.1
        # The network is back, says the browser: no need to sit the wait out.
        door.refusing = False
        await alice.evaluate("window.dispatchEvent(new Event('online'))")
        await state(alice, "connected")
