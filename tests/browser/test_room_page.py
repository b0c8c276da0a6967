"""The room's page under the fingers: input methods, plain text, a bounded log, reading further up, small screens."""

import ssl
from pathlib import Path

import aiohttp
import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import WindowFactory
from tests.browser.door import Door
from tests.browser.room import enter, log, say, shows, state
from tests.conftest import NodeFactory
from tests.support.api import ask as api
from tests.support.broker import Broker
from tests.support.certs import make_certs
from tests.support.node import Node
from tests.support.until import until

# What was said, to the eye.
LINES = "document.querySelector('#chat-lines')"

pytestmark = pytest.mark.parametrize("broker", ["redis"], indirect=True)


@pytest.fixture
async def node(start_node: NodeFactory) -> Node:
    return await start_node(messages_per_s=0)


async def publish(node: Node, room: str, *messages: object) -> None:
    """Says messages of any JSON, on the plain wire, and waits until the last one came back."""
    async with aiohttp.ClientSession() as http, http.ws_connect(node.ws_url(room)) as ws:
        for message in messages:
            await ws.send_json({"message": message})
        for _ in messages:
            await ws.receive_json(timeout=20)


async def test_enter_that_accepts_a_conversion_does_not_send(node: Node, window: WindowFactory) -> None:
    alice = await window(lang="ja-JP")
    await enter(alice, node.url("/chat/部屋/"))
    await alice.focus("#chat-message-input")
    typing = await alice.context.new_cdp_session(alice)
    enter_key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}

    await typing.send("Input.imeSetComposition", {"text": "へや", "selectionStart": 2, "selectionEnd": 2})
    await typing.send("Input.dispatchKeyEvent", {"type": "keyDown", **enter_key})
    await typing.send("Input.insertText", {"text": "部屋"})
    await typing.send("Input.dispatchKeyEvent", {"type": "keyUp", **enter_key})
    # Safari: the composition has ended already when the key is told, with the code of "an input method had it".
    await alice.evaluate(
        """document.querySelector("#chat-message-input").dispatchEvent(
            new KeyboardEvent("keydown", { key: "Enter", keyCode: 229, bubbles: true }))"""
    )
    assert await alice.input_value("#chat-message-input") == "部屋"
    await alice.press("#chat-message-input", "Enter")
    await shows(alice, "部屋\n")
    assert await alice.input_value("#chat-message-input") == ""


async def test_whatever_is_said_is_shown_as_text(node: Node, window: WindowFactory) -> None:
    alice = await window()
    await enter(alice, node.url("/chat/lobby/"))
    html = "<img src=x onerror=\"document.title='gotcha'\"><script>document.title='gotcha'</script>"
    messages: list[object] = [html, {"a": [1, None]}, ["x"], 12.5, True, None, "two\r\nlines", ""]
    await publish(node, "lobby", *messages)
    expected = f'{html}\n{{"a":[1,null]}}\n["x"]\n12.5\ntrue\nnull\ntwo\nlines\n\n'
    await shows(alice, expected)
    # The screen reader's copy as well.
    assert await alice.locator("#chat-spoken > p").first.text_content() == f"{html}\n"
    assert await alice.locator("img").count() == 0
    assert await alice.title() == "lobby · hiroba"


async def test_what_is_deleted_is_shown_no_more(node: Node, window: WindowFactory, shots: Path) -> None:
    """Neither to the eye, nor to a script or a screen reader: there is a note in its place."""
    alice = await window()
    await enter(alice, node.url("/chat/lobby/"))
    await publish(node, "lobby", "one", "secret", "three")
    await shows(alice, "one\nsecret\nthree\n")
    entries = (await api(node, "GET", "/history?room=lobby")).said["entries"]
    assert (await api(node, "DELETE", f"/rooms/lobby/messages/{entries[1]['id']}")).status == 200
    await shows(alice, "one\n— message deleted —\nthree\n")
    assert "secret" not in await alice.inner_text("body")
    await alice.screenshot(path=shots / "deleted.png")
    assert (await api(node, "DELETE", "/rooms/lobby/messages")).status == 200
    await shows(alice, "— message deleted —\n" * 3)
    await publish(node, "lobby", "four")
    await shows(alice, "— message deleted —\n" * 3 + "four\n")


