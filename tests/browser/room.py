"""What a person does in a room's window, for either page: the old chat's and ours have the same elements."""

from playwright.async_api import Page

from tests.support.until import BUDGET_S, until

# Between two looks at a page, for each costs the browser some ms.
LOOK_S = 0.05
# That somebody types goes before what they say, and is shorter: {"type":"typing","room":"lobby"} in a frame.
TYPING_BYTES_MAX = 50


async def enter(page: Page, url: str) -> None:
    """Goes to our page of a room, and waits until it is in."""
    await page.goto(url)
    await state(page, "connected")


async def say(page: Page, text: str) -> None:
    """Types a message and ends it with Enter."""
    await page.fill("#chat-message-input", text)
    await page.press("#chat-message-input", "Enter")


async def log(page: Page) -> str:
    return await page.input_value("#chat-log")


async def shows(page: Page, expected: str, within_s: float = BUDGET_S) -> None:
    """Waits until the log is exactly this."""

    async def matches() -> bool:
        return await log(page) == expected

    try:
        await until(matches, "the log", within_s, LOOK_S)
    except AssertionError:
        assert await log(page) == expected


async def state(page: Page, name: str) -> None:
    """Waits for our page's state line: connected, reconnecting, closed."""
    await page.wait_for_selector(f"#chat-state[data-state={name}]", timeout=BUDGET_S * 1000)


async def outbox_is(page: Page, texts: list[str]) -> None:
    """Waits until exactly these texts of our page are not acknowledged yet."""

    async def matches() -> bool:
        return await page.locator("#chat-outbox li > span").all_text_contents() == texts

    await until(matches, f"the outbox holds {texts}", every_s=LOOK_S)


async def noted(page: Page, note: str) -> None:
    """Waits until one text of the outbox carries this note."""
    await page.locator("#chat-outbox small", has_text=note).first.wait_for(timeout=BUDGET_S * 1000)
