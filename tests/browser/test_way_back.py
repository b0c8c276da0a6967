"""Who is not let in is told why, in words, and shown the way in; who is put out as well."""

import time
from urllib.parse import quote

import pytest
from playwright.async_api import Page, expect

from gateway.core.orders import Kick
from tests.browser.conftest import WindowFactory
from tests.browser.room import enter, say, shows, state
from tests.conftest import NodeFactory
from tests.support.broker import Broker
from tests.support.node import Node
from tests.support.orders import give, lift
from tests.support.tokens import SECRET, token

pytestmark = pytest.mark.parametrize("broker", ["redis"], indirect=True)


async def logs_in(page: Page, node: Node, **claims: object) -> None:
    cookie = {"name": "hiroba_token", "value": token(**{"sub": "7", "name": "Ann", **claims}), "url": node.url()}
    await page.context.add_cookies([cookie])  # type: ignore[list-item]  # a TypedDict of just these


async def test_each_refusal_has_its_words_and_its_way(
    broker: Broker, start_node: NodeFactory, window: WindowFactory
) -> None:
    """A browser tells no page why its WebSocket was refused: unknown, expired, forbidden, kicked, and let in again."""
    node = await start_node(
        token_keys=f"HS256:{SECRET}", login_url="/login/?next={page}", user_rights="*=r,talk=rw,staff="
    )
    ann = await window()
    told = ann.locator("#room-view .standing")
    login = told.get_by_role("link")
    await ann.goto(node.url("/chat/talk/"))
    await expect(told).to_contain_text("You are not logged in here.")
    assert await login.get_attribute("href") == f"/login/?next={quote(node.url('/chat/talk/'), safe='')}"
    await logs_in(ann, node, exp=time.time() - 60)
    await ann.reload()
    await expect(told).to_contain_text("Your login has expired.")
    # In another tab, say; and the browser comes back to this one.
    await logs_in(ann, node)
    await ann.evaluate("dispatchEvent(new Event('online'))")
    await state(ann, "connected")
    await expect(told).to_be_hidden()
    await say(ann, "here")
    await shows(ann, "Ann: here\n")
    await expect(ann.locator("#menu-me")).to_have_text("You are Ann.")

    await ann.goto(node.url("/chat/staff/"))
    await expect(told).to_contain_text("You may not enter this room.")
    await expect(login).to_be_hidden()
    await enter(ann, node.url("/chat/news/"))
    await expect(ann.locator("#chat-read-only")).to_be_visible()
    await expect(ann.locator("#chat-message-input")).to_be_hidden()

    await enter(ann, node.url("/chat/talk/"))
    await give(broker, Kick("7"))
    await state(ann, "closed")
    await expect(told).to_contain_text("You were put out for a time.")
    await lift(broker, Kick("7"))
    await ann.click("#chat-return")
    await state(ann, "connected")
    await expect(told).to_be_hidden()
