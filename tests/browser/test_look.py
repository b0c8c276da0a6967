"""What a talk looks like: who speaks, when, in which direction; what the field and the menu do; who can't see it."""

import time
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.browser.axe import violations
from tests.browser.conftest import WindowFactory
from tests.browser.door import Door
from tests.browser.room import enter, log, say, shows
from tests.support.node import Node
from tests.support.until import until

pytestmark = pytest.mark.parametrize("broker", ["redis"], indirect=True)

DAY_MS = 86_400_000
# 12 h UTC: the same day wherever the test runs.
NOON_MS = time.time_ns() // 1_000_000 // DAY_MS * DAY_MS + DAY_MS // 2
ANN = {"id": "7", "name": "Ann Lee"}
KEN = {"id": "guest:ken", "name": "高橋健"}
LAYLA = {"id": "9", "name": "ليلى"}
LINK = "https://example.org/a_(b)"
# Who, what, and how long after noon.
TALK: list[tuple[dict[str, str] | None, object, int]] = [
    (ANN, "Good morning!", -DAY_MS),
    (ANN, f"See ({LINK}). And javascript:alert(1)", 0),
    (ANN, "two\nlines", 60_000),
    (KEN, "こちらです：https://example.org/資料。どうぞ", 61_000),
    (LAYLA, "مرحبا بالجميع", 62_000),
    (None, {"a": 1}, 63_000),
    (ANN, "<b>later</b>", 3_600_000),
]


async def tell_all(door: Door) -> None:
    """As if the node had them in its log, some since yesterday."""
    for n, (user, message, after_ms) in enumerate(TALK, 1):
        at = NOON_MS + after_ms
        entry = {"id": f"{at}-{n}", "from": f"s{n}", "user": user, "message": message, "at": at}
        await door.tell(type="message", room="square", **entry)


async def colours(page: Page, selector: str) -> list[str]:
    found: list[str] = await page.locator(selector).evaluate_all("all => all.map((one) => one.dataset.colour)")
    return found


async def test_who_speaks_and_when(node: Node, window: WindowFactory, shots: Path) -> None:
    """Names in a colour that stays, once for what is said together; a date for each day; links that tell nobody."""
    alice, phone = await window(size=(1280, 800)), await window(lang="ja-JP", scheme="dark", size=(390, 844))
    async with Door(node.port) as door:
        for page in (alice, phone):
            await enter(page, door.url("/chat/square/"))
        await expect(alice.locator("#chat-lines")).to_be_empty()
        await tell_all(door)
        for page in (alice, phone):
            await until(lambda page=page: _has(page, "<b>later</b>"), "all of it")
        entries = alice.locator("#chat-lines > .entry")
        assert await entries.evaluate_all("all => all.map((one) => one.classList.contains('more'))") == [
            False, False, True, False, False, False, False,
        ]  # fmt: skip
        assert await alice.locator(".day").count() == 2
        assert await alice.locator(".entry:has(.day) .words").all_inner_texts() == [TALK[0][1], TALK[1][1]]
        shown = alice.locator(".entry:not(.more) .face")
        assert await shown.all_text_contents() == ["AL", "AL", "高", "ل", "?", "AL"]
        ann, *_ = told = await colours(alice, ".entry .face")
        assert [told[place] for place in (1, 2, 6)] == [ann] * 3
        assert told == await colours(phone, ".entry .name"), "the same for everybody"
        assert await alice.locator(".entry:has(.guest) .name").all_inner_texts() == ["高橋健"]
        assert await phone.locator(".guest").inner_text() == "ゲスト"
        links = alice.locator(".words a")
        assert await links.all_inner_texts() == [LINK, "https://example.org/資料"]
        assert await links.evaluate_all("all => all.map(({ rel, target }) => [rel, target])") == (
            [["noopener noreferrer", "_blank"]] * 2
        )
        assert await alice.locator(".words b").count() == 0, "text is text"
        directions = "all => all.map((one) => getComputedStyle(one).direction)"
        assert (await alice.locator(".words").evaluate_all(directions))[4:6] == ["rtl", "ltr"]
        assert (await log(phone)).startswith(f"Ann Lee: Good morning!\nAnn Lee: {TALK[1][1]}\n")
        for page, name in ((alice, "desk"), (phone, "phone")):
            await page.screenshot(path=shots / f"talk-{name}.png")
            assert await violations(page) == []
            await page.click("#menu summary")
            # The other half of the day, by the switch.
            await page.locator(f"[name=theme][value={'dark' if page is alice else 'light'}]").check()
            assert await violations(page) == []
            await page.screenshot(path=shots / f"menu-{name}.png")
            await page.keyboard.press("Escape")
        assert await alice.evaluate("getComputedStyle(document.documentElement).colorScheme") == "dark"
        await alice.goto(door.url("/chat/"))
        assert await alice.evaluate("getComputedStyle(document.documentElement).colorScheme") == "dark"
        assert await violations(alice) == []


