"""docs/prefix.md: the whole chat under a path of somebody's site, behind real proxies that strip it or pass it on."""

import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest

from deploy.pages import typed
from tests.browser.conftest import WindowFactory
from tests.browser.room import say, shows, state
from tests.conftest import NodeFactory
from tests.support.need import need_tool
from tests.support.nginx import nginx
from tests.support.node import Node
from tests.support.ports import free_port
from tests.support.process import Process
from tests.support.until import until

PAGE = Path(__file__).parents[2] / "docs" / "prefix.md"
# What the pages of the node link to and where they send: everything that could lose the prefix.
PATHS = ("", "/", "/chat", "/chat/", "/chat/lobby", "/chat/lobby/", "/chat/か\u3099/", "/healthz", "/static/room.js")


def block(language: str, node: Node) -> str:
    """The page's block, before our node."""
    (found,) = re.findall(rf"```{language}\n(.+?)```", PAGE.read_text("utf-8"), re.DOTALL)
    return str(found).replace("127.0.0.1:8001", f"127.0.0.1:{node.port}")


def by_nginx(directory: Path, node: Node, port: int, strips: bool) -> Process:
    talk = block("nginx", node)
    if strips:
        talk = talk.replace(f":{node.port};", f":{node.port}/;")
    upgrade = 'map $http_upgrade $hiroba_connection { default upgrade; "" ""; }'
    rest = "location / { return 404 'the site itself'; }"
    return nginx(directory, f"{upgrade}\nserver {{ listen {port};\n{talk}\n{rest} }}")


def by_haproxy(directory: Path, node: Node, port: int, strips: bool) -> Process:
    talk = block("haproxy", node)
    if strips:
        talk = talk.replace("# http-request replace-path", "http-request replace-path")
    times = "timeout connect 4s\ntimeout client 60s\ntimeout server 60s\n"
    site = 'http-request return status 404 content-type text/plain string "the site itself" if !{ path_beg /talk }'
    conf = directory / "haproxy.cfg"
    conf.write_text(f"defaults\nmode http\n{times}frontend site\nbind 127.0.0.1:{port}\n{site}\n{talk}")
    return Process("haproxy", [need_tool("haproxy", "haproxy"), "-f", str(conf)], directory / "haproxy.log")


@pytest.fixture
async def node(start_node: NodeFactory) -> Node:
    name, _, path = typed("docs/prefix.md", "HIROBA_BASE_PATH").strip().partition("=")
    return await start_node(**{name.removeprefix("HIROBA_").lower(): path})


@pytest.fixture(params=[by_nginx, by_haproxy], ids=["nginx", "haproxy"])
async def site(request: pytest.FixtureRequest, strips: bool, node: Node, tmp_path: Path) -> AsyncIterator[str]:
    """The URL of the site, `http://127.0.0.1:1234`, of which hiroba has `/talk`."""
    behind: Callable[[Path, Node, int, bool], Process] = request.param
    port = free_port()
    proxy = behind(tmp_path, node, port, strips)
    proxy.spawn()
    url = f"http://127.0.0.1:{port}"

    async def serves() -> bool:
        async with aiohttp.ClientSession() as http, http.get(f"{url}/talk/healthz") as answer:
            return answer.status == 200

    await until(serves, "the proxy serves")
    yield url
    await proxy.stop()


pytestmark = [
    pytest.mark.parametrize("broker", ["redis"], indirect=True),
    pytest.mark.parametrize("strips", [False, True], ids=["passes it on", "strips it"]),
]


async def test_a_chat_under_a_path_of_a_site(node: Node, site: str, window: WindowFactory, shots: Path) -> None:
    """From the prefix alone to a room and back: nothing that a browser asks for lies outside the prefix."""
    alice = await window()
    asked: list[str] = []
    failed: list[str] = []
    alice.on("request", lambda request: asked.append(request.url))
    alice.on("websocket", lambda socket: asked.append(socket.url.replace("ws://", "http://")))
    alice.on("response", lambda answer: failed.append(answer.url) if answer.status >= 400 else None)
    await alice.goto(f"{site}/talk/")
    assert alice.url == f"{site}/talk/chat/"
    await alice.fill("#room-name-input", "部屋")
    await alice.press("#room-name-input", "Enter")
    await state(alice, "connected")
    assert alice.url == f"{site}/talk/chat/%E9%83%A8%E5%B1%8B/"
    await say(alice, "hello")
    await shows(alice, "hello\n")
    await alice.screenshot(path=shots / "prefix.png")
    # The styles are there: without them nothing is a column.
    assert await alice.evaluate("getComputedStyle(document.body).display") in ("flex", "grid")
    await alice.click("header a.seal")
    await alice.wait_for_url(f"{site}/talk/chat/")
    assert all(url.startswith(f"{site}/talk/") for url in asked), asked
    assert f"{site}/talk/ws/chat/%E9%83%A8%E5%B1%8B/?history=50" in asked
    assert not failed


async def test_every_redirect_stays_under_the_path(node: Node, site: str) -> None:
    async with aiohttp.ClientSession() as http:
        for path in PATHS:
            async with http.get(f"{site}/talk{path}") as answer:
                assert answer.status == 200, path
                assert answer.url.path.startswith("/talk/")
        async with http.get(f"{site}/talk/chat/a%20b/x/") as answer:
            assert answer.status == 404
            styles = re.findall(r'(?:href|src)="([^"]+)"', await answer.text())
        assert styles and all(path.startswith("/talk/") for path in styles)
        for path in ("/", "/chat/", "/ws/chat/lobby/"):
            async with http.get(site + path) as answer:
                assert await answer.text() == "the site itself"


async def test_a_refused_handshake_under_the_path_is_refused_and_counted_like_any(node: Node, site: str) -> None:
    async with aiohttp.ClientSession() as http, http.get(f"{site}/talk/ws/chat/lobby/") as answer:
        assert answer.status == 426
    assert await node.metric("hiroba_handshakes_refused_total", reason="no_websocket") == 1
    await until(lambda: any('"REJECT"' in line for line in node.lines()), "its line")
