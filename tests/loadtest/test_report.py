"""The HTML report in a real Chromium without a network, and the library file that it carries."""

import hashlib
import json
import re
from pathlib import Path

from playwright.async_api import ConsoleMessage, Page, Request, async_playwright

from loadtest import page
from tests.browser.conftest import ARGUMENTS
from tests.loadtest.harness import ROOT, run, started
from tests.loadtest.lying_server import Lies, lying_server
from tests.support.need import need_tool

FOLDER = Path(page.__file__).parent


async def test_the_report_opens_without_a_network_and_draws_its_charts(tmp_path: Path) -> None:
    chromium = need_tool("chromium", "chromium fonts-noto-cjk")
    html, again = tmp_path / "report.html", tmp_path / "again.html"
    crowd = ("-u", "12", "--rooms", "3", "-r", "12", "--rate", "120", "-t", "4s", "--settle", "1s")
    async with lying_server(Lies(drop=0.05)) as (server, url):
        outcome = await run(tmp_path, "-H", url, *crowd, "--html", str(html), "--csv", str(tmp_path / "series"))
    rewritten = await (
        await started(tmp_path / "second", "report", str(tmp_path / "result.json"), "--html", str(again))
    ).finish()
    assert rewritten.exit_code == 0
    assert again.read_bytes() == html.read_bytes(), "the raw result holds all that the report says"

    troubles: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        tab = await (await browser.new_context(offline=True)).new_page()
        _watch(tab, troubles)
        await tab.goto(html.as_uri())
        drawn = await tab.wait_for_function("document.documentElement.dataset.drawn")
        assert int(await drawn.json_value()) >= 4
        assert await tab.locator("#badge").inner_text() in ("FAILED", "INVALID")
        assert f"{outcome.counts['lost']} lost" in await tab.locator("#headline").inner_text()
        assert server.tally["lost"] == outcome.counts["lost"] > 0
        assert "--seed" in await tab.locator("#command").inner_text()
        for name in ("load", "latency", "spectrum", "generator"):
            assert await tab.evaluate(_INKED, f"#{name} canvas") > 500, f"chart {name} is empty"
        await tab.screenshot(path=tmp_path / "report.png", full_page=True)
        await tab.set_viewport_size({"width": 400, "height": 800})
        # A phone need not scroll sideways, once the charts have heard of its width.
        await tab.wait_for_function("document.documentElement.scrollWidth <= innerWidth")
        await browser.close()
    assert troubles == []
    rows = (tmp_path / "series_timeline.csv").read_text().splitlines()
    assert rows[0].startswith("second,users,")
    assert len(rows) >= 4


# Pixels of a canvas that are not white paper.
_INKED = """selector => {
  const canvas = document.querySelector(selector);
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let inked = 0;
  for (let at = 3; at < pixels.length; at += 4) if (pixels[at] > 0) inked += 1;
  return inked;
}"""


def _watch(tab: Page, troubles: list[str]) -> None:
    def on_console(message: ConsoleMessage) -> None:
        troubles.append(message.text)

    def on_request(request: Request) -> None:
        if not request.url.startswith("file:"):
            troubles.append(request.url)

    tab.on("console", on_console)
    tab.on("request", on_request)
    tab.on("pageerror", lambda error: troubles.append(str(error)))


def test_the_chart_library_is_the_file_that_was_looked_at() -> None:
    notes = (FOLDER / "THIRD-PARTY.md").read_text("utf-8")
    listed = re.findall(r"^\| `(\S+)` \|.*`([0-9a-f]{64})` \|$", notes, re.MULTILINE)
    assert {name for name, _ in listed} == {"uPlot.iife.min.js", "uPlot.min.css"}
    for name, digest in listed:
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == digest
    assert "Permission is hereby granted" in notes


def test_a_result_can_not_bring_markup_along() -> None:
    rendered = page.render({"schema": "x", "headline": "</script><script>alert(1)</script>"})
    data = rendered.split('id="result">', 1)[1].split("</script>", 1)[0]
    assert json.loads(data)["headline"] == "</script><script>alert(1)</script>"
    assert "<script>alert" not in rendered


def test_the_documentation_names_every_key_of_the_result() -> None:
    documented = (ROOT / "docs" / "load-testing.md").read_text("utf-8")
    source = (ROOT / "loadtest" / "result.py").read_text("utf-8")
    body = source[source.index("    return {\n") : source.index("def environment")]
    keys = re.findall(r'^        "(\w+)":', body, re.MULTILINE)
    assert len(keys) > 20
    assert [key for key in keys if f"`{key}`" not in documented] == []
