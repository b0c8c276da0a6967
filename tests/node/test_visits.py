"""HTTP connections: bounded, so that health always answers; and what is no request is answered, counted, and said."""

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest

from gateway.node import OPS_VISITS_MAX
from tests.conftest import NodeFactory
from tests.node.conftest import redis_only
from tests.support.broker import Broker
from tests.support.client import Crowd
from tests.support.node import Node
from tests.support.raw import Raw, handshake
from tests.support.until import until

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
DESCRIPTORS = 624  # of which the ops port may take 256


async def small_node(broker: Broker, directory: Path, **settings: object) -> Node:
    """A node that may have so many descriptors, and no more."""
    node = Node(broker.url, directory, "small-node", **settings)
    node.process.argv = ["prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}", *node.process.argv]
    return await node.start()


async def is_well(node: Node) -> None:
    assert await node.get("/healthz") == (200, "ok\n")
    assert await node.get("/healthz", ops=True) == (200, "ok\n")
    assert await node.get("/readyz", ops=True) == (200, "ready\n")
    assert await node.metric("hiroba_process_open_descriptors") < DESCRIPTORS


@redis_only
async def test_what_the_site_is_asked_over_has_descriptors_too(broker: Broker, tmp_path: Path) -> None:
    """They come out of the connections, not out of what keeps the node well."""
    asked = {"site_url": "http://127.0.0.1:1/", "site_requests_max": 50}
    asked |= {"site_publish_url": "http://127.0.0.1:1/", "site_publish_requests_max": 20}
    places = []
    for settings in ({}, asked):
        node = await small_node(broker, tmp_path, **settings)
        places.append(await node.metric("hiroba_connections_max"))
        await node.kill()
    assert places[0] - places[1] == 70


@redis_only
@pytest.mark.parametrize("asks", [True, False], ids=["idle", "silent"])
async def test_who_only_keeps_connections_open_takes_the_node_from_nobody(
    broker: Broker, tmp_path: Path, crowd: Crowd, asks: bool
) -> None:
    """More keep-alives than descriptors: health answers on both ports, sockets come in, and who is in stays in."""
    node = await small_node(broker, tmp_path)
    member = await crowd.join(node, "r")
    for _ in range(DESCRIPTORS + 100):
        raw = await crowd.connect(node)
        if asks:
            assert await raw.ask(HEALTH) == 200
    await is_well(node)
    places = int(await node.metric("hiroba_connections_max")) - 1
    for _ in range(places):
        await crowd.member(node, "r")
    assert await node.get("/healthz") == (200, "ok\n")
    assert (await crowd.refused(node, "r"))[0] == 503
    assert await node.metric("hiroba_connections_displaced_total") > 0
    assert await node.metric("hiroba_http_connections") < DESCRIPTORS - places
    await member.say("still here")
    await member.hears("still here")
    assert not [line for line in node.lines() if '"level": "error"' in line or "Traceback" in line]


