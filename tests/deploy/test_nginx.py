"""docs/nginx.md: its block is taken by nginx and does before real nodes what the page says."""

import asyncio
import re
import signal
from pathlib import Path

import aiohttp
import pytest

from deploy.stack.parts import DEPLOY
from tests.conftest import NodeFactory
from tests.support.need import need_tool
from tests.support.ports import free_port
from tests.support.process import Process
from tests.support.until import until

DOC = DEPLOY.parent / "docs" / "nginx.md"


def nginx(directory: Path, port: int, upstreams: tuple[int, int]) -> Process:
    (block,) = re.findall(r"```nginx\n(.+?)```", DOC.read_text("utf-8"), re.DOTALL)
    for written, ours in (("listen 8000;", port), ("127.0.0.1:8001", upstreams[0]), ("127.0.0.1:8002", upstreams[1])):
        assert written in block
        block = block.replace(written, re.sub(r"\d{4}(?=;?$)", str(ours), written))
    block = block.replace("listen ", "listen 127.0.0.1:")
    temp = "".join(f"{kind}_temp_path {directory};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    conf = directory / "nginx.conf"
    head = f"daemon off; pid {directory}/pid; error_log stderr; events {{ worker_connections 512; }}\n"
    conf.write_text(f"{head}http {{ access_log off;\n{temp}{block}}}\n")
    argv = [need_tool("nginx", "nginx"), "-p", str(directory), "-e", "stderr", "-c", str(conf)]
    return Process("nginx", argv, directory / "nginx.log")


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
async def test_nginx_shares_out_clients_and_passes_by_a_node_that_drains(
    start_node: NodeFactory, tmp_path: Path
) -> None:
    # The first one drains for as long as the test likes: its clients are sent away slowly.
    settings = {"lb_wait_s": 0, "drain_s": 30, "trusted_proxies": "127.0.0.1/32"}
    one, two = await asyncio.gather(start_node(**settings), start_node(**settings))
    port = free_port()
    server = nginx(tmp_path, port, (one.port, two.port))
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
        for ws in (*sockets, *late):
            await ws.close()
    assert "127.0.0.8" in two.process.log.read_text()
    assert "203.0.113.9" not in two.process.log.read_text()
    await server.stop()


async def _serves(http: aiohttp.ClientSession, port: int) -> bool:
    async with http.get(f"http://127.0.0.1:{port}/chat/") as page:
        return page.status == 200
