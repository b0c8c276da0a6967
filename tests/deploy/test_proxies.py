"""Proxies as people have them, not as we ship them: what they write about clients and hosts is understood."""

import json
from pathlib import Path

import aiohttp
import pytest

from tests.conftest import NodeFactory
from tests.deploy.test_nginx import nginx
from tests.support.certs import make_certs
from tests.support.need import need_tool
from tests.support.node import Node
from tests.support.ports import free_port
from tests.support.process import Process
from tests.support.until import until

pytestmark = pytest.mark.parametrize("broker", ["redis"], indirect=True)

FORGED = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}


async def come(node: Node, url: str, **headers: str) -> str:
    """Joins through a proxy, as 127.0.0.7. What the node calls this client."""
    before = len(left(node))
    connector = aiohttp.TCPConnector(local_addr=("127.0.0.7", 0), ssl=False)
    async with aiohttp.ClientSession(connector=connector, headers={**FORGED, **headers}) as http:

        async def joined() -> bool:
            await (await http.ws_connect(url)).close()
            return True

        await until(joined, "the proxy serves")
    return str((await until(lambda: left(node)[before:], "its line"))[0]["peer"])


def left(node: Node) -> list[dict[str, object]]:
    return [line for line in map(json.loads, node.lines()) if line.get("step") == "DISCONNECT"]


async def test_haproxy_that_adds_a_line_of_its_own(start_node: NodeFactory, tmp_path: Path) -> None:
    """`option forwardfor`: below the client's line, whose address is its own invention."""
    node = await start_node(trusted_proxies="127.0.0.1/32")
    port = free_port()
    (tmp_path / "haproxy.cfg").write_text(f"""
defaults
    mode http
    timeout connect 4s
    timeout client 60s
    timeout server 60s
frontend public
    bind 127.0.0.1:{port}
    option forwardfor
    default_backend node
backend node
    server node 127.0.0.1:{node.port}
""")
    argv = [need_tool("haproxy", "haproxy"), "-f", str(tmp_path / "haproxy.cfg")]
    Process("haproxy", argv, tmp_path / "haproxy.log").spawn()
    assert await come(node, f"ws://127.0.0.1:{port}/ws/chat/r/") == "127.0.0.7"


async def test_nginx_that_ends_tls_and_writes_the_port(start_node: NodeFactory, tmp_path: Path) -> None:
    """`Host $host:$server_port` and `$proxy_add_x_forwarded_for`, from a hundred examples: https://h is h:443."""
    node = await start_node(trusted_proxies="127.0.0.1/32")
    certs = make_certs(tmp_path / "certs")
    port = free_port()
    server = nginx(
        tmp_path,
        f"""server {{
            listen {port} ssl;
            ssl_certificate {certs.cert};
            ssl_certificate_key {certs.key};
            location / {{
                proxy_http_version 1.1;
                # $server_port, were this port 443.
                proxy_set_header Host $host:443;
                proxy_set_header Upgrade $http_upgrade;
                proxy_set_header Connection upgrade;
                proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                proxy_set_header X-Forwarded-Proto $scheme;
                proxy_pass http://127.0.0.1:{node.port};
            }}
        }}""",
    )
    server.spawn()
    url = f"wss://127.0.0.1:{port}/ws/chat/r/"
    assert await come(node, url, Host="chat.example", Origin="https://chat.example") == "127.0.0.7"
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with aiohttp.ClientSession() as http:
            await http.ws_connect(url, ssl=False, headers={"Host": "chat.example", "Origin": "http://chat.example"})
    assert refused.value.status == 403