@redis_only
async def test_who_takes_no_answer_takes_the_node_from_nobody(broker: Broker, tmp_path: Path, crowd: Crowd) -> None:
    """A connection that is being answered goes only where none idles; and then the health check is answered."""
    node = await small_node(broker, tmp_path)
    for _ in range(DESCRIPTORS):
        greedy = await crowd.connect(node, receive_bytes=4096)
        greedy.transport.pause_reading()
        greedy.write(b"GET /static/client/outbox.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 40)
    await is_well(node)


@redis_only
async def test_the_ops_port_has_a_bound_of_its_own(broker: Broker, tmp_path: Path) -> None:
    """Whoever reaches it can't take the descriptors of the clients either."""
    node = await small_node(broker, tmp_path)
    held = [await asyncio.open_connection("127.0.0.1", node.ops_port) for _ in range(DESCRIPTORS)]
    await is_well(node)
    assert await node.metric("hiroba_http_connections") < OPS_VISITS_MAX + 20
    for _, writer in held:
        writer.close()


@redis_only
async def test_the_first_places_that_are_needed_are_those_that_idled_longest(
    broker: Broker, tmp_path: Path, crowd: Crowd
) -> None:
    """A proxy's connection in use survives a crowd of idle ones."""
    node = await small_node(broker, tmp_path)
    busy = await crowd.connect(node)
    assert await busy.ask(HEALTH) == 200
    first = await crowd.connect(node)
    assert await first.ask(HEALTH) == 200
    for _ in range(DESCRIPTORS):
        raw = await crowd.connect(node)
        assert await raw.ask(HEALTH) == 200
        busy.data.clear()
        busy.write(HEALTH)
        await until(lambda: busy.data.endswith(b"ok\n"), "an answer")
    await until(first.over.done, "the one that idled longest is gone")
    assert not busy.over.done()


# ---- what is no request ----


def asking(headers: bytes = b"", path: bytes = b"/chat/") -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n" + headers + b"\r\n"


NO_REQUESTS = {
    "a header too large": (431, "head", asking(b"Cookie: " + b"x" * 40_000 + b"\r\n")),
    "a path too long": (431, "head", asking(path=b"/" + b"x" * 40_000)),
    "headers too large together": (431, "head", asking(b"".join(b"X-%d: %b\r\n" % (n, b"x" * 900) for n in range(40)))),
    "UTF-8 in the path": (400, "malformed", asking(path="/chat/部屋/".encode())),
    "no Host": (400, "malformed", b"GET /chat/ HTTP/1.1\r\n\r\n"),
    "TLS": (400, "malformed", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    "another protocol": (400, "malformed", b"SSH-2.0-x\r\n\r\n"),
    "a header without a colon": (400, "malformed", asking(b"Cookie\r\n")),
    "a zero in a header": (400, "malformed", asking(b"Cookie: \0\r\n")),
    "two lengths": (400, "malformed", asking(b"Content-Length: 1\r\nContent-Length: 2\r\n")),
}  # fmt: skip


@pytest.mark.parametrize("what", NO_REQUESTS)
async def test_what_is_no_request_is_answered_and_counted(shared_node: Node, crowd: Crowd, what: str) -> None:
    """With the headers that browsers are told on every answer, in words, and without a traceback."""
    status, reason, data = NO_REQUESTS[what]
    before = await shared_node.metric("hiroba_requests_refused_total", reason=reason)
    raw = await crowd.connect(shared_node)
    assert await raw.ask(data) == status
    assert b"content-security-policy: " in raw.head.lower()
    assert b"x-content-type-options: nosniff" in raw.head.lower()
    await until(raw.over.done, "the connection is over")
    assert raw.data.decode().strip()
    assert await shared_node.metric("hiroba_requests_refused_total", reason=reason) == before + 1
    assert not [line for line in shared_node.lines() if "Traceback" in line]


@redis_only
async def test_strangers_cannot_fill_the_log_with_what_is_no_request(start_node: NodeFactory, crowd: Crowd) -> None:
    """So many lines of a kind a minute, and no more; none is lost from the count."""
    node = await start_node()
    for _ in range(300):
        raw = await crowd.connect(node)
        assert await raw.ask(b"GET / HTTP/1.1\r\n\r\n") == 400
    lines = [line for line in map(json.loads, node.lines()) if line["event"] == "not a request"]
    assert 1 <= len(lines) < 30
    assert (lines[0]["status"], lines[0]["reason"], lines[0]["level"]) == (400, "malformed", "info")
    assert "Host" in lines[0]["why"]
    assert str(lines[0]["peer"]).startswith("127.0.0.1:")
    assert await node.metric("hiroba_requests_refused_total", reason="malformed") == 300


async def test_cookies_of_sixteen_kilobytes_pass(shared_node: Node, crowd: Crowd) -> None:
    """A site's cookies come along to its chat, whether its room or its socket is asked for."""
    one = b"Cookie: " + b"x" * 16_384 + b"\r\n"
    several = b"".join(b"X-%d: %b\r\n" % (n, b"x" * 1_600) for n in range(10))
    for headers in (b"Cookie: " + b"x" * 9_216 + b"\r\n", one, several):
        page, socket = await crowd.connect(shared_node), await crowd.connect(shared_node)
        assert await page.ask(asking(headers)) == 200
        assert await socket.ask(handshake("r").replace(b"\r\n\r\n", b"\r\n" + headers + b"\r\n")) == 101


async def test_a_head_that_never_ends_is_bounded(shared_node: Node, crowd: Crowd) -> None:
    """In pieces that the parser would take one by one."""
    raw: Raw = await crowd.connect(shared_node)
    raw.write(b"GET /chat/ HTTP/1.1\r\nHost: localhost\r\n")
    for n in range(100):
        if raw.head or raw.over.done():
            break
        raw.write(b"X-%d: %b\r\n" % (n, b"x" * 1_000))
        await asyncio.sleep(0)
    await until(lambda: raw.head, "an answer")
    assert raw.status == 431


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nxxxx",
        b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        b"Content-Length: 1000000\r\n\r\nxxxx",
    ],
)
async def test_a_body_that_nobody_asked_for_is_not_waited_for(shared_node: Node, crowd: Crowd, body: bytes) -> None:
    """Broken or endless: the answer comes, and no traceback."""
    raw = await crowd.connect(shared_node)
    assert await raw.ask(b"POST /chat/ HTTP/1.1\r\nHost: localhost\r\n" + body) in (400, 405)
    assert await shared_node.get("/healthz") == (200, "ok\n")
    assert not [line for line in shared_node.lines() if "Traceback" in line]


