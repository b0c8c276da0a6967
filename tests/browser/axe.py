"""Deque's axe-core on a page: what keeps somebody out who can't see it as others do."""

from functools import cache
from importlib.resources import files

from playwright.async_api import Page


@cache
def _axe() -> str:
    return (files("axe_playwright_python") / "axe.min.js").read_text("utf-8")


async def violations(page: Page) -> list[str]:
    """One line each, with the element; empty: none."""
    await page.evaluate(_axe())
    found = await page.evaluate("axe.run()")
    return [f"{rule['id']}: {node['html'][:200]}" for rule in found["violations"] for node in rule["nodes"]]