async def _has(page: Page, text: str) -> bool:
    return text in await log(page)


async def test_the_field_and_the_menu(node: Node, window: WindowFactory) -> None:
    """Lines stay lines; a text that is too long stays where it is; scripts of the old page find their text area."""
    alice = await window()
    await alice.context.grant_permissions(["clipboard-read", "clipboard-write", "notifications"])
    await alice.add_init_script("""
        window.notices = [];
        window.Notification = class extends EventTarget {
          static permission = "granted";
          static requestPermission = async () => "granted";
          constructor(title, { body }) { super(); notices.push([title, body]); }
        };
    """)
    await enter(alice, node.url("/chat/lobby/"))
    field = alice.locator("#chat-message-input")

    async def height() -> float:
        box = await field.bounding_box()
        assert box is not None
        return box["height"]

    low = await height()
    await alice.keyboard.type("one")
    await alice.keyboard.press("Shift+Enter")
    await alice.keyboard.insert_text("two\nthree")
    assert await height() > 1.5 * low
    await alice.keyboard.press("Enter")
    await shows(alice, "one\ntwo\nthree\n")
    assert await height() == low and await field.input_value() == ""
    assert await alice.locator(".entry.own .words").inner_text() == "one\ntwo\nthree"

    left = alice.locator("#chat-left")
    await expect(left).to_be_hidden()
    await field.fill("あ" * 20_000)
    await expect(left).to_contain_text("bytes left")
    await field.fill("あ" * 30_000)
    await field.press("Enter")
    await expect(alice.locator("#chat-problem")).to_contain_text("Too long by")
    assert len(await field.input_value()) == 30_000
    await field.fill("")
    await expect(left).to_be_hidden()

    # As the tutorial's scripts and tests do it: docs/decisions/0015.
    old = "document.querySelector('#chat-log')"
    assert await alice.evaluate(f"{old}.value += 'from a script\\n', {old}.value") == "one\ntwo\nthree\nfrom a script\n"
    assert await alice.locator("#chat-lines > .plain").inner_text() == "from a script"
    await alice.evaluate("document.querySelector('#chat-message-input').value = 'typed by a script'")
    await alice.evaluate("document.querySelector('#chat-message-submit').click()")
    await shows(alice, "one\ntwo\nthree\nfrom a script\ntyped by a script\n")
    await alice.evaluate(f"{old}.value = ''")
    await expect(alice.locator("#chat-lines > *")).to_have_count(0)

    await alice.click("#menu summary")
    await alice.click("#copy-link")
    await expect(alice.locator("#copy-link")).to_have_text("Copied")
    assert await alice.evaluate("navigator.clipboard.readText()") == node.url("/chat/lobby/")
    await alice.locator("#notify").check()
    await alice.keyboard.press("Escape")
    await expect(alice.locator("#copy-link")).to_be_hidden()
    bob = await window()
    await enter(bob, node.url("/chat/lobby/"))
    await say(bob, "seen")
    await shows(alice, "seen\n")
    await alice.evaluate("Object.defineProperty(document, 'hidden', { get: () => true })")
    await say(bob, "look here")
    await shows(alice, "seen\nlook here\n")
    assert await alice.evaluate("notices") == [["lobby", "look here"]]
    manifest = await alice.request.get(await alice.locator("link[rel=manifest]").evaluate("({ href }) => href"))
    assert (await manifest.json())["start_url"] == "../chat/"
