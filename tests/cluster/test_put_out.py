"""Who is kicked or revoked is out, on every node, and stays out while it lasts: sockets closed, doors shut."""

import asyncio
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime

import aiohttp
import pytest
from aiohttp import web

from deploy.pages import typed
from gateway.broker.keys import Keys
from gateway.core.orders import Issued, Kick, Target, Token, decode_target
from gateway.core.user import User
from tests.cluster.conftest import QUICK, redis_only
from tests.cluster.test_control_log import back, cut_off
from tests.conftest import NodeFactory
from tests.support.broker import Broker
from tests.support.client import Client, Crowd
from tests.support.durable import append
from tests.support.events import listen
from tests.support.node import Node, environment
from tests.support.orders import give, know, lift
from tests.support.proxy import Proxy
from tests.support.site import Site
from tests.support.tokens import SECRET, token
from tests.support.until import until

KEYS = Keys("hiroba", 0)
# Of the wire: expired or revoked, kicked.
REVOKED, KICKED = 4001, 4003
# The sweep is far away: what is heard is heard by the bell.
SETTINGS = {**QUICK, "node_ttl_s": 60, "sweep_s": 60, "token_keys": f"HS256:{SECRET}", "guests": True}

pytestmark = redis_only


@pytest.fixture
async def nodes(start_node: NodeFactory, broker: Broker, proxy: Proxy) -> tuple[Node, Node]:
    """The second one can be cut off."""
    far = broker.url_at("127.0.0.1", proxy.port)
    near, cut = await asyncio.gather(start_node(**SETTINGS), start_node(broker_url=far, **SETTINGS))
    return near, cut


def pass_of(user: str, *, jti: str | None = None, ago_s: float = 10) -> dict[str, str]:
    """The headers of who was logged in so long ago."""
    return {"Authorization": f"Bearer {token(sub=user, jti=jti, iat=time.time() - ago_s)}"}


