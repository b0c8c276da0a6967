"""What a node may answer, and what our page makes of it: errors, gaps, closes. Said by a real node where it can be."""

import asyncio

import pytest
from playwright.async_api import Page

from tests.browser.conftest import WindowFactory
from tests.browser.door import Door
from tests.browser.room import enter, log, noted, outbox_is, say, shows, state
from tests.conftest import NodeFactory
from tests.support.broker import Broker
from tests.support.node import Node
from tests.support.until import until

pytestmark = pytest.mark.parametrize("broker", ["redis"], indirect=True)


async def test_a_text_too_long_is_given_back_and_the_next_goes_through(
    start_node: NodeFactory, window: WindowFactory
) -> None:
    """By a node that allows less than the one from which the page came: that page would not have sent it."""
    node, strict = await asyncio.gather(start_node(), start_node(message_bytes_max=1000))
    alice = await window()
    async with Door(node.port) as door:
        await enter(alice, door.url("/chat/lobby/"))
        door.node_port = strict.port
        door.cut()
        await until(lambda: len(door.handshakes) > 1, "she comes back")
        await state(alice, "connected")
        await say(alice, "x" * 2000)
        await say(alice, "short")
        await noted(alice, "not sent: it is too long")
        await shows(alice, "short\n")
        await alice.get_by_role("button", name="Take back").click()
        assert await alice.input_value("#chat-message-input") == "x" * 2000
        await outbox_is(alice, [])


async def test_a_text_that_was_withdrawn_is_tried_again(
    broker: Broker, start_node: NodeFactory, window: WindowFactory
) -> None:
    """`timeout`: the node never sent it to the broker and never will."""
    # Long enough for a call to a broker that has just come back: its outcome must not be unknown.
    node = await start_node(publish_timeout_s=3)
    alice = await window()
    await enter(alice, node.url("/chat/lobby/"))
    await broker.kill()
    await until(lambda: any("broker is away" in line for line in node.lines()), "the node knows")
    for text in ("one", "two"):
        await say(alice, text)
    await noted(alice, "not accepted yet, trying again")
    await broker.start()
    await shows(alice, "one\ntwo\n")
    await outbox_is(alice, [])


async def test_a_text_in_a_call_without_an_answer_is_settled_by_its_echo(
    broker: Broker, start_node: NodeFactory, window: WindowFactory
) -> None:
    """`unknown`: the broker has it, and nobody knows that yet. Behind a probe under way it would not be sent at all."""
    node = await start_node(publish_timeout_s=0.5, probe_s=600)
    alice = await window()
    await enter(alice, node.url("/chat/lobby/"))
    broker.pause()
    for text in ("one", "two"):
        await say(alice, text)
    await noted(alice, "may or may not have arrived")
    broker.cont()
    await shows(alice, "one\ntwo\n")
    await outbox_is(alice, [])


async def test_a_text_of_unknown_fate_waits_for_the_reader_and_holds_the_later_ones(
    node: Node, window: WindowFactory
) -> None:
    alice = await window()
    async with Door(node.port) as door:
        await enter(alice, door.url("/chat/lobby/"))
        door.withhold = True
        await say(alice, "perhaps")
        await until(lambda: door.sent, "the text is under way")
        await door.tell(type="error", code="unknown", text="", ref=door.sent[0]["ref"])
        await noted(alice, "may or may not have arrived")
        await say(alice, "later")
        await outbox_is(alice, ["perhaps", "later"])
        door.withhold = False
        await alice.get_by_role("button", name="Send again").click()
        await shows(alice, "perhaps\nlater\n")
        await outbox_is(alice, [])


async def test_the_echo_of_a_text_of_unknown_fate_settles_it(node: Node, window: WindowFactory) -> None:
    alice = await window()
    async with Door(node.port) as door:
        await enter(alice, door.url("/chat/lobby/"))
        door.lose_next_ack = True
        door.refusing = True
        await say(alice, "perhaps")
        await state(alice, "reconnecting")
        await say(alice, "later")
        await outbox_is(alice, ["perhaps", "later"])
        door.refusing = False
        await shows(alice, "perhaps\nlater\n")
        await outbox_is(alice, [])
        assert [frame["message"] for frame in door.sent] == ["perhaps", "later"]


async def test_a_missing_entry_is_told(node: Node, window: WindowFactory) -> None:
    alice, bob = await window(), await window(lang="ja-JP")
    async with Door(node.port) as door:
        await enter(alice, door.url("/chat/lobby/"))
        await enter(bob, node.url("/chat/lobby/"))
        await say(bob, "one")
        await shows(alice, "one\n")
        door.lose_next_entry = True
        await say(bob, "two")
        await say(bob, "three")
        await shows(alice, "one\n— messages missing here: 1 —\nthree\n")
        await door.tell(type="gap", after="1-3", before="2-9", lost=5)
        await door.tell(
            type="message", id="9999999999999-9", user=None, message={"a": 1}, at=9999999999999, **{"from": "x"}
        )
        await until(lambda: _ends(alice, '{"a":1}\n'), "the entry behind the gap")
        assert "— messages missing here: 5 —" in await log(alice)


async def _ends(page: Page, text: str) -> bool:
    return (await log(page)).endswith(text)


async def test_a_log_that_was_flushed_meanwhile_is_a_gap_and_goes_on(
    broker: Broker, node: Node, window: WindowFactory
) -> None:
    alice = await window()
    async with Door(node.port) as door:
        await enter(alice, door.url("/chat/lobby/"))
        await say(alice, "before")
        await shows(alice, "before\n")
        door.refusing = True
        door.cut()
        await state(alice, "reconnecting")
        async with broker.client() as client:
            await client.flushall()
        door.refusing = False
        await state(alice, "connected")
        await say(alice, "after")
        await until(lambda: _ends(alice, "after\n"), "the room goes on")
        lines = (await log(alice)).splitlines()
        assert [line for line in lines if not line.startswith("—")] == ["before", "after"]


async def test_a_final_close_is_said_with_its_reason(node: Node, window: WindowFactory) -> None:
    alice = await window()
    async with Door(node.port) as door:
        await enter(alice, door.url("/chat/lobby/"))
        for code, reason, line in (
            (1000, "", "Closed: the server ended the conversation"),
            (1003, "text frames only", "Closed: text frames only"),
            (1002, "", "Closed: 1002"),
        ):
            came = len(door.handshakes)
            await door.close(code, reason)
            await state(alice, "closed")
            assert await alice.text_content("#chat-state") == line
            await say(alice, f"after {code}")
            await outbox_is(alice, [f"after {code}"])
            await alice.get_by_role("button", name="Connect again").click()
            await state(alice, "connected")
            await outbox_is(alice, [])
            assert len(door.handshakes) == came + 1
            assert await alice.locator("#chat-return").is_hidden()
        await shows(alice, "after 1000\nafter 1003\nafter 1002\n")
