"""The list of rooms on the page: those that this browser knows, all on one connection, each at its address."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from playwright.async_api import Locator, Page, expect

from tests.browser.conftest import WindowFactory
from tests.browser.room import say, shows, state
from tests.support.node import Node
from tests.support.until import until

pytestmark = pytest.mark.parametrize("broker", ["redis"], indirect=True)


async def know(page: Page, node: Node, *rooms: str) -> None:
    """Enters each by its link; the last one is shown then."""
    for room in rooms:
        await page.goto(node.url(f"/chat/{room}/"))
        await state(page, "connected")
        await listed(page, room).wait_for(state="attached")


def listed(page: Page, room: str) -> Locator:
    """A room's line in the list."""
    return page.locator("#rooms li", has=page.locator(f'a[data-room="{room}"]'))


async def choose(page: Page, room: str) -> None:
    await listed(page, room).locator("a").click()
    await expect(page.locator("#room-view h1")).to_have_text(room)
    await state(page, "connected")


async def unread(page: Page, room: str, expected: str) -> None:
    await expect(listed(page, room).locator("b")).to_have_text(expected)


def connections(node: Node, count: int) -> Callable[[], Awaitable[bool]]:
    async def are() -> bool:
        return await node.metric("hiroba_connections") == count

    return are


async def test_from_room_to_room_without_another_connection(node: Node, window: WindowFactory) -> None:
    """Clicks, back and forward; a room that was left for another has its log and what was typed there."""
    alice, bob = await window(), await window()
    await know(bob, node, "lobby")
    await know(alice, node, "lobby", "部屋")
    sockets: list[str] = []
    alice.on("websocket", lambda socket: sockets.append(socket.url))
    await alice.fill("#chat-message-input", "half a sen")
    await choose(alice, "lobby")
    assert alice.url == node.url("/chat/lobby/")
    assert await alice.title() == "lobby · hiroba"
    assert await listed(alice, "lobby").locator("a").get_attribute("aria-current") == "page"
    assert await listed(alice, "部屋").locator("a").get_attribute("aria-current") is None
    await say(alice, "hello")
    await shows(bob, "hello\n")
    await alice.go_back()
    await alice.wait_for_url("**/chat/%E9%83%A8%E5%B1%8B/")
    await shows(alice, "")
    assert await alice.input_value("#chat-message-input") == "half a sen"
    await say(bob, "are you there?")
    await alice.go_forward()
    await alice.wait_for_url("**/chat/lobby/")
    await shows(alice, "hello\nare you there?\n")
    await say(alice, "yes")
    await shows(bob, "hello\nare you there?\nyes\n")
    await alice.click("header a.seal")
    await expect(alice.locator("#room-name-input")).to_be_visible()
    assert alice.url == node.url("/chat/")
    await choose(alice, "lobby")
    await shows(alice, "hello\nare you there?\nyes\n")
    assert sockets == []
    await until(connections(node, 2), "one each")


async def test_what_is_said_elsewhere_is_counted_until_it_is_read(node: Node, window: WindowFactory) -> None:
    alice, bob = await window(), await window()
    await know(bob, node, "部屋")
    await know(alice, node, "部屋", "lobby")
    await choose(alice, "部屋")
    await choose(alice, "lobby")
    for n in range(3):
        await say(bob, f"news {n}")
    await unread(alice, "部屋", "3")
    await expect(listed(alice, "部屋").locator("a")).to_contain_text("3 unread")
    await expect(listed(alice, "部屋").locator("time")).not_to_be_empty()
    await choose(alice, "部屋")
    await shows(alice, "news 0\nnews 1\nnews 2\n")
    await unread(alice, "部屋", "")
    await say(bob, "read at once")
    await shows(alice, "news 0\nnews 1\nnews 2\nread at once\n")
    await choose(alice, "lobby")
    await unread(alice, "部屋", "")


async def test_a_count_stands_at_the_edge_of_its_row_and_makes_space_for_the_buttons(
    node: Node, window: WindowFactory
) -> None:
    """The space of two buttons that nobody sees stood beside it."""
    alice, bob = await window(), await window()
    room = "a_rather_long_name_of_a_room_that_does_not_fit"
    await know(bob, node, room)
    await know(alice, node, room, "lobby")
    await say(bob, "news")
    await unread(alice, room, "1")
    row = listed(alice, room)

    async def right_of(locator: Locator) -> float:
        box = await locator.bounding_box()
        assert box is not None
        return box["x"] + box["width"]

    await alice.mouse.move(600, 400)
    assert await right_of(row) - await right_of(row.locator("b")) < 16
    await row.hover()
    pin = await row.locator(".pin").bounding_box()
    assert pin is not None and pin["x"] >= await right_of(row.locator("b"))
    assert await right_of(row.locator(".forget")) <= await right_of(row)


async def test_rooms_that_are_not_open_are_watched(node: Node, window: WindowFactory) -> None:
    """From the choice of a room, too: nothing is joined there, and who comes in reads it on the same connection."""
    alice, bob = await window(), await window()
    await know(alice, node, "部屋", "広場")
    await know(bob, node, "広場", "部屋")
    await alice.goto(node.url("/chat/"))
    await until(connections(node, 2), "one each")
    await alice.goto("about:blank")  # all that this page opened was told before it went
    sockets: list[str] = []
    alice.on("websocket", lambda socket: sockets.append(socket.url))
    await alice.goto(node.url("/chat/"))
    await say(bob, "one")
    await say(bob, "two")
    await unread(alice, "部屋", "2")
    await unread(alice, "広場", "")
    assert await node.metric("hiroba_rooms_watched") == 2
    await choose(alice, "部屋")
    await shows(alice, "one\ntwo\n")
    await unread(alice, "部屋", "")
    await choose(bob, "広場")
    await say(bob, "elsewhere")
    await unread(alice, "広場", "1")
    # Meanwhile she is away, and one is left.
    await alice.goto("about:blank")
    await say(bob, "and again")
    await shows(bob, "elsewhere\nand again\n")
    await alice.goto(node.url("/chat/部屋/"))
    await unread(alice, "広場", "2")
    assert sockets[0] == node.url("/ws/").replace("http", "ws")
    assert len(sockets) == 2


