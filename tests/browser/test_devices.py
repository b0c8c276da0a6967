"""A person with several devices: what is read on one is read on the others, on whatever node they are."""

import asyncio
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import WindowFactory
from tests.browser.room import say, shows
from tests.browser.test_list import choose, know, unread
from tests.conftest import NodeFactory
from tests.support.node import Node
from tests.support.tokens import SECRET, token

pytestmark = pytest.mark.parametrize("broker", ["redis"], indirect=True)


async def device_of(user: str, page: Page, node: Node) -> Page:
    """A window in which somebody is logged in."""
    await page.context.add_cookies([{"name": "hiroba_token", "value": token(sub=user, name=user), "url": node.url()}])
    return page


async def test_unread_counts_agree_over_two_devices(
    start_node: NodeFactory, window: WindowFactory, shots: Path
) -> None:
    """Each knows its rooms by itself; how much is unread in them both know of the person. A stranger's are his own."""
    here, there = await asyncio.gather(*(start_node(token_keys=f"HS256:{SECRET}") for _ in range(2)))
    phone = await device_of("alice", await window(size=(390, 720)), here)
    laptop = await device_of("alice", await window(size=(1100, 680)), there)
    bob = await device_of("bob", await window(), there)
    for page, node in ((phone, here), (laptop, there), (bob, there)):
        await know(page, node, "部屋", "lobby")
    await choose(bob, "部屋")
    for n in range(3):
        await say(bob, f"news {n}")
    for page in (phone, laptop):
        await unread(page, "部屋", "3")
    await laptop.screenshot(path=shots / "devices-unread.png")
    await phone.click("header a.seal")
    await phone.screenshot(path=shots / "devices-phone.png")
    await choose(phone, "部屋")
    await shows(phone, "".join(f"bob: news {n}\n" for n in range(3)))
    await unread(laptop, "部屋", "")
    await laptop.screenshot(path=shots / "devices-read.png")
    # Later, from another device that knew the room before all this: one has come since.
    await phone.goto("about:blank")
    await say(bob, "one more")
    await unread(laptop, "部屋", "1")
    tablet = await device_of("alice", await window(), here)
    await know(tablet, here, "lobby")
    await tablet.evaluate(
        """() => localStorage.setItem("hiroba.rooms:/", JSON.stringify([
            {name: "部屋", pinned: false, openedAt: 1, read: "0-0", last: "0-0"},
            {name: "lobby", pinned: false, openedAt: 2, read: "0-0", last: "0-0"}]))"""
    )
    await tablet.reload()
    await unread(tablet, "部屋", "1")
    await choose(tablet, "部屋")
    await unread(laptop, "部屋", "")


async def test_a_hidden_window_counts_no_more_what_was_read_on_another_device(
    start_node: NodeFactory, window: WindowFactory
) -> None:
    """Its title says how much was said while nobody looked; somebody did."""
    node = await start_node(token_keys=f"HS256:{SECRET}")
    laptop, phone = await device_of("alice", await window(), node), await device_of("alice", await window(), node)
    bob = await device_of("bob", await window(), node)
    for page in (laptop, bob):
        await know(page, node, "部屋")
    await laptop.evaluate(
        """() => {
            Object.defineProperty(document, "hidden", { value: true });
            document.dispatchEvent(new Event("visibilitychange"));
        }"""
    )
    await say(bob, "one")
    await say(bob, "two")
    await expect(laptop).to_have_title("(2) 部屋 · hiroba")
    await unread(laptop, "部屋", "2")
    await know(phone, node, "部屋")
    await expect(laptop).to_have_title("部屋 · hiroba")
    await unread(laptop, "部屋", "")