async def test_a_body_is_not_taken_for_a_head(shared_node: Node, crowd: Crowd) -> None:
    """A large one comes in several reads. One that came while aiohttp passed the request on was answered 431."""
    before = await shared_node.metric("hiroba_requests_refused_total", reason="head")
    for _ in range(5):
        raw = await crowd.connect(shared_node)
        request = b"POST /chat/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 300000\r\n\r\n"
        assert await raw.ask(request + b"x" * 300_000) == 405
    assert await shared_node.metric("hiroba_requests_refused_total", reason="head") == before


@pytest.mark.parametrize("expectation", [b"100-continue", b"\xff", b"tea"])
async def test_what_a_request_expects_is_left_alone(shared_node: Node, crowd: Crowd, expectation: bytes) -> None:
    """The answer comes at once, for no body is read; who asked and hung up, or wrote no UTF-8, ordered a traceback."""
    headers = b"Expect: " + expectation + b"\r\n"
    for _ in range(20):
        raw = await crowd.connect(shared_node)
        raw.write(asking(headers))
        raw.transport.write_eof()
        await until(raw.over.done, "the node closes")
    page, socket = await crowd.connect(shared_node), await crowd.connect(shared_node)
    assert await page.ask(asking(headers)) == 200
    assert await socket.ask(handshake("r").replace(b"\r\n\r\n", b"\r\n" + headers + b"\r\n")) == 101
    assert not [line for line in shared_node.lines() if "Traceback" in line]


async def test_requests_before_one_that_is_none_are_answered(shared_node: Node) -> None:
    """Pipelined: a good one, then nonsense."""
    async with aiohttp.ClientSession() as http, http.get(shared_node.url("/healthz")) as answer:
        assert answer.status == 200
    reader, writer = await asyncio.open_connection("127.0.0.1", shared_node.port)
    writer.write(HEALTH)
    assert b"200 OK" in await reader.readuntil(b"ok\n")
    writer.write(b"nonsense\r\n\r\n")
    assert b" 400 " in await reader.read()
    writer.close()