async def test_a_reload_keeps_the_list_and_the_room(node: Node, window: WindowFactory) -> None:
    alice = await window()
    await know(alice, node, "部屋", "lobby")
    await choose(alice, "部屋")
    await say(alice, "hello")
    await shows(alice, "hello\n")
    await alice.reload()
    await state(alice, "connected")
    await shows(alice, "hello\n")
    assert await listed(alice, "部屋").locator("a").get_attribute("aria-current") == "page"
    await unread(alice, "部屋", "")
    await choose(alice, "lobby")
    await alice.go_back()
    await shows(alice, "hello\n")
    await alice.goto(node.url("/chat/"))
    await expect(alice.locator("#rooms a")).to_have_count(2)


async def test_rooms_are_pinned_and_removed_by_keyboard(node: Node, window: WindowFactory) -> None:
    alice = await window()
    await know(alice, node, "one", "two", "three")
    await say(alice, "the newest")
    names = alice.locator("#rooms a bdi")
    await expect(names).to_have_text(["three", "two", "one"])
    await alice.get_by_role("button", name="Keep one at the top").press("Enter")
    await expect(names).to_have_text(["one", "three", "two"])
    assert await alice.evaluate("document.activeElement.ariaPressed") == "true"
    await alice.get_by_role("button", name="Remove two from this list").press("Enter")
    await expect(names).to_have_text(["one", "three"])
    assert await alice.evaluate("document.querySelector('#rooms').contains(document.activeElement)")
    # The one that is shown: nobody is in it any more.
    await alice.get_by_role("button", name="Remove three from this list").press("Enter")
    await expect(names).to_have_text(["one"])
    await alice.wait_for_url("**/chat/")
    await alice.reload()
    await expect(names).to_have_text(["one"])
    assert await alice.evaluate("document.querySelector('.pin').ariaPressed") == "true"


async def test_the_list_is_bounded_and_survives_nonsense(node: Node, window: WindowFactory) -> None:
    """200; the one goes that nobody opened for the longest time, but no pinned one."""
    alice = await window()
    await alice.goto(node.url("/chat/"))
    rooms = [{"name": f"r{n}", "pinned": n == 0, "openedAt": n, "read": "0-0", "last": "0-0"} for n in range(200)]
    keep = "value => localStorage.setItem('hiroba.rooms:/', value)"
    await alice.evaluate(keep, json.dumps(rooms))
    await alice.goto(node.url("/chat/new/"))
    await state(alice, "connected")
    await listed(alice, "new").wait_for()
    await expect(alice.locator("#rooms a")).to_have_count(200)
    assert await listed(alice, "r0").count() == 1
    assert await listed(alice, "r1").count() == 0
    for nonsense in ("{", "7", "null", '[{"name": 3}, null]'):
        await alice.evaluate(keep, nonsense)
        await know(alice, node, "new")


async def test_on_a_phone_the_list_is_a_screen_of_its_own(node: Node, window: WindowFactory, shots: Path) -> None:
    alice = await window(lang="ja-JP", size=(390, 720))
    await know(alice, node, "とても長い部屋の名前" * 5, "広場", "lobby")
    await say(alice, "hello")
    await shows(alice, "hello\n")
    await expect(alice.locator("#rooms")).to_be_hidden()
    await alice.screenshot(path=shots / "list-phone-room.png")
    await alice.click("header a.seal")
    await expect(alice.locator("#rooms")).to_be_visible()
    await expect(alice.locator("#chat-log")).to_be_hidden()
    await alice.screenshot(path=shots / "list-phone.png")
    assert await alice.evaluate("document.documentElement.scrollWidth") == 390
    await choose(alice, "広場")
    await expect(alice.locator("#rooms")).to_be_hidden()
    await alice.go_back()
    await expect(alice.locator("#rooms")).to_be_visible()
    await alice.go_back()
    await shows(alice, "hello\n")
    await until(connections(node, 1), "one")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_two_browsers_and_their_lists(node: Node, window: WindowFactory, shots: Path, scheme: str) -> None:
    alice, bob = await window(scheme=scheme, size=(1100, 680)), await window()
    await know(alice, node, "広場", "a_name_that_is_far_too_long_for_the_list_of_rooms", "مرحبا", "lobby")
    await know(bob, node, "広場")
    await choose(alice, "広場")
    await say(bob, "Good morning! Is this the square?")
    await say(alice, "It is. おはようございます。")
    await shows(alice, "Good morning! Is this the square?\nIt is. おはようございます。\n")  # and so she has read it
    await choose(alice, "lobby")
    await say(alice, "Nobody here yet.")
    for n in range(12):
        await say(bob, f"and {n} more")
    await unread(alice, "広場", "12")
    await listed(alice, "مرحبا").locator(".pin").click()
    await alice.focus("#chat-message-input")
    await alice.screenshot(path=shots / f"list-{scheme}.png")
    await alice.click("header a.seal")
    await expect(alice.locator("#room-name-input")).to_be_visible()
    await alice.screenshot(path=shots / f"list-choose-{scheme}.png")
