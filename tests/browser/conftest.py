"""A real Chromium for the tests of the pages; its windows, and the place for screenshots."""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from pathlib import Path
from typing import Literal

import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright

from gateway.edge import pages
from tests.conftest import NodeFactory
from tests.support.need import need_tool
from tests.support.node import Node

# No GPU and no sandbox in a container; and nothing that Chromium would ask the world by itself.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# What Chromium says of a road that was cut, of the 404 page, of a door that is closed: expected where a test does that.
OF_THE_NETWORK = re.compile(
    r"^WebSocket connection to|^Failed to load resource: the server responded with a status of (401|403|404)"
)

SHARED_LOOP = pytest.mark.asyncio(loop_scope="session")

WindowFactory = Callable[..., Awaitable[Page]]


@pytest.fixture
async def node(start_node: NodeFactory) -> Node:
    return await start_node()


@pytest.hookimpl(wrapper=True)
def pytest_pycollect_makemodule() -> Generator[None, pytest.Module, pytest.Module]:
    """These tests share a loop, for they share a browser: starting Playwright and Chromium costs a second of CPU."""
    module = yield
    module.add_marker(SHARED_LOOP)
    return module


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Debian's Chromium; Playwright's own is not downloaded."""
    chromium = need_tool("chromium", "chromium fonts-noto-cjk")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def window(browser: Browser) -> AsyncIterator[WindowFactory]:
    """`await window(lang="ja-JP", scheme="dark", size=(390, 720))`: a window of a person of their own.

    A script error in any window fails the test, and so does an error on its console: a violation of the
    Content-Security-Policy would be one.
    """
    complaints: list[str] = []
    people: list[BrowserContext] = []

    def heard(message: ConsoleMessage) -> None:
        if message.type == "error" and not OF_THE_NETWORK.match(message.text):
            complaints.append(message.text)

    async def opened(
        lang: str = "en-US",
        scheme: Literal["light", "dark"] = "light",
        size: tuple[int, int] = (900, 640),
        ignore_https_errors: bool = False,
        bypass_csp: bool = False,
    ) -> Page:
        context = await browser.new_context(
            locale=lang,
            color_scheme=scheme,
            viewport={"width": size[0], "height": size[1]},
            ignore_https_errors=ignore_https_errors,
            bypass_csp=bypass_csp,
        )
        people.append(context)
        page = await context.new_page()
        page.on("console", heard)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        return page

    yield opened
    heard_until_now = list(complaints)  # whoever leaves last hears that the others' nodes are gone
    await asyncio.gather(*(context.close() for context in people))
    assert not heard_until_now


@pytest.fixture(scope="session")
def shots() -> Path:
    """Where screenshots go: HIROBA_TEST_SHOTS, or tests/shots (not kept by git)."""
    directory = Path(os.environ.get("HIROBA_TEST_SHOTS") or Path(__file__).parent.parent / "shots")
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@pytest_asyncio.fixture(loop_scope="session")
async def site() -> AsyncIterator[str]:
    """The URL of the pages alone, without a node behind them: for what needs no WebSocket."""
    app = web.Application()
    app.add_routes(pages.routes())
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    yield f"http://{host}:{port}"
    await runner.cleanup()
