"""The pages over plain HTTP: headers, languages, static files. No browser in it."""

import re

import aiohttp
import pytest
from yarl import URL

from gateway.edge.pages.text import text_for


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 302),
        ("/chat", 302),
        ("/chat/", 200),
        ("/chat/lobby", 302),
        ("/chat/lobby/", 200),
        ("/chat/%3Cscript%3E/", 404),
        ("/chat/%FF/", 404),
        ("/chat/%ED%A0%80/", 404),
        ("/chat/a/b/", 404),
        ("/chat//", 404),
        ("/chat/$room/", 404),
        ("/static/room.js", 200),
        ("/static/client/index.js", 200),
        ("/static/client/..%2Froom.js", 404),
        ("/static/none.js", 404),
        ("/static/", 404),
        ("/static/..%2Ftext.py", 404),
        ("/static/../text.py", 404),
    ],
)
async def test_every_answer_is_safe(site: str, path: str, status: int) -> None:
    async with (
        aiohttp.ClientSession() as http,
        http.get(URL(site + path, encoded=True), allow_redirects=False) as answer,
    ):
        assert answer.status == status
        body = await answer.text()
        assert "<script>" not in body
        if path.startswith("/chat/"):
            assert "$" not in body.replace("$room", "", 3)
        if path in ("/static/", "/static/../text.py"):
            return  # no route of ours: the app's own 404
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "Referrer-Policy" in answer.headers


async def test_a_static_file_is_sent_again_only_when_it_changed(site: str) -> None:
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{site}/static/room.js") as answer:
            assert answer.content_type == "text/javascript"
            assert answer.headers["Cache-Control"] == "no-cache"
            tag = answer.headers["ETag"]
        async with http.get(f"{site}/static/room.js", headers={"If-None-Match": f'"x", W/{tag}'}) as answer:
            assert (answer.status, await answer.read()) == (304, b"")
        async with http.get(f"{site}/static/room.js", headers={"If-None-Match": "*"}) as answer:
            assert answer.status == 304
        async with http.get(f"{site}/static/room.js", headers={"If-None-Match": '"x"'}) as answer:
            assert answer.status == 200


async def test_nothing_in_a_page_is_inline(site: str) -> None:
    """The policy forbids it; a browser would drop it silently."""
    async with aiohttp.ClientSession() as http:
        for path in ("/chat/", "/chat/lobby/"):
            async with http.get(site + path) as answer:
                page = await answer.text()
            assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\bsrc=)", page)
            for file in re.findall(r'"(/static/[^"]+)"', page):
                async with http.get(site + file) as answer:
                    assert answer.status == 200


@pytest.mark.parametrize(
    ("header", "lang"),
    [
        ("", "en"),
        ("ja", "ja"),
        ("ja-JP", "ja"),
        ("JA", "ja"),
        ("en-US,en;q=0.9,ja;q=0.8", "en"),
        ("fr,ja;q=0.5,en;q=0.4", "ja"),
        ("en;q=0.3, ja;q=0.7", "ja"),
        ("ja;q=0", "en"),
        ("ja;q=0,en;q=0.1", "en"),
        ("fr, *;q=0.5", "en"),
        ("ja;q=nonsense", "en"),
        ("ja;q=nan, en;q=0.1", "en"),
        ("ja;q=2", "en"),
        (";,;;=,q", "en"),
    ],
)
async def test_the_language_is_the_browser_s_choice(site: str, header: str, lang: str) -> None:
    assert text_for(header)["lang"] == lang
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{site}/chat/lobby/", headers={"Accept-Language": header}) as answer,
    ):
        assert answer.headers["Content-Language"] == lang
        assert answer.headers["Vary"] == "Accept-Language, Cookie"
        assert f'<html lang="{lang}">' in await answer.text()
