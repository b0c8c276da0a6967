"""HAProxy before real nodes: who goes where, what is limited, what a node is told, a node that dies."""

import asyncio
import json
import os
import ssl
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import aiohttp
import pytest

from deploy.pages import typed
from tests.conftest import NodeFactory
from tests.deploy.cluster import Cluster
from tests.deploy.load import Load, codes
from tests.loadtest import harness
from tests.support.broker import Broker
from tests.support.certs import make_certs
from tests.support.client import Crowd
from tests.support.haproxy import FALL, INTER_S, HAProxy
from tests.support.need import need_tool
from tests.support.node import Node
from tests.support.ports import free_port
from tests.support.process import Process
from tests.support.raw import PING, PONG, Raw, frame, frames_in
from tests.support.until import until

pytestmark = pytest.mark.parametrize("broker", ["redis"], indirect=True)


async def test_two_clients_land_on_different_nodes_and_chat(broker: Broker, tmp_path: Path) -> None:
    cluster = await Cluster.start(broker, tmp_path, 2)
    url = cluster.balancer.ws_url("部屋")
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(url, protocols=("hiroba.v1",)) as one,
        http.ws_connect(url, protocols=("hiroba.v1",)) as two,
    ):
        welcomes = [await ws.receive_json(timeout=20) for ws in (one, two)]
        assert len({welcome["node"] for welcome in welcomes}) == 2
        await one.send_json({"type": "message", "message": "こんにちは"})
        await two.send_json({"type": "message", "message": "やあ"})
        heard = [[(await ws.receive_json(timeout=20))["message"] for _ in range(2)] for ws in (one, two)]
        assert heard[0] == heard[1] and set(heard[0]) == {"こんにちは", "やあ"}


async def test_it_says_whether_it_has_a_node_apart_from_whether_it_is_there(broker: Broker, tmp_path: Path) -> None:
    """Kubernetes starts one by /readyz; by /healthz it stays, also without a node: its 503 says when to come."""
    cluster = await Cluster.start(broker, tmp_path, 1)

    async def says(path: str) -> int:
        url = f"http://127.0.0.1:{cluster.balancer.ops_port}{path}"
        async with aiohttp.ClientSession() as http, http.get(url) as answer:
            return answer.status

    assert (await says("/readyz"), await says("/healthz")) == (200, 200)
    await cluster.nodes[0].kill()

    async def has_none() -> bool:
        return await says("/readyz") == 503

    await until(has_none, "it has no node")
    assert await says("/healthz") == 200


async def test_four_nodes_share_400_sessions(broker: Broker, tmp_path: Path) -> None:
    cluster = await Cluster.start(broker, tmp_path, 4)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as http:
        sockets = await asyncio.gather(
            *(http.ws_connect(cluster.balancer.ws_url(f"room{number % 40}")) for number in range(400))
        )
        shares = [await node.metric("hiroba_connections") for node in cluster.nodes]
        assert sum(shares) == 400
        assert all(90 <= share <= 110 for share in shares), shares
        await asyncio.gather(*(ws.close() for ws in sockets))


async def test_nodes_that_do_not_listen_yet_cost_nobody_an_answer(start_node: NodeFactory, tmp_path: Path) -> None:
    """DNS has a node before it listens, and HAProxy sends people there before it has asked it. More than one of these:
    to each other they are no way out."""
    node = await start_node()
    ghosts = [SimpleNamespace(port=free_port(), ops_port=node.ops_port) for _ in range(4)]
    balancer = await HAProxy([node, *cast(list[Node], ghosts)], tmp_path).start()
    async with Crowd() as crowd:
        await asyncio.gather(*(crowd.member(cast(Node, balancer), "early") for _ in range(20)))


