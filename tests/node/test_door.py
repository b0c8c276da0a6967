"""Who may come in, under what name: origins, addresses behind proxies, hosts, and what answers say to browsers."""

import json
import unicodedata

import aiohttp
import pytest

from tests.conftest import NodeFactory
from tests.node.conftest import redis_only
from tests.support.client import Crowd
from tests.support.node import Node
from tests.support.raw import handshake
from tests.support.until import until


@redis_only
async def test_origins(start_node: NodeFactory, crowd: Crowd) -> None:
    """The request's own host, what is listed, or no browser at all."""
    node = await start_node(allowed_origins="https://chat.example.org, other.example:8443, capacitor://localhost")
    own = f"127.0.0.1:{node.port}"
    for origin in (
        f"http://{own}",
        f"https://{own}",  # behind a load balancer that ends TLS
        "https://chat.example.org",
        "https://chat.example.org:443",
        "HTTPS://Chat.Example.org",
        "http://other.example:8443",
        "https://other.example:8443",
        "capacitor://localhost",
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


async def test_a_page_s_own_host_is_the_same_with_and_without_the_port_of_its_scheme(
    shared_node: Node, crowd: Crowd
) -> None:
    """nginx's `Host $host:$server_port` says h:443 where a browser says https://h (RFC 6454 §4)."""
    for origin, host in (
        ("https://h", "h:443"),
        ("https://h:443", "h"),
        ("http://h", "h:80"),
        ("https://h", "h"),
        ("https://H", "h"),
        ("http://[::1]:8000", "[0:0:0:0:0:0:0:1]:8000"),
    ):
        client = await crowd.join(shared_node, "r", headers={"Origin": origin, "Host": host})
        await client.leave()
    for origin, host in (
        ("http://h", "h:443"),
        ("https://h", "h:80"),
        ("https://h", "h:8443"),
        ("https://h:8443", "h"),
        ("ftp://h", "h"),
    ):
        assert (await crowd.refused(shared_node, "r", headers={"Origin": origin, "Host": host}))[0] == 403, origin


@pytest.mark.parametrize("bad", ["http://[", "http://[::1", "http://[h]", "http://ü", "http://a b", "h" * 400])
async def test_an_origin_that_is_none_is_the_client_s_fault(shared_node: Node, crowd: Crowd, bad: str) -> None:
    """400 and one counted line: a stranger must not be able to order tracebacks."""
    before = await shared_node.metric("hiroba_handshakes_refused_total", reason="bad_origin")
    seen = len(shared_node.lines())
    for name in ("Origin", "Host"):
        request = handshake("r", headers="Origin: http://h\r\n").decode()
        request = request.replace({"Origin": "http://h", "Host": "localhost"}[name], bad)
        raw = await crowd.connect(shared_node)
        assert await raw.ask(request.encode()) == 400, name
    assert await shared_node.metric("hiroba_handshakes_refused_total", reason="bad_origin") == before + 2
    lines = shared_node.lines()[seen:]
    assert len(lines) == 2 and sum(map(len, lines)) < 2_000
    assert not any("Traceback" in line for line in lines)


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ("Content-Length: 5", b"hello"),
        ("Content-Length: 5", b""),
        ("Content-Length: 300000", b"x" * 300_000),
        ("Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", b""),
    ],
    ids=["whole", "announced", "long", "chunked", "chunked, announced"],
)
async def test_a_handshake_with_a_body_is_refused(shared_node: Node, crowd: Crowd, header: str, body: bytes) -> None:
    """Its bytes stand where frames do: it got a 101, and was cut off as dead later, by nobody's word."""
    before = await shared_node.metric("hiroba_handshakes_refused_total", reason="body")
    raw = await crowd.connect(shared_node)
    assert await raw.ask(handshake("r", headers=f"{header}\r\n") + body) == 400
    await until(lambda: b"a handshake has no body" in raw.data, "the reason")
    assert await shared_node.metric("hiroba_handshakes_refused_total", reason="body") == before + 1


async def test_a_body_of_no_bytes_is_none(shared_node: Node, crowd: Crowd) -> None:
    """Some proxies write it."""
    raw = await crowd.connect(shared_node)
    assert await raw.ask(handshake("r", headers="Content-Length: 0\r\n")) == 101


async def test_a_refused_origin_is_logged_beside_the_host_that_it_was_held_against(
    shared_node: Node, crowd: Crowd
) -> None:
    """Both are needed to see what a proxy made of the Host, and what to write into allowed_origins."""
    await crowd.refused(shared_node, "told", headers={"Origin": "https://evil.example", "Host": "inner:8000"})
    (line,) = [json.loads(line) for line in shared_node.lines() if "/ws/chat/told/" in line]
    assert (line["step"], line["reason"]) == ("REJECT", "origin")
    assert (line["origin"], line["host"]) == ("https://evil.example", "inner:8000")


