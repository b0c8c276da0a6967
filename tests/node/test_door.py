"""Who may come in: origins, and what the pages' answers say to browsers."""

import aiohttp

from tests.conftest import NodeFactory
from tests.node.conftest import redis_only
from tests.support.client import Crowd
from tests.support.node import Node


@redis_only
async def test_origins(start_node: NodeFactory, crowd: Crowd) -> None:
    """The request's own host, what is listed, or no browser at all."""
    node = await start_node(allowed_origins="https://chat.example.org, other.example:8443")
    own = f"127.0.0.1:{node.port}"
    for origin in (
        f"http://{own}",
        f"https://{own}",  # behind a load balancer that ends TLS
        "https://chat.example.org",
        "http://other.example:8443",
        "https://other.example:8443",
    ):
        client = await crowd.join(node, "r", headers={"Origin": origin})
        await client.leave()
    for origin in (
        "https://evil.example",
        "http://chat.example.org",  # listed with https
        "https://chat.example.org.evil.example",
        "https://chat.example.org:8443",
        "https://other.example",
        "http://127.0.0.1",
        f"http://{own}.evil.example",
        f"http://evil.example/{own}",
        f"http://{own}@evil.example",
        "null",
        "",
    ):
        assert (await crowd.refused(node, "r", headers={"Origin": origin}))[0] == 403, origin
    await crowd.join(node, "r")
    own_host = {"Host": "chat.internal:80", "Origin": "http://chat.internal:80"}
    await crowd.join(node, "r", headers=own_host)


async def test_what_browsers_are_told_on_every_answer(shared_node: Node) -> None:
    async with aiohttp.ClientSession() as http:
        for path in (
            "/chat/",
            "/chat/demo/",
            "/chat/a-b/",
            "/static/room.js",
            "/static/none",
            "/",
            "/nothing",
            "/ws/chat/r/",
            "/ws/",
        ):
            async with http.get(shared_node.url(path), allow_redirects=False) as answer:
                policy = answer.headers.get("Content-Security-Policy", "")
                assert "unsafe" not in policy, path
                assert "frame-ancestors 'none'" in policy, path
                assert "default-src 'none'" in policy, path
                assert answer.headers["X-Content-Type-Options"] == "nosniff", path


async def test_the_root_leads_to_the_chat(shared_node: Node) -> None:
    async with aiohttp.ClientSession() as http, http.get(shared_node.url("/")) as answer:
        assert (answer.status, answer.url.path) == (200, "/chat/")


async def test_the_ports_keep_to_themselves(shared_node: Node) -> None:
    """The ops port's paths are not on the public port, and the other way round; /healthz is on both."""
    for path in ("/metrics", "/readyz"):
        assert (await shared_node.get(path))[0] == 404
        assert (await shared_node.get(path, ops=True))[0] == 200
    assert (await shared_node.get("/chat/", ops=True))[0] == 404
    assert await shared_node.get("/healthz") == await shared_node.get("/healthz", ops=True) == (200, "ok\n")