async def test_a_killed_node_is_out_after_fall_checks_and_nobody_else_loses_anything(
    broker: Broker, tmp_path: Path
) -> None:
    cluster = await Cluster.start(broker, tmp_path, 3)
    resuming = Load(cluster, tmp_path, "v1", users=18, rooms=2, rate=40)
    plain = Load(cluster, tmp_path, "plain", users=10, rooms=2, rate=40)
    await asyncio.gather(resuming.begin(), plain.begin())
    before = int((await cluster.balancer.states())["node0"]["chkfail"])
    await cluster.nodes[0].kill()

    async def out() -> dict[str, str] | None:
        state = (await cluster.balancer.states())["node0"]
        return state if state["status"] == "DOWN" else None

    state = await until(out, "the node is out", within_s=10 * FALL * INTER_S)
    # Or sooner: who is refused there sees it first.
    assert int(state["chkfail"]) - before <= FALL
    # Those on the dead node came back; nobody else was moved or refused.
    for load, outcome in ((resuming, await resuming.end()), (plain, await plain.end())):
        assert codes(outcome) == {1006}
        assert 0 < outcome.counts["closed"] < load.users
        if load is resuming:
            assert outcome.counts["resumed"] == outcome.counts["closed"]


async def slow_handshake(balancer: HAProxy) -> bytes:
    """What somebody gets who never ends the head of a request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", balancer.port)
    writer.write(b"GET /ws/chat/slow/ HTTP/1.1\r\nHost: x\r\n")
    answer = await asyncio.wait_for(reader.read(), 60)
    writer.close()
    return answer


async def test_limits_hold_per_address_and_a_slow_handshake_reaches_no_node(
    start_node: NodeFactory, tmp_path: Path
) -> None:
    """Each client address (127.0.0.n) has its own."""
    node = await start_node()
    balancer = await HAProxy([node], tmp_path, LB_ADDRESS_CONNECTIONS_MAX=8, LB_ADDRESS_HANDSHAKES_MAX=12).start()
    slow = asyncio.create_task(slow_handshake(balancer))

    def coming_from(address: str) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, local_addr=(address, 0)))

    async with coming_from("127.0.0.2") as many, coming_from("127.0.0.3") as fast, coming_from("127.0.0.4") as other:
        sockets = [await many.ws_connect(balancer.ws_url("a")) for _ in range(8)]
        with pytest.raises(aiohttp.ClientError):
            await many.ws_connect(balancer.ws_url("a"))
        for _ in range(12):
            await (await fast.ws_connect(balancer.ws_url("a"))).close()
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await fast.ws_connect(balancer.ws_url("a"))
        assert refused.value.status == 429
        assert refused.value.headers and refused.value.headers["Retry-After"]
        # A page is no handshake.
        async with fast.get(balancer.url("/chat/")) as page:
            assert page.status == 200
        await (await other.ws_connect(balancer.ws_url("a"))).close()
        await sockets.pop().close()
        await until(lambda: _connects(many, balancer), "there is room again")
        for ws in sockets:
            await ws.close()
    assert (await slow).startswith(b"HTTP/1.1 408 ")
    assert "/slow/" not in node.process.log.read_text()


async def test_a_crowd_behind_one_address_that_comes_back_is_let_in_by_and_by(
    start_node: NodeFactory, tmp_path: Path
) -> None:
    """Their refused tries are no handshakes: counted, they kept a whole office at 429 for as long as it tried."""
    node = await start_node()
    balancer = await HAProxy([node], tmp_path, LB_ADDRESS_HANDSHAKES_MAX=4).start()
    waiting, refusals = 6, 0
    async with aiohttp.ClientSession() as http, asyncio.timeout(100):
        while waiting > 0 or refusals <= 10:  # on a slow machine more may come before ten were refused
            try:
                await (await http.ws_connect(balancer.ws_url("office"))).close()
                waiting -= 1
            except aiohttp.WSServerHandshakeError as refused:
                assert refused.status == 429
                refusals += 1
                await asyncio.sleep(0.1)  # each tries again far more often than it may


async def test_a_load_test_that_the_balancer_refuses_says_which_limit(start_node: NodeFactory, tmp_path: Path) -> None:
    """All its users have one address. 429 alone looked like a server that fails."""
    node = await start_node()
    balancer = await HAProxy([node], tmp_path, LB_ADDRESS_HANDSHAKES_MAX=6).start()
    url = balancer.url(scheme="ws")
    outcome = await harness.run(tmp_path, "-H", url, "-u", "12", "-r", "100", "-t", "2s", "--settle", "1s")
    (note,) = [note for note in outcome.result["notes"] if "429" in note]
    assert "LB_ADDRESS_HANDSHAKES_MAX" in note


async def _connects(http: aiohttp.ClientSession, balancer: HAProxy) -> bool:
    await (await http.ws_connect(balancer.ws_url("a"))).close()
    return True


async def test_a_node_is_told_the_client_s_address_and_no_forged_one(start_node: NodeFactory, tmp_path: Path) -> None:
    node = await start_node(trusted_proxies="127.0.0.1/32")
    balancer = await HAProxy([node], tmp_path).start()
    connector = aiohttp.TCPConnector(local_addr=("127.0.0.7", 0))
    forged = {"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9", "X-Forwarded-Proto": "https"}
    async with aiohttp.ClientSession(connector=connector, headers=forged) as http:
        await (await http.ws_connect(balancer.ws_url("a"))).close()

    def gone() -> list[dict[str, str]]:
        return [line for line in map(json.loads, node.lines()) if line.get("step") == "DISCONNECT"]

    (line,) = await until(gone, "the connection's line is written")
    assert line["peer"] == "127.0.0.7"
    assert "203.0.113.9" not in node.process.log.read_text()


async def test_tls_ends_at_the_load_balancer(start_node: NodeFactory, tmp_path: Path) -> None:
    certs = make_certs(tmp_path / "certs")
    pem = tmp_path / "both.pem"
    pem.write_bytes(certs.cert.read_bytes() + certs.key.read_bytes())
    node = await start_node()
    balancer = HAProxy([node], tmp_path)
    tls_port = balancer.port
    where = {"LB_CERT": pem, "LB_TLS_BIND": f"127.0.0.1:{tls_port}", "LB_TLS_PORT": tls_port}
    balancer = await HAProxy([node], tmp_path, **where, LB_ADDRESS_HANDSHAKES_MAX=2).start()
    trust = ssl.create_default_context(cafile=str(certs.ca))
    async with aiohttp.ClientSession() as http:
        url = f"wss://127.0.0.1:{tls_port}/ws/chat/a/"
        # RFC 6455, section 1.3, has this key.
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
        for _ in range(4):
            async with http.get(balancer.url("/ws/chat/a/"), headers=upgrade, allow_redirects=False) as sent_on:
                assert sent_on.status == 308, "one that is let in nowhere is none that counts"
        # As a browser does it: its page came by https from the same host.
        async with http.ws_connect(url, ssl=trust, origin=f"https://127.0.0.1:{tls_port}") as ws:
            await ws.send_json({"message": "by TLS"})
            assert await ws.receive_json(timeout=20) == {"message": "by TLS"}
        async with http.get(balancer.url("/chat/"), allow_redirects=False) as plain:
            assert plain.status == 308
        async with http.get(plain.headers["Location"], ssl=trust) as led:
            assert led.status == 200 and led.url.path == "/chat/", "sent where TLS is, and not to http's own port"
        async with http.get(f"https://127.0.0.1:{tls_port}/chat/", ssl=trust) as page:
            assert "Strict-Transport-Security" in page.headers


async def test_a_renewed_certificate_is_taken_up_and_cuts_nobody_off(start_node: NodeFactory, tmp_path: Path) -> None:
    """docs/tls.md's hook: the file is replaced, HAProxy told by USR2. Sockets of the old process stay."""
    pem = tmp_path / "tls" / "chat.pem"
    pem.parent.mkdir()
    node = await start_node()
    tls_port = free_port()

    def renew(name: str, pid: int = 0) -> ssl.SSLContext:
        """What certbot leaves, and the page's hook. There is no systemd here: who is told is told all the same."""
        certs = make_certs(tmp_path / name)
        (tmp_path / name / "fullchain.pem").write_bytes(certs.cert.read_bytes())
        (tmp_path / name / "privkey.pem").write_bytes(certs.key.read_bytes())
        hook = typed("docs/tls.md", "# /etc/letsencrypt", {"/etc/hiroba/tls": str(pem.parent)})
        tell = f"kill -s USR2 {pid}" if pid else ":"
        systemctl = f'systemctl() {{ [ "$*" = "kill -s USR2 haproxy" ] && {tell}; }}\n'
        env = os.environ | {"RENEWED_LINEAGE": str(tmp_path / name)}
        subprocess.run(["sh", "-ec", systemctl + hook], env=env, check=True)
        assert pem.stat().st_mode & 0o077 == 0
        return ssl.create_default_context(cafile=str(certs.ca))

    old = renew("old")
    variable, _, command = typed("docs/tls.md", "LB_CERT", {"/etc/hiroba/tls": str(pem.parent)}).partition(" ")
    balancer = HAProxy([node], tmp_path, LB_CERT=variable.partition("=")[2], LB_TLS_BIND=f"127.0.0.1:{tls_port}")
    assert command.split()[:2] == ["haproxy", "-W"] and "-W" in balancer.process.argv
    await balancer.start()
    url = f"wss://127.0.0.1:{tls_port}/ws/chat/a/"
    async with aiohttp.ClientSession() as http, http.ws_connect(url, ssl=old) as before:
        new = renew("new", balancer.process.pid)

        async def renewed() -> bool:
            try:
                await (await http.ws_connect(url, ssl=new)).close()
            except aiohttp.ClientError:
                return False
            return True

        await until(renewed, "the new certificate is shown")
        await before.send_json({"message": "still here"})
        assert await before.receive_json(timeout=20) == {"message": "still here"}