async def status(crowd: Crowd, node: Node, path: str, who: dict[str, str]) -> int:
    """Of the answer to a handshake, as a WebSocket's under /ws/."""
    socket_ = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    socket_ |= {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": "hiroba.v1"}
    headers = {**who, **(socket_ if path.startswith("/ws/") else {})}
    async with crowd.http.get(node.url("").rstrip("/") + path, headers=headers) as answer:
        return answer.status


async def refused(crowd: Crowd, node: Node, room: str, who: dict[str, str]) -> int:
    """The status, on every wire."""
    (one,) = {
        await status(crowd, node, path, who)
        for path in (f"/ws/chat/{room}/", f"/sse/chat/{room}/", f"/streams/chat/{room}?offset=-1")
    }
    return one


async def may_come(crowd: Crowd, node: Node, who: dict[str, str]) -> bool:
    said = await status(crowd, node, "/sse/chat/lobby/", who)
    assert said in (200, 403)
    return said == 200


@pytest.mark.parametrize(
    ("target", "good"),
    [(Issued("ann", 600), {"ago_s": 0}), (Token("stolen"), {"jti": "other"}), (Issued("", 600), {"ago_s": 0})],
    ids=["user", "token", "everybody"],
)
async def test_a_revoked_one_is_out_on_both_nodes_and_comes_back_with_another_token(
    nodes: tuple[Node, Node], crowd: Crowd, broker: Broker, target: Target, good: dict[str, float]
) -> None:
    """And only that one: nobody else is asked to go."""
    ann = pass_of("ann", jti="stolen")
    hers: list[Client] = [
        await crowd.join(node, "lobby", wire, headers=ann) for node in nodes for wire in ("v1", "plain")
    ]
    hers.append(await crowd.join(nodes[0], "den", headers=ann))
    bob = await crowd.join(nodes[1], "lobby", headers=pass_of("bob"))
    guest = await crowd.join(nodes[1], "lobby")
    await give(broker, target)
    for client in hers:
        assert (await client.closed())[0] == REVOKED
    for node in nodes:
        assert await refused(crowd, node, "lobby", ann) == 401
        assert await node.metric("hiroba_handshakes_refused_total", reason="revoked") == 3
    again = await crowd.join(nodes[0], "lobby", headers=pass_of("ann", **good))
    await again.say("back")
    await guest.hears("back")
    if target == Issued("", 600):
        assert (await bob.closed())[0] == REVOKED
    else:
        await bob.hears("back")


async def test_a_kick_from_one_room_leaves_the_others(nodes: tuple[Node, Node], crowd: Crowd, broker: Broker) -> None:
    """A v1 connection of many rooms is told `left`; one made for that room alone is closed."""
    ann = pass_of("ann")
    many = await crowd.join(nodes[0], "lobby", headers=ann)
    await many.ask("join", room="den")
    plain = await crowd.join(nodes[1], "lobby", "plain", headers=ann)
    stream = await listen(crowd, nodes[1], "lobby", headers=f"Authorization: {ann['Authorization']}\r\n")
    bob = await crowd.join(nodes[1], "lobby", headers=pass_of("bob"))
    await give(broker, Kick("ann", "lobby"))
    await many.until(lambda: many.of_type("left"), "a word that it is over")
    assert many.of_type("left") == [{"type": "left", "room": "lobby", "reason": "kicked"}]
    assert (await plain.closed())[0] == KICKED
    await until(stream.raw.over.done, "the stream ends")
    for node in nodes:
        assert await refused(crowd, node, "lobby", ann) == 403
    assert (await many.ask("join", room="lobby"))["code"] == "kicked"
    await many.ws.send_json({"type": "message", "room": "den", "message": "still here"})
    await many.hears("still here")
    await lift(broker, Kick("ann", "lobby"))

    async def joins() -> bool:
        return (await many.ask("join", room="lobby"))["type"] == "joined"

    await until(joins, "it may come again")
    await bob.say("hello")
    await many.hears("still here", "hello")


async def test_who_is_kicked_watches_that_room_no_more(nodes: tuple[Node, Node], crowd: Crowd, broker: Broker) -> None:
    """Its growth says that they talk in there, and when. The other rooms go on; so does watching when it is over."""
    ann = await crowd.come(nodes[0], headers=pass_of("ann"))
    bob = await crowd.join(nodes[1], "den", headers=pass_of("bob"))
    await bob.ask("join", room="lobby")
    await ann.ask("watch", rooms=["den", "lobby"])
    await give(broker, Kick("ann", "den"))
    await know(nodes, 1)
    await until(lambda: watches(nodes[0], 1), "it watches one of the two")
    for room in ("den", "lobby"):
        await bob.ask("message", room=room, message="hi")
    await ann.until(lambda: len(ann.of_type("tops")) > 1, "the other one grew")
    assert ann.of_type("tops")[-1]["rooms"].keys() == {"lobby"}
    await ann.ask("watch", rooms=["den", "lobby"])
    (error,) = ann.of_type("error")
    assert (error["code"], error["room"]) == ("kicked", "den")
    await lift(broker, Kick("ann", "den"))
    await know(nodes, 0)
    assert "den" in (await ann.ask("watch", rooms=["den"]))["rooms"]


async def watches(node: Node, rooms: int) -> bool:
    return await node.metric("hiroba_rooms_watched") == rooms


async def test_who_is_kicked_while_the_site_thinks_says_nothing(
    start_node: NodeFactory, crowd: Crowd, broker: Broker
) -> None:
    """The site was asked about it before; it would be heard behind the kick."""
    async with Site() as site:
        go = asyncio.Event()

        async def thinks(request: web.Request) -> web.StreamResponse:
            await go.wait()
            return web.Response(status=204)

        site.answer = thinks
        node = await start_node(site_publish_url=site.url, site_publish_timeout_s=20, **SETTINGS)
        ann, bob = [await crowd.join(node, "lobby", headers=pass_of(who)) for who in ("ann", "bob")]
        for who, text in ((ann, "hers"), (bob, "his")):
            await who.say(text)
        await until(lambda: len(site.asked) == 2, "both are asked about")
        await give(broker, Kick("ann"))
        assert (await ann.closed())[0] == KICKED
        go.set()
        await bob.hears("his")


async def test_a_kick_from_all_rooms_ends_the_connection_for_its_time(
    nodes: tuple[Node, Node], crowd: Crowd, broker: Broker
) -> None:
    ann = pass_of("ann")
    hers = [await crowd.join(nodes[0], "lobby", headers=ann), await crowd.join(nodes[1], "den", "plain", headers=ann)]
    await hers[0].ask("join", room="den")
    await give(broker, Kick("ann"), for_s=2)
    for client in hers:
        assert await client.closed() == (KICKED, "this user is put out for a time")
    assert await status(crowd, nodes[1], "/ws/", ann) == 403

    await until(lambda: may_come(crowd, nodes[1], ann), "its time is over", every_s=0.1)


@pytest.mark.parametrize(
    "away_s", [0, pytest.param(30, marks=pytest.mark.long)], ids=["for a moment", "for half a minute"]
)
@pytest.mark.parametrize("trimmed", [False, True], ids=["its log is there", "it fell off the log"])
async def test_a_node_that_was_cut_off_puts_them_out_when_it_is_back(
    nodes: tuple[Node, Node], crowd: Crowd, broker: Broker, proxy: Proxy, trimmed: bool, away_s: float
) -> None:
    """More orders than bells are remembered were given meanwhile; nobody who is named slips in first."""
    near, far = nodes
    ann, bob = pass_of("ann", jti="a"), pass_of("bob")
    hers, his = [await crowd.join(far, "lobby", headers=who) for who in (ann, bob)]
    await give(broker, Kick("nobody"))
    await know(nodes, 1)
    await cut_off(far, proxy)
    await give(broker, Token("a"), *(Kick(f"other{n}") for n in range(20)), Kick("bob", "lobby"))
    await know([near], 23)
    await asyncio.sleep(away_s)
    waiting = asyncio.create_task(status(crowd, far, "/ws/chat/lobby/", ann))
    assert hers.close_code is None and his.close_code is None
    if trimmed:
        async with broker.client() as client:
            await client.xtrim(KEYS.orders, maxlen=1, approximate=False)
    await back(far, proxy)
    assert (await hers.closed())[0] == REVOKED
    assert (await his.closed())[0] == KICKED
    assert await waiting == 401
    await know([far], 23)


async def test_a_kick_that_is_over_puts_out_who_was_there_and_not_who_came_since(
    nodes: tuple[Node, Node], crowd: Crowd, broker: Broker, proxy: Proxy
) -> None:
    """A node hears of it late: whoever is connected since before was never put out there."""
    near, far = nodes
    ann = pass_of("ann")
    stayed = await crowd.join(far, "lobby", headers=ann)
    await give(broker, Kick("nobody"))
    await know(nodes, 1)
    await cut_off(far, proxy)
    await give(broker, Kick("ann"), for_s=0.2)
    await until(lambda: may_come(crowd, near, ann), "its time is over")
    waiting = asyncio.create_task(crowd.join(far, "lobby", headers=ann))
    await back(far, proxy)
    assert (await stayed.closed())[0] == KICKED
    came = await waiting
    await came.say("here")
    await came.hears("here")


async def test_a_node_that_starts_knows_who_is_out(
    nodes: tuple[Node, Node], crowd: Crowd, broker: Broker, start_node: NodeFactory
) -> None:
    """It lets nobody in before it has read what stands."""
    await give(broker, Kick("ann"), Issued("bob", 600))
    node = await start_node(ready=False, **SETTINGS)

    async def answered(who: dict[str, str]) -> int:
        try:
            return await status(crowd, node, "/ws/chat/lobby/", who)
        except aiohttp.ClientConnectorError:
            return 0

    assert await until(lambda: answered(pass_of("ann")), "its door opens") == 403
    assert await answered(pass_of("bob")) == 401


@pytest.mark.denied
async def test_nobody_writes_by_http_on_a_node_that_does_not_know_who_is_out(
    crowd: Crowd, broker: Broker, start_node: NodeFactory
) -> None:
    """As nobody comes in: the road for messages may be there before."""
    await give(broker, Kick("ann"))
    async with broker.client() as redis:
        await redis.execute_command("ACL", "SETUSER", "gateway", "-zrange")
        node = await start_node(ready=False, handshake_timeout_s=1, **SETTINGS)

        async def answered() -> int:
            try:
                return (await append(crowd, node, "lobby", "hi", headers=pass_of("ann"))).status
            except aiohttp.ClientConnectorError:
                return 0

        assert await until(answered, "its door opens") == 503
        assert await answered() == 503
        await redis.execute_command("ACL", "SETUSER", "gateway", "+zrange")
        await node.wait_ready()
        assert await answered() == 403


async def test_a_revoked_token_refreshes_nothing(nodes: tuple[Node, Node], crowd: Crowd, broker: Broker) -> None:
    ann = await crowd.join(nodes[0], "lobby", headers=pass_of("ann"))
    await give(broker, Token("stolen"))
    await know(nodes, 1)
    answer = await ann.ask("refresh", token=token(sub="ann", jti="stolen"))
    assert (answer["type"], answer["code"]) == ("error", "token")
    answer = await ann.ask("refresh", token=token(sub="ann", jti="fresh"))
    assert answer["type"] == "refreshed"


async def hiroba(*argv: str, broker: Broker, **settings: str) -> tuple[int | None, str, str]:
    """Exit code, output and errors of a command."""
    env = environment({"broker_url": broker.url, **settings})
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", *argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await running.communicate()
    return running.returncode, out.decode(), err.decode()


async def test_commands_put_out_and_take_back(nodes: tuple[Node, Node], crowd: Crowd, broker: Broker) -> None:
    """As docs/operations.md has them; every node's log says who gave them."""
    then = datetime.fromtimestamp(time.time() - 3600, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    lines = typed("docs/operations.md", "hiroba kick bob", {"2027-01-31T12:00:00Z": then}).splitlines()
    said = iter([shlex.split(line, comments=True)[1:] for line in lines])

    async def tells(wanted: str) -> None:
        code, out, err = await hiroba(*next(said), broker=broker)
        assert (code, err) == (0, "") and re.fullmatch(wanted + r"\n", out), out

    bob = await crowd.join(nodes[0], "lobby", headers=pass_of("bob"))
    alice = await crowd.join(nodes[1], "lobby", headers=pass_of("alice"))
    eve = await crowd.join(nodes[1], "lobby", headers=pass_of("eve", jti="7f3c2a"))
    old = await crowd.join(nodes[0], "den", headers=pass_of("carol", ago_s=7200))
    new = await crowd.join(nodes[0], "den", headers=pass_of("carol"))
    await tells(r"bob is put out of lobby, until 2\S+Z")
    assert (await bob.closed())[0] == KICKED
    await tells(r"alice's tokens issued before 2\S+Z are revoked, until 2\S+Z")
    assert (await alice.closed())[0] == REVOKED
    await tells(r"token 7f3c2a is revoked, until 2\S+Z")
    assert (await eve.closed())[0] == REVOKED
    await tells(rf"everybody's tokens issued before {then} are revoked, until 2\S+Z")
    assert (await old.closed())[0] == REVOKED
    await tells("bob may come into lobby")
    await know(nodes, 3)
    await new.say("still here")
    await new.hears("still here")
    for node in nodes:
        told = [json.loads(line) for line in node.lines() if '"event": "order"' in line]
        assert [line["kind"] for line in told] == ["kick", "issued", "token", "issued", "kick"]
        assert (told[0]["user"], told[0]["room"], told[1]["user"], told[2]["id"]) == ("bob", "lobby", "alice", "7f3c2a")
        assert all(line["by"].endswith(f"@{socket.gethostname()}") for line in told)
        assert [line["until"] is None for line in told] == [False, False, False, False, True]


@pytest.mark.parametrize("user", ["zoë\u200d\ue000", "a\x1b[2J\nb", "x" * 128])
async def test_any_id_that_a_user_may_have_can_be_named(broker: Broker, user: str) -> None:
    """Whatever is in it: and what is printed of it clears no screen."""
    User(user, None)
    code, out, err = await hiroba("kick", user, broker=broker)
    assert (code, err) == (0, "") and out.count("\n") == 1 and out.strip().isprintable()
    async with broker.client() as client:
        (member,) = [m for m in await client.zrange(KEYS.standing, 0, -1) if not m.startswith(b"@")]
    assert decode_target(member) == Kick(user)


async def test_what_is_no_id_is_refused_in_words(broker: Broker) -> None:
    """Bytes that are no text can be on a command line, and in no token."""
    for user in ("", "x" * 300, os.fsdecode(b"\xff")):
        code, out, err = await hiroba("kick", user, broker=broker)
        assert (code, out) == (2, "") and "USER is an id" in err and "Traceback" not in err


async def test_a_command_says_what_it_could_not_do(broker: Broker) -> None:
    """Its exit code too; and no password."""
    code, out, err = await hiroba("kick", "ann", broker=broker, orders_max="1")
    assert code == 0
    code, out, err = await hiroba("kick", "bob", broker=broker, orders_max="1")
    assert (code, out) == (1, "") and err.startswith("hiroba kick: 1 orders stand (orders_max)")
    async with broker.client() as client:
        await client.config_set("maxmemory", 1)
        code, out, err = await hiroba("kick", "bob", broker=broker)
        assert code == 0 and "the broker's memory is full, so nodes find it by themselves, within sweep_s" in out
    await broker.kill()
    code, out, err = await hiroba(
        "kick", "ann", broker=broker, broker_timeout_s="0.5", publish_timeout_s="0.5", probe_s="1"
    )
    assert (code, out) == (1, "") and "did not take the order within 1 s" in err and "give it again" in err
    assert "geheim" not in err