@redis_only
async def test_a_page_that_came_by_http_may_not_speak_to_who_came_by_https(
    start_node: NodeFactory, crowd: Crowd
) -> None:
    """As far as a trusted proxy tells the scheme. Where none does, TLS may end anywhere in front of us."""
    node = await start_node(trusted_proxies="127.0.0.1/32")
    https = (
        {"X-Forwarded-Proto": "https"},
        {"X-Forwarded-Proto": "https, http"},
        {"Forwarded": "for=192.0.2.1;proto=https"},
    )
    for told in https:
        assert (await crowd.refused(node, "r", headers={"Host": "h", "Origin": "http://h", **told}))[0] == 403, told
        await (await crowd.join(node, "r", headers={"Host": "h:443", "Origin": "https://h", **told})).leave()
    for told in ({}, {"X-Forwarded-Proto": "http"}):
        for origin in ("http://h", "https://h"):
            await (await crowd.join(node, "r", headers={"Host": "h", "Origin": origin, **told})).leave()


# What real proxies write, beside what a client in front of them wrote first; and who then is the client.
FORWARDED = [
    ([("X-Forwarded-For", "192.0.2.1")], "192.0.2.1"),
    # nginx's $proxy_add_x_forwarded_for: appended to the client's own.
    ([("X-Forwarded-For", "203.0.113.9, 192.0.2.1")], "192.0.2.1"),
    # HAProxy's `option forwardfor`: a line of its own below the client's (RFC 9110 §5.3: one list).
    ([("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-For", "192.0.2.1")], "192.0.2.1"),
    ([("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-For", "192.0.2.1, 10.0.0.7")], "192.0.2.1"),
    ([("X-Forwarded-For", "2001:db8::1")], "2001:db8::1"),
    # Azure's gateways and IIS write the port too.
    ([("X-Forwarded-For", "192.0.2.1:4711")], "192.0.2.1"),
    ([("X-Forwarded-For", "[2001:db8::1]:4711")], "2001:db8::1"),
    ([("X-Forwarded-For", "::ffff:192.0.2.1, ::ffff:10.0.0.7")], "192.0.2.1"),
    ([("X-Forwarded-For", "192.0.2.1,, 10.0.0.7,")], "192.0.2.1"),
    # From inside: the first that anybody knows of.
    ([("X-Forwarded-For", "10.0.0.9, 10.0.0.7")], "10.0.0.9"),
    # What is left of a hidden or broken hop may be anybody's invention.
    ([("X-Forwarded-For", "203.0.113.9, unknown, 10.0.0.7")], "10.0.0.7"),
    ([("X-Forwarded-For", "203.0.113.9, \x27; drop")], "127.0.0.1"),
    ([], "127.0.0.1"),
    # HAProxy's `option forwarded`, with and without ports; a map of nginx's appends to the client's own.
    ([("Forwarded", "proto=http;for=192.0.2.1")], "192.0.2.1"),
    ([("Forwarded", 'proto=https;for="[2001:db8::1]:4711"')], "2001:db8::1"),
    ([("Forwarded", "for=203.0.113.9, for=192.0.2.1;proto=https;by=10.0.0.7")], "192.0.2.1"),
    ([("Forwarded", "for=203.0.113.9"), ("Forwarded", "for=192.0.2.1, for=10.0.0.7")], "192.0.2.1"),
    ([("Forwarded", "for=203.0.113.9, for=_hidden, for=10.0.0.7")], "10.0.0.7"),
    # A quote that the client never closed swallows what the proxy appended: nobody is believed then.
    ([("Forwarded", 'for=203.0.113.9, for=", for="[2001:db8::1]"')], "127.0.0.1"),
    # Both: proxies that write one pass on what clients wrote into the other.
    ([("Forwarded", "for=203.0.113.9"), ("X-Forwarded-For", "192.0.2.1")], "192.0.2.1"),
]


@redis_only
async def test_the_client_s_address_is_what_trusted_proxies_saw(start_node: NodeFactory, crowd: Crowd) -> None:
    node = await start_node(trusted_proxies="127.0.0.0/8, 10.0.0.0/8")
    for headers, _ in FORWARDED:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        raw = await crowd.connect(node)
        assert await raw.ask(handshake("no room").replace(b"\r\n\r\n", f"\r\n{lines}\r\n".encode())) == 404
    await until(lambda: len(rejects(node)) == len(FORWARDED), "a line for each")
    for line, (headers, client) in zip(rejects(node), FORWARDED, strict=True):
        assert line["peer"] == client, headers


@redis_only
async def test_proxies_that_write_forwarded_alone_can_say_so(start_node: NodeFactory, crowd: Crowd) -> None:
    """Else a client could send the other header, which such a proxy passes on."""
    node = await start_node(trusted_proxies="127.0.0.0/8", forwarded_only=True)
    raw = await crowd.connect(node)
    lines = b"\r\nX-Forwarded-For: 203.0.113.9\r\nForwarded: for=192.0.2.1\r\n\r\n"
    assert await raw.ask(handshake("no room").replace(b"\r\n\r\n", lines)) == 404
    (line,) = await until(lambda: rejects(node), "its line")
    assert line["peer"] == "192.0.2.1"


