"""Wire v1 on real sockets, word for word as docs/protocol.md has it."""

import asyncio
import re

import aiohttp

from tests.conftest import NodeFactory
from tests.node.conftest import redis_only
from tests.support.broker import Broker
from tests.support.client import Crowd
from tests.support.node import Node
from tests.support.raw import handshake
from tests.support.until import until

SETTINGS = {"linger_s": 0.1, "messages_per_s": 0}

ID = re.compile(r"\d{13}-\d+\Z")


async def test_welcome_is_first_and_says_where_one_is(shared_node: Node, crowd: Crowd) -> None:
    ann = await crowd.join(shared_node, "welcome部屋")
    welcome = await ann.welcome()
    assert welcome == {
        "type": "welcome",
        "session": welcome["session"],
        "node": welcome["node"],
        "room": "welcome部屋",
        "user": None,
        "rights": "rwp",
        "expires_at": None,
        "last_id": "0-0",
        "recovered": False,
        "ping_s": 25.0,
    }
    bob = await crowd.join(shared_node, "welcome部屋")
    assert (await bob.welcome())["session"] != welcome["session"]
    assert (await bob.welcome())["node"] == welcome["node"]
    await ann.say("x")
    await bob.hears("x")
    late = await crowd.join(shared_node, "welcome部屋")
    assert (await late.welcome())["last_id"] == ann.ids[0]


async def test_message_and_ack(shared_node: Node, crowd: Crowd) -> None:
    ann, bob = await crowd.join(shared_node, "ack"), await crowd.join(shared_node, "ack")
    await ann.say({"deep": [1, "二"]}, ref="my-1")
    ack = await ann.answer("my-1")
    assert ID.match(ack["id"])
    await bob.hears({"deep": [1, "二"]})
    assert bob.heard[1] == {
        "type": "message",
        "room": "ack",
        "id": ack["id"],
        "from": (await ann.welcome())["session"],
        "user": None,
        "message": {"deep": [1, "二"]},
        "at": int(ack["id"].partition("-")[0]),
    }
    await ann.say("no ref, no ack")
    await ann.say("an integer", ref=0)
    assert (await ann.answer(0))["id"] == ann.ids[2]
    assert len(ann.of_type("ack")) == 2


async def test_ping_and_pong(shared_node: Node, crowd: Crowd) -> None:
    """A page asks whether the way there and back still works; with an answer it may name, and one it may not."""
    ann, bob = await crowd.join(shared_node, "ping"), await crowd.join(shared_node, "ping")
    await ann.send('{"type":"ping"}')
    await ann.send('{"type":"ping","ref":"are you there?"}')
    await ann.send('{"type":"ping","ref":7}')
    await ann.until(lambda: len(ann.of_type("pong")) == 3, "three pongs")
    assert ann.heard[1:] == [{"type": "pong"}, {"type": "pong", "ref": "are you there?"}, {"type": "pong", "ref": 7}]
    await ann.say("that was for ann alone")
    await bob.hears("that was for ann alone")
    assert bob.of_type("pong") == []


async def test_each_of_many_publishes_in_flight_is_acknowledged(shared_node: Node, crowd: Crowd) -> None:
    """Far more than one window at once: each gets its own id, in order."""
    ann = await crowd.join(shared_node, "many")
    await asyncio.gather(*(ann.say(n, ref=n) for n in range(500)))
    await ann.until(lambda: len(ann.of_type("ack")) == 500, "500 acks")
    await ann.hears(*range(500))
    assert {ack["ref"]: ack["id"] for ack in ann.of_type("ack")} == dict(enumerate(ann.ids))


async def test_subprotocol_negotiation(shared_node: Node, crowd: Crowd) -> None:
    """RFC 6455 §4.2.2: the first of the client's that we speak; none of ours, none in the answer."""
    for offered, chosen in [
        ("hiroba.v1", b"hiroba.v1"),
        ("other, hiroba.v1", b"hiroba.v1"),
        ("hiroba.v2,hiroba.v1 , x", b"hiroba.v1"),
        ("hiroba.v2", None),
        ("HIROBA.V1", None),
    ]:
        raw = await crowd.connect(shared_node)
        assert await raw.ask(handshake("sub", headers=f"Sec-WebSocket-Protocol: {offered}\r\n")) == 101
        found = re.search(rb"Sec-WebSocket-Protocol: (\S+)", raw.head, re.IGNORECASE)
        assert (found[1] if found else None) == chosen, offered
        if chosen:
            await until(raw.payloads, "a welcome")


@redis_only
async def test_what_the_broker_refuses_is_told(broker: Broker, start_node: NodeFactory, crowd: Crowd) -> None:
    """Out of memory: v1 hears `refused` and stays, plain is closed 1013; afterwards all goes on."""
    node = await start_node(messages_per_s=0, probe_s=60)
    ann, old = await crowd.join(node, "r"), await crowd.join(node, "r", "plain")
    async with broker.client() as client:
        await client.config_set("maxmemory", 1)
        await ann.say("too much", ref=1)
        error = await ann.answer(1)
        assert (error["type"], error["code"]) == ("error", "refused")
        await old.say("too much as well")
        assert (await old.closed())[0] == 1013
        await client.config_set("maxmemory", 0)
    await ann.say("again", ref=2)
    assert (await ann.answer(2))["type"] == "ack"
    await ann.hears("again")
    assert await node.metric("hiroba_publishes_refused_total", reason="refused") >= 2


async def test_a_refused_handshake_says_why(shared_node: Node) -> None:
    async with (
        aiohttp.ClientSession() as http,
        http.get(shared_node.url("/ws/chat/a!b/")) as answer,
    ):
        assert answer.status == 404
        assert await answer.text() == "a room name holds letters, digits and underscores, and - . : @ between them\n"


async def test_what_a_client_offers_in_several_header_lines_is_one_list(shared_node: Node, crowd: Crowd) -> None:
    """RFC 6455 §11.3.4: some libraries and proxies write one subprotocol, or one extension, per line."""
    lines = ("Sec-WebSocket-Protocol: graphql-ws", "Sec-WebSocket-Protocol: hiroba.v1")
    lines += ("Sec-WebSocket-Extensions: x-webkit-deflate-frame", "Sec-WebSocket-Extensions: permessage-deflate")
    lines += ("Connection: keep-alive",)
    raw = await crowd.connect(shared_node)
    request = handshake("lines", headers="".join(f"{line}\r\n" for line in lines))
    assert await raw.ask(request) == 101
    assert b"Sec-WebSocket-Protocol: hiroba.v1\r\n" in raw.head
    assert b"Sec-WebSocket-Extensions: permessage-deflate;" in raw.head
    await until(lambda: raw.payloads() and b'"welcome"' in raw.payloads()[0], "a welcome")


async def test_a_message_may_name_the_room_that_it_is_for(shared_node: Node, crowd: Crowd) -> None:
    """Only one that this connection is in: what is said by mistake must not appear where nobody waits for it."""
    ann, bob = await crowd.join(shared_node, "named"), await crowd.join(shared_node, "elsewhere")
    await ann.send('{"type": "message", "message": 1, "room": "elsewhere", "ref": "astray"}')
    error = await ann.answer("astray")
    assert (error["type"], error["code"], error["room"]) == ("error", "not_joined", "elsewhere")
    await ann.send('{"type": "message", "message": 2, "room": "named", "ref": "here"}')
    assert (await ann.answer("here"))["type"] == "ack"
    await bob.say("mine")
    await bob.hears("mine")