IDLE_S = 3
# As many set it up: not with the hour of our own haproxy.cfg.
IMPATIENT = """
defaults
    mode http
    timeout connect 5s
    timeout client 1m
    timeout server 1m
    timeout tunnel {idle_s}s
listen chat
    bind 127.0.0.1:{port}
    server node 127.0.0.1:{node_port}
"""


async def test_a_balancer_that_cuts_idle_connections_cuts_none_of_ours(start_node: NodeFactory, tmp_path: Path) -> None:
    """With `timeout tunnel 30s` and pings up to 2 x 25 s apart, 19 of 25 were cut. The same, ten times as fast."""
    node = await start_node(ping_s=IDLE_S * 25 / 30)
    config, port = tmp_path / "impatient.cfg", free_port()
    config.write_text(IMPATIENT.format(idle_s=IDLE_S, port=port, node_port=node.port), "utf-8")
    Process(
        "impatient", [need_tool("haproxy", "haproxy"), "-db", "-f", str(config)], tmp_path / "impatient.log"
    ).spawn()
    balanced = cast(Node, SimpleNamespace(port=port))
    async with Crowd() as crowd:
        await until(lambda: crowd.http.get(f"http://127.0.0.1:{port}/healthz"), "the balancer listens")
        quiet: list[Raw] = []
        for _ in range(25):  # each comes in a moment of its own
            quiet.append(await crowd.member(balanced, "r"))
            await asyncio.sleep(IDLE_S / 50)
        pongs = dict.fromkeys(quiet, 0)

        def answer_and_look() -> bool:
            for raw in quiet:
                pings = [opcode for opcode, _ in frames_in(raw.data)].count(PING)
                if pings > pongs[raw] and not raw.over.done():
                    raw.write(frame(b"", PONG))
                pongs[raw] = pings
            return min(pongs.values()) >= 2 or any(raw.over.done() for raw in quiet)

        await until(answer_and_look, "all are pinged again and again", every_s=0.05)
        assert sum(raw.over.done() for raw in quiet) == 0, "cut by the balancer"


async def test_no_node_ready_is_a_503_that_says_when_to_come_back(start_node: NodeFactory, tmp_path: Path) -> None:
    node = await start_node(ready=False, broker_url="redis://127.0.0.1:1")
    balancer = HAProxy([node], tmp_path)
    balancer.process.spawn()

    async def refused() -> aiohttp.ClientResponse | None:
        async with aiohttp.ClientSession() as http, http.get(balancer.url("/chat/")) as answer:
            return answer if answer.status == 503 else None

    answer = await until(refused, "the node was found not ready")
    assert answer.headers["Retry-After"] == "2"
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{balancer.ops_port}/metrics") as metrics:
        assert 'haproxy_server_status{proxy="nodes",server="node0",state="DOWN"} 1' in await metrics.text()
