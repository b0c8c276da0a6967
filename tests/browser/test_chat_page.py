"""Our own page as people use it: enter a room by name, talk over two nodes, live through a broker's restart."""

import asyncio
import base64
import time
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from gateway.core.orders import Issued
from tests.browser.conftest import WindowFactory
from tests.browser.room import enter, noted, outbox_is, say, shows, state
from tests.conftest import NodeFactory
from tests.support.broker import Broker
from tests.support.node import Node
from tests.support.orders import give
from tests.support.tokens import SECRET, token

pytestmark = pytest.mark.parametrize("broker", ["redis"], indirect=True)


async def test_two_windows_chat_over_two_nodes_and_through_a_restart_of_the_broker(
    broker: Broker, start_node: NodeFactory, window: WindowFactory, shots: Path
) -> None:
    here, there = await start_node(), await start_node()
    alice = await window()
    bob = await window(lang="ja-JP", scheme="dark")
    for page, node in ((alice, here), (bob, there)):
        await page.goto(node.url("/"))
        await page.fill("#room-name-input", "部屋")
        await page.press("#room-name-input", "Enter")
        await page.wait_for_url("**/chat/%E9%83%A8%E5%B1%8B/")
        await state(page, "connected")

    await say(alice, "hello")
    await shows(bob, "hello\n")
    await say(bob, "こんにちは")
    await shows(alice, "hello\nこんにちは\n")

    await broker.kill()
    await say(alice, "are you there?")
    await noted(alice, "on its way")
    await say(alice, "I wait.")
    await outbox_is(alice, ["are you there?", "I wait."])
    await noted(alice, "waiting to be sent")
    await alice.screenshot(path=shots / "broker-away.png")
    await broker.start()
    spoken = "hello\nこんにちは\nare you there?\nI wait.\n"
    await shows(alice, spoken)
    await shows(bob, spoken)
    await outbox_is(alice, [])

    # The sockets of both are still their first; an empty message is a message; who comes later reads it all.
    await say(bob, "")
    await say(bob, "戻りました")
    spoken += "\n戻りました\n"
    await shows(alice, spoken)
    carol = await window()
    await carol.goto(here.url("/chat/部屋/"))
    await shows(carol, spoken)
    await shows(bob, spoken)
    await alice.screenshot(path=shots / "room.png")
    await bob.screenshot(path=shots / "room-dark.png")


async def test_the_last_fifty_are_there_on_entering(start_node: NodeFactory, window: WindowFactory) -> None:
    node = await start_node(messages_per_s=0)
    talker, late = await window(), await window()
    await talker.goto(node.url("/chat/lobby/"))
    await state(talker, "connected")
    for n in range(60):
        await say(talker, f"line {n}")
    await shows(talker, "".join(f"line {n}\n" for n in range(60)))
    await late.goto(node.url("/chat/lobby/"))
    await shows(late, "".join(f"line {n}\n" for n in range(10, 60)))


async def test_two_people_see_each_other_come_type_speak_and_go(
    broker: Broker, browser: Browser, start_node: NodeFactory, window: WindowFactory, shots: Path
) -> None:
    """On two nodes; and whose login is revoked is out. Their talk is the picture of the README."""
    settings = {"token_keys": f"HS256:{SECRET}", "login_url": "/login/?next={page}", "presence_grace_s": 1}
    here, there = await asyncio.gather(*(start_node(**settings) for _ in range(2)))
    alice = await logged_in("alice", "Alice", here, await window(size=(620, 520)))
    await expect(alice.locator("#people-show")).to_have_text("1 here")
    hana = await logged_in("hana", "田中花", there, await window(lang="ja-JP", scheme="dark", size=(620, 520)))
    came = alice.locator(".moves")
    await expect(came).to_contain_text("田中花")
    await expect(alice.locator("#people-show")).to_have_text("2 here")
    await expect(hana.locator("#people-show")).to_have_text("2人")
    assert await alice.locator("#people-list .name").all_text_contents() == ["Alice", "田中花"]

    await alice.locator("#chat-message-input").press_sequentially("Good mor")
    await expect(hana.locator("#chat-typing")).to_contain_text("Alice")
    talk = [
        (alice, "Alice", "Good morning! Is this the square?"),
        (hana, "田中花", "おはようございます。はい、ここが広場です。"),
        (alice, "Alice", "I am on one node, you are on another."),
        (hana, "田中花", "でも同じ順番で読めますね。"),
        (alice, "Alice", "A room is a log. A session is a cursor on it."),
    ]
    said = ""
    for speaker, name, text in talk:
        await say(speaker, text)
        said += f"{name}: {text}\n"
        await shows(alice, said)
        await shows(hana, said)
    await expect(hana.locator("#chat-typing")).to_be_empty()
    await picture(browser, (alice, hana), shots / "chat.png")

    await give(broker, Issued("hana", 600))
    await state(hana, "closed")
    await expect(hana.locator("#room-view .standing")).to_contain_text("ログイン")
    await expect(came.last).to_contain_text("田中花")
    await expect(alice.locator("#people-show")).to_have_text("1 here")
    await alice.click("#menu summary")
    await alice.locator("#show-moves").uncheck()
    assert await came.evaluate_all("all => all.every((one) => one.offsetHeight === 0)")


async def logged_in(user: str, name: str, node: Node, page: Page) -> Page:
    said = token(sub=user, name=name, iat=time.time() - 10)
    await page.context.add_cookies([{"name": "hiroba_token", "value": said, "url": node.url()}])
    await enter(page, node.url("/chat/広場/"))
    return page


async def picture(browser: Browser, pages: tuple[Page, ...], path: Path) -> None:
    """The windows beside each other."""
    images = [base64.b64encode(await page.screenshot()).decode() for page in pages]
    frame = await browser.new_page(viewport={"width": 1300, "height": 560})
    await frame.set_content(
        "<body style='margin:0;display:flex;gap:20px;padding:20px;box-sizing:border-box;background:#8a8f98'>"
        + "".join(f"<img src='data:image/png;base64,{image}' style='border-radius:8px'>" for image in images)
    )
    assert len(await frame.screenshot(path=path)) < 300_000
