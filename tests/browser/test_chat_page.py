"""Our own page as people use it: enter a room by name, talk over two nodes, live through a broker's restart."""

import base64
from pathlib import Path

import pytest
from playwright.async_api import Browser

from tests.browser.conftest import WindowFactory
from tests.browser.room import noted, outbox_is, say, shows, state
from tests.conftest import NodeFactory
from tests.support.broker import Broker

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


async def test_two_windows_side_by_side(
    browser: Browser, start_node: NodeFactory, window: WindowFactory, shots: Path
) -> None:
    """The picture of the README."""
    here, there = await start_node(), await start_node()
    alice = await window(size=(620, 520))
    bob = await window(lang="ja-JP", scheme="dark", size=(620, 520))
    await alice.goto(here.url("/chat/広場/"))
    await bob.goto(there.url("/chat/広場/"))
    await state(alice, "connected")
    await state(bob, "connected")
    talk = [
        (alice, "Good morning! Is this the square?"),
        (bob, "おはようございます。はい、ここが広場です。"),
        (alice, "I am on one node, you are on another."),
        (bob, "でも同じ順番で読めますね。"),
        (alice, "A room is a log. A session is a cursor on it."),
    ]
    said = ""
    for speaker, text in talk:
        await say(speaker, text)
        said += f"{text}\n"
        await shows(alice, said)
        await shows(bob, said)
    images = [base64.b64encode(await page.screenshot()).decode() for page in (alice, bob)]
    frame = await browser.new_page(viewport={"width": 1300, "height": 560})
    await frame.set_content(
        "<body style='margin:0;display:flex;gap:20px;padding:20px;box-sizing:border-box;background:#8a8f98'>"
        + "".join(f"<img src='data:image/png;base64,{image}' style='border-radius:8px'>" for image in images)
    )
    await frame.screenshot(path=shots / "chat.png")
    assert (shots / "chat.png").stat().st_size < 300_000