async def test_the_log_is_bounded(node: Node, window: WindowFactory) -> None:
    alice = await window()
    await enter(alice, node.url("/chat/lobby/"))
    for first in range(0, 3000, 500):
        await publish(node, "lobby", *(f"line {n}" for n in range(first, first + 500)))
    await until(lambda: _ends(alice, "line 2999\n"), "the last line")
    lines = (await log(alice)).splitlines()
    assert 1000 <= len(lines) <= 1200
    assert lines == [f"line {n}" for n in range(3000 - len(lines), 3000)]
    await publish(node, "lobby", *(str(n) * 60_000 for n in range(9)))
    await until(lambda: _ends(alice, "8" * 60_000 + "\n"), "the last of the long lines")
    assert len(await log(alice)) <= 360_000
    assert await alice.locator("#chat-spoken > p").count() <= 10


async def _ends(page: Page, text: str) -> bool:
    return (await log(page)).endswith(text)


async def test_reading_further_up_is_left_alone(node: Node, window: WindowFactory, shots: Path) -> None:
    """What is new below is counted, and one key away; what one says oneself is always shown."""
    alice = await window()
    await enter(alice, node.url("/chat/lobby/"))
    news = alice.locator("#chat-news")
    await publish(node, "lobby", *(f"line {n}" for n in range(80)))
    await until(lambda: _ends(alice, "line 79\n"), "the last line")
    await until(lambda: _at_end(alice), "the end is shown")
    await alice.evaluate(f"getSelection().selectAllChildren({LINES}.children[5]), {LINES}.scrollTop = 300")
    await until(lambda: alice.evaluate(f"{LINES}.dataset.end === 'false'"), "she reads further up")
    await publish(node, "lobby", "news", "more news")
    await expect(news).to_have_text("2 new ↓")
    assert await alice.evaluate(f"{LINES}.scrollTop") == 300
    assert "line 5" in await alice.evaluate("getSelection().toString()")
    await alice.screenshot(path=shots / "news.png")
    await news.press("Enter")
    await expect(news).to_be_hidden()
    assert await _at_end(alice)
    await alice.evaluate(f"{LINES}.scrollTop = 300")
    await until(lambda: alice.evaluate(f"{LINES}.dataset.end === 'false'"), "and again")
    await say(alice, "mine")
    await until(lambda: _ends(alice, "mine\n"), "what she said")
    await until(lambda: _at_end(alice), "it is shown")


async def _at_end(page: Page) -> bool:
    return bool(await page.evaluate(f"{LINES}.scrollTop + {LINES}.clientHeight > {LINES}.scrollHeight - 2"))


async def test_a_page_that_came_by_https_talks_wss(node: Node, window: WindowFactory, tmp_path: Path) -> None:
    certs = make_certs(tmp_path / "certs")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certs.cert, certs.key)
    alice = await window(ignore_https_errors=True)
    sockets: list[str] = []
    alice.on("websocket", lambda socket: sockets.append(socket.url))
    async with Door(node.port, tls) as door:
        await enter(alice, door.url("/chat/lobby/"))
        await say(alice, "hello")
        await shows(alice, "hello\n")
        assert [url.split(":")[0] for url in sockets] == ["wss"]


@pytest.mark.parametrize(("lang", "scheme"), [("en-US", "light"), ("ja-JP", "dark")])
async def test_a_small_screen_is_enough(node: Node, window: WindowFactory, shots: Path, lang: str, scheme: str) -> None:
    alice = await window(lang=lang, scheme=scheme, size=(320, 568))
    async with Door(node.port) as door:
        await enter(alice, door.url(f"/chat/{'とても長い部屋の名前' * 10}/"))
        await say(alice, "x" * 300)
        await shows(alice, "x" * 300 + "\n")
        door.refusing = True
        door.cut()
        await state(alice, "reconnecting")
        await say(alice, "y" * 300)
        await alice.locator("#chat-outbox li").wait_for()
        assert await alice.evaluate("document.documentElement.scrollWidth") == 320
        box = await alice.locator("#chat-message-submit").bounding_box()
        assert box is not None and box["y"] + box["height"] <= 568
        await alice.screenshot(path=shots / f"small-{lang}.png")


