"""Choosing a room: names the server would refuse are answered on the page, in the reader's language."""

from pathlib import Path
from urllib.parse import quote

import aiohttp
from playwright.async_api import Page
from yarl import URL

from tests.browser.conftest import WindowFactory

# What a person may type, and the room's address if it names one.
NAMES = {
    "lobby": "/chat/lobby/",
    "部屋": "/chat/%E9%83%A8%E5%B1%8B/",
    "  spaces_around ": "/chat/spaces_around/",
    # か and a combining mark are が.
    "か\u3099": "/chat/%E3%81%8C/",
    "Ⅻ①²": "/chat/%E2%85%AB%E2%91%A0%C2%B2/",
    "x" * 100: f"/chat/{'x' * 100}/",
    "𠮷" * 100: f"/chat/{'%F0%A0%AE%B7' * 100}/",
    "हिन्दी": f"/chat/{quote('हिन्दी')}/",
    "می\u200cخواهم": "/chat/" + quote("می\u200cخواهم") + "/",
    "support:ann@example.org": "/chat/support%3Aann%40example.org/",
    "a-b.c": "/chat/a-b.c/",
    "": None,
    "   ": None,
    "a b": None,
    "a/b": None,
    "..": None,
    ".": None,
    "-a": None,
    "a-": None,
    "\u0301": None,
    "<b>": None,
    "50%": None,
    "🙂": None,
    "x" * 101: None,
}


async def enter(page: Page, name: str) -> None:
    await page.fill("#room-name-input", name)
    await page.press("#room-name-input", "Enter")


async def test_a_name_opens_a_room_or_is_answered(site: str, window: WindowFactory) -> None:
    page = await window()
    # The room itself is another page's business, and there is no node behind this site.
    await page.route("**/chat/*/", lambda route: route.fulfill(body="there", content_type="text/html"))
    for name, address in NAMES.items():
        await page.goto(f"{site}/chat/")
        await enter(page, name)
        if address is not None:
            await page.wait_for_url(site + address)
            continue
        assert await page.text_content("#room-name-problem"), name
        assert await page.get_attribute("#room-name-input", "aria-invalid") == "true"
        assert page.url == f"{site}/chat/"
        await page.fill("#room-name-input", "lobby")
        assert await page.text_content("#room-name-problem") == ""


async def test_the_server_agrees(site: str) -> None:
    """The rule is told twice, in JavaScript and in Python."""
    async with aiohttp.ClientSession() as http:
        for name, address in NAMES.items():
            path = address or f"/chat/{quote(name.strip(), safe='')}/"
            async with http.get(URL(site + path, encoded=True), allow_redirects=False) as answer:
                assert answer.status == (404 if address is None else 200), name


async def test_enter_that_accepts_a_conversion_does_not_enter(site: str, window: WindowFactory) -> None:
    page = await window(lang="ja-JP")
    await page.goto(f"{site}/chat/")
    await page.focus("#room-name-input")
    typing = await page.context.new_cdp_session(page)
    await typing.send("Input.imeSetComposition", {"text": "へや", "selectionStart": 2, "selectionEnd": 2})
    await typing.send(
        "Input.dispatchKeyEvent",
        {"type": "keyDown", "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13},
    )
    await typing.send("Input.insertText", {"text": "部屋"})
    assert page.url == f"{site}/chat/"
    assert await page.input_value("#room-name-input") == "部屋"
    await page.press("#room-name-input", "Enter")
    await page.wait_for_url("**/chat/%E9%83%A8%E5%B1%8B/")


async def test_an_impossible_address_says_what_a_name_may_be(site: str, window: WindowFactory, shots: Path) -> None:
    page = await window(lang="ja-JP", scheme="dark")
    answer = await page.goto(f"{site}/chat/a%20b/")
    assert answer is not None and answer.status == 404
    assert "「a b」は部屋の名前にできません" in (await page.text_content("#room-name-problem") or "")
    await page.screenshot(path=shots / "choose-problem.png")
    # The answer to the next try is about the next try.
    await enter(page, "c d")
    assert "「c d」" in (await page.text_content("#room-name-problem") or "")


async def test_the_page_fits_a_small_screen(site: str, window: WindowFactory, shots: Path) -> None:
    page = await window(size=(320, 568))
    await page.goto(f"{site}/chat/")
    await page.screenshot(path=shots / "choose.png")
    assert await page.evaluate("document.documentElement.scrollWidth") == 320
    await page.goto(f"{site}/chat/{'x' * 120}/")
    assert await page.evaluate("document.documentElement.scrollWidth") == 320
