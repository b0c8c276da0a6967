"""docs/nginx.md and docs/moving-from-channels.md: nginx takes their blocks, which do what the pages say."""

import asyncio
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import psutil
import pytest
from aiohttp import web

from deploy.pages import typed
from deploy.stack.parts import DEPLOY
from tests.conftest import NodeFactory
from tests.support.nginx import nginx
from tests.support.ports import free_port
from tests.support.until import until

DOCS = DEPLOY.parent / "docs"


def written(page: str, **ports: int) -> str:
    """The page's block with other ports than those that it names: `at_8000=port`."""
    (block,) = re.findall(r"```nginx\n(.+?)```", (DOCS / page).read_text("utf-8"), re.DOTALL)
    for name, ours in ports.items():
        named = rf"(?<=listen |.0.0.1:){name.removeprefix('at_')}(?=;| max_fails)"
        block, count = re.subn(named, str(ours), block)
        assert count == 1, name
    return str(block)


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
async def test_nginx_shares_out_clients_and_passes_by_a_node_that_drains(
    start_node: NodeFactory, tmp_path: Path
) -> None:
    # The first one drains for as long as the test likes: its clients are sent away slowly.
    settings = {"lb_wait_s": 0, "drain_s": 30, "trusted_proxies": "127.0.0.1/32"}
    one, two = await asyncio.gather(start_node(**settings), start_node(**settings))
    port = free_port()
    server = nginx(tmp_path, written("nginx.md", at_8000=port, at_8001=one.port, at_8002=two.port))
    server.spawn()
    url = f"ws://127.0.0.1:{port}/ws/chat/部屋/"
    connector = aiohttp.TCPConnector(local_addr=("127.0.0.8", 0))
    async with aiohttp.ClientSession(connector=connector, headers={"X-Forwarded-For": "203.0.113.9"}) as http:
        await until(lambda: _serves(http, port), "nginx serves")
        sockets = [await http.ws_connect(url, protocols=("hiroba.v1",)) for _ in range(10)]
        welcomes = [await ws.receive_json(timeout=20) for ws in sockets]
        by_node = [welcome["node"] for welcome in welcomes]
        assert sorted(by_node.count(node) for node in set(by_node)) == [5, 5]
        await sockets[0].send_json({"type": "message", "message": "やあ"})
        for ws in sockets:
            assert (await ws.receive_json(timeout=20))["message"] == "やあ"

        one.process.signal(signal.SIGTERM)
        await until(lambda: any('"draining"' in line for line in one.lines()), "the first node drains")
        refused_before = await two.metric("hiroba_connections")
        late = [await http.ws_connect(url) for _ in range(6)]
        assert await two.metric("hiroba_connections") == refused_before + 6
        reload = typed("docs/nginx.md", "nginx -s reload")
        # It is another nginx than the machine's.
        await asyncio.to_thread(subprocess.run, [*reload.split(), *server.argv[1:]], check=True)
        await until(lambda: len(psutil.Process(server.pid).children()) > 1, "new workers beside the old ones")
        for ws in late:
            await ws.send_json({"message": "the old ones keep every socket"})
        for ws in (*sockets, *late):
            await ws.close()
    assert "127.0.0.8" in two.process.log.read_text()
    assert "203.0.113.9" not in two.process.log.read_text()
    await server.stop()


@pytest.mark.long
async def test_a_channels_site_keeps_its_pages_and_its_sockets_go_to_hiroba(
    start_node: NodeFactory, tmp_path: Path
) -> None:
    """The block of moving-from-channels.md before the `location` of the old site, whose page opens the socket."""
    node = await start_node(trusted_proxies="127.0.0.1/32")
    port, old_port = free_port(), free_port()
    site = f"location / {{ proxy_pass http://127.0.0.1:{old_port}; }}"
    server = nginx(
        tmp_path,
        f"server {{ listen {port};\n{written('moving-from-channels.md', at_8100=node.port)}\n{site} }}",
    )
    connector = aiohttp.TCPConnector(local_addr=("127.0.0.9", 0))
    async with old_site(old_port), aiohttp.ClientSession(connector=connector) as http:
        server.spawn()
        await until(lambda: _serves(http, port), "nginx serves")
        for path in ("/chat/", "/admin/", "/ws/other/"):
            async with http.get(f"http://127.0.0.1:{port}{path}") as answer:
                assert await answer.text() == f"Django's {path}"
        # As a browser does it: the page's own origin.
        async with http.ws_connect(f"ws://127.0.0.1:{port}/ws/chat/lobby/", origin=f"http://127.0.0.1:{port}") as ws:
            await ws.send_json({"message": "hello"})
            assert await ws.receive_json(timeout=20) == {"message": "hello"}
    await until(lambda: "127.0.0.9" in node.process.log.read_text(), "the node knows the client's address")
    await server.stop()


@asynccontextmanager
async def old_site(port: int) -> AsyncIterator[None]:
    async def page(request: web.Request) -> web.Response:
        return web.Response(text=f"Django's {request.path}")

    app = web.Application()
    app.router.add_get("/{path:.*}", page)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield
    finally:
        await runner.cleanup()


async def _serves(http: aiohttp.ClientSession, port: int) -> bool:
    async with http.get(f"http://127.0.0.1:{port}/chat/") as page:
        return page.status == 200