async def test_the_page_speaks_its_reader_s_language(node: Node, window: WindowFactory) -> None:
    alice = await window(lang="ja-JP")
    await enter(alice, node.url("/chat/部屋/"))
    assert await alice.get_attribute("html", "lang") == "ja"
    assert await alice.text_content("#chat-state") == "接続中"
    assert await alice.get_attribute("#chat-message-submit", "value") == "送信"


async def test_everything_can_be_done_by_keyboard(node: Node, window: WindowFactory) -> None:
    alice = await window()
    await enter(alice, node.url("/chat/lobby/"))
    # The field has the focus from the start.
    await alice.keyboard.type("typed")
    await alice.keyboard.press("Tab")
    await alice.keyboard.press("Enter")
    await shows(alice, "typed\n")
    # Around once, starting behind the button; the body is where a browser's own controls would have their turn.
    reached = set()
    for _ in range(12):
        await alice.keyboard.press("Tab")
        reached.add(await alice.evaluate("document.activeElement.id || document.activeElement.className"))
    assert reached >= {"seal", "chat-lines", "chat-message-input", "chat-message-submit"}


async def test_scrolling_back_loads_what_was_said_before(node: Node, window: WindowFactory, shots: Path) -> None:
    """Each entry once, to the beginning, while others go on to talk; what is being read stays where it is."""
    alice = await window()
    await publish(node, "lobby", *(f"line {n}" for n in range(170)))
    await enter(alice, node.url("/chat/lobby/"))
    await until(lambda: _ends(alice, "line 169\n"), "the last line")
    assert len((await log(alice)).splitlines()) == 50
    earlier = alice.locator("#chat-earlier")
    await earlier.click()
    await until(lambda: _begins(alice, "line 70\n"), "a page more")
    assert await alice.evaluate("document.activeElement.id") == "chat-message-input"
    # A reader scrolls to the top, and sees there what was there.
    await publish(node, "lobby", "news")
    await until(lambda: _ends(alice, "news\n"), "the news")
    await alice.evaluate(f"{LINES}.scrollTop = 10")
    await until(lambda: _begins(alice, "line 20\n"), "the next page")
    assert await alice.evaluate(f"{LINES}.scrollTop") > 1000
    await alice.screenshot(path=shots / "earlier.png")
    await alice.evaluate(f"{LINES}.scrollTop = 0")
    await until(lambda: _begins(alice, "line 0\n"), "the beginning")
    assert await log(alice) == "".join(f"line {n}\n" for n in range(170)) + "news\n"
    await earlier.wait_for(state="hidden")


async def test_a_hole_further_up_is_shown_where_it_is(
    broker: Broker, start_node: NodeFactory, window: WindowFactory
) -> None:
    node = await start_node(messages_per_s=0, linger_s=0.1)
    alice = await window()
    await publish(node, "lobby", *(f"line {n}" for n in range(60)))
    async with broker.client() as client:
        (key,) = [key async for key in client.scan_iter("hiroba:*:log:lobby")]
        await client.xtrim(key, maxlen=55, approximate=False)
    # Nobody is in it any more, so no node has in memory what the log has lost.
    await until(lambda: _rooms(node, 0), "the room closes")
    await enter(alice, node.url("/chat/lobby/"))
    await until(lambda: _ends(alice, "line 59\n"), "the last line")
    # Nothing is there to click where the log stood at its top for a moment, and asked by itself.
    await alice.locator("#chat-earlier").dispatch_event("click")
    expected = "— messages missing here: 5 —\n" + "".join(f"line {n}\n" for n in range(5, 60))
    await shows(alice, expected)
    await alice.locator("#chat-earlier").wait_for(state="hidden")


async def _begins(page: Page, text: str) -> bool:
    return (await log(page)).startswith(text)


async def _rooms(node: Node, count: int) -> bool:
    return await node.metric("hiroba_rooms") == count