async def test_who_is_no_trusted_proxy_is_not_believed(shared_node: Node, crowd: Crowd) -> None:
    seen = len(rejects(shared_node))
    raw = await crowd.connect(shared_node)
    forged = b"\r\nX-Forwarded-For: 192.0.2.1\r\nForwarded: for=192.0.2.1\r\n\r\n"
    assert await raw.ask(handshake("no room").replace(b"\r\n\r\n", forged)) == 404
    (line,) = rejects(shared_node)[seen:]
    assert line["peer"] == "{}:{}".format(*raw.transport.get_extra_info("sockname"))


def rejects(node: Node) -> list[dict[str, object]]:
    return [line for line in map(json.loads, node.lines()) if line.get("step") == "REJECT"]


@redis_only
async def test_a_host_of_two_colons_takes_ipv4_as_well(start_node: NodeFactory) -> None:
    """Both as what they are: an IPv4 proxy is no `::ffff:` that trusted_proxies does not know."""
    node = await start_node(host="::", ops_host="::", trusted_proxies="127.0.0.1/32")
    async with aiohttp.ClientSession() as http:
        for host, told in (("127.0.0.1", "192.0.2.1"), ("[::1]", "[::1]:")):
            headers = {"X-Forwarded-For": "192.0.2.1"}
            async with http.get(f"http://{host}:{node.port}/chat/", headers=headers) as answer:
                assert answer.status == 200
            async with http.get(f"http://{host}:{node.ops_port}/healthz") as answer:
                assert answer.status == 200
            lines = [json.loads(line) for line in node.lines() if '"/chat/"' in line]
            assert str(lines[-1]["peer"]).startswith(told)
    (listening,) = [line for line in map(json.loads, node.lines()) if line["event"] == "listening"]
    assert listening["url"] == f"http://[::]:{node.port}/chat/ http://0.0.0.0:{node.port}/chat/"


@redis_only
async def test_hosts_are_a_list(start_node: NodeFactory) -> None:
    node = await start_node(host="127.0.0.1, 127.0.0.2")
    async with aiohttp.ClientSession() as http:
        for host in ("127.0.0.1", "127.0.0.2"):
            async with http.get(f"http://{host}:{node.port}/healthz") as answer:
                assert answer.status == 200
        with pytest.raises(aiohttp.ClientConnectorError):
            await http.get(f"http://127.0.0.3:{node.port}/healthz")


@pytest.mark.parametrize("name", ["हिन्दी", "می\u200cخواهم", "support:ann@example.org", "a-b.c", "か\u3099"])
async def test_a_room_of_any_script_has_a_page_a_socket_and_a_log(shared_node: Node, crowd: Crowd, name: str) -> None:
    """Its address is what a browser makes of it; however it is spelled, it is one room."""
    assert (await shared_node.get(f"/chat/{name}/"))[0] == 200
    ann, bob = await crowd.join(shared_node, name), await crowd.join(shared_node, unicodedata.normalize("NFD", name))
    await ann.say("hello")
    await bob.hears("hello")
    assert (await bob.welcome())["room"] == unicodedata.normalize("NFC", name)


async def test_http_1_0_cannot_upgrade(shared_node: Node, crowd: Crowd) -> None:
    """RFC 9110 §7.8. It is nginx's default towards a node, and a proxy that speaks it would cut the socket soon."""
    raw = await crowd.connect(shared_node)
    assert await raw.ask(handshake("r").replace(b"HTTP/1.1", b"HTTP/1.0")) == 426
    await until(lambda: b"proxy_http_version 1.1" in raw.data, "what to do")
    assert rejects(shared_node)[-1]["reason"] == "http_version"


async def test_subprotocols_that_nobody_speaks_are_counted_and_named(shared_node: Node, crowd: Crowd) -> None:
    """The 101 is right (RFC 6455 §4.2.2), and a browser hangs up at once: without this it is one more lost session."""
    before = await shared_node.metric("hiroba_handshakes_unspoken_total")
    for offered in ("graphql-ws, hiroba.v9", "hiroba.v9, hiroba.v1", ""):
        raw = await crowd.connect(shared_node)
        headers = f"Sec-WebSocket-Protocol: {offered}\r\n" if offered else ""
        assert await raw.ask(handshake("r", headers=headers)) == 101
    assert await shared_node.metric("hiroba_handshakes_unspoken_total") == before + 1
    (line,) = [json.loads(line) for line in shared_node.lines() if "no subprotocol" in line]
    assert (line["level"], line["offered"]) == ("info", "graphql-ws, hiroba.v9")


async def test_what_browsers_are_told_on_every_answer(shared_node: Node) -> None:
    async with aiohttp.ClientSession() as http:
        for path in (
            "/chat/",
            "/chat/demo/",
            "/chat/a!b/",
            "/static/room.js",
            "/static/none",
            "/",
            "/nothing",
            "/ws/chat/r/",
            "/ws/",
        ):
            for expect in ({}, {"Expect": "nothing"}):
                async with http.get(shared_node.url(path), headers=expect, allow_redirects=False) as answer:
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
