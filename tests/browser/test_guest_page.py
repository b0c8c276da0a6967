"""A guest says a name on the page, and everybody sees it, and that it is a guest's."""

from playwright.async_api import expect

from tests.browser.conftest import WindowFactory
from tests.browser.room import enter, say, shows
from tests.node.conftest import redis_only
from tests.support.node import Node
from tests.support.until import until


@redis_only
async def test_a_name_that_a_guest_says_stands_before_what_they_say(node: Node, window: WindowFactory) -> None:
    """Nobody can pass for a user of the site; who says no name is shown as ever."""
    ann, bob = await window(), await window(lang="ja-JP")
    await ann.goto(node.url("/chat/"))
    async with ann.expect_event("load"):  # what is connected connects anew
        await ann.fill("#guest-name-input", " Ann  Lee ")
        await ann.press("#guest-name-input", "Enter")
    assert await ann.input_value("#guest-name-input") == "Ann Lee"
    assert not await ann.evaluate("document.cookie"), "no script reads it"
    for page in (ann, bob):
        await enter(page, node.url("/chat/guests/"))
    await say(ann, "hello")
    await shows(bob, "Ann Lee（ゲスト）: hello\n")
    await say(bob, "hi")
    await shows(ann, "Ann Lee (guest): hello\nhi\n")
    await expect(ann.locator("#chat-name")).to_be_hidden()
    await bob.click("#chat-name")
    await expect(bob.locator("#guest-name-input")).to_be_focused()


@redis_only
async def test_where_no_guests_come_in_nobody_is_asked_for_a_name(node: Node, window: WindowFactory) -> None:
    await node.stop()
    node.process.env["HIROBA_TOKEN_KEYS"] = "HS256:" + "k" * 32
    await node.start()
    page = await window()
    await page.goto(node.url("/chat/"))
    await until(lambda: page.is_visible("#room-name-input"), "the page")
    assert not await page.is_visible("#guest-name-input")
