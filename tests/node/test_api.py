"""The HTTP API: servers speak into rooms and read them; what is wrong is said, with the place; nothing is half done."""

import asyncio
import json

import pytest

from tests.conftest import NodeFactory
from tests.node.conftest import redis_only
from tests.support.api import Answer, ask, make_key, pointers, revoke_key
from tests.support.broker import Broker
from tests.support.client import Crowd
from tests.support.durable import ask as stream
from tests.support.node import Node
from tests.support.until import until

SETTINGS = {"message_bytes_max": 1_000, "append_bytes_max": 20_000, "append_messages_max": 100, "history_max": 100}
SETTINGS |= {"outgoing_bytes_max": 65_536, "handshake_timeout_s": 2, "api_wrong_keys_per_minute": 3}


async def publish(node: Node, room: str, message: object, **more: str) -> Answer:
    return await ask(node, "POST", "/publish", {"room": room, "message": message}, **more)


async def test_a_server_speaks_and_is_heard_as_everybody_is(shared_node: Node, crowd: Crowd) -> None:
    """By its own name, by a user's, in one room and in several: one log, one order, one way to the sockets."""
    ann, plain = await crowd.join(shared_node, "hall"), await crowd.join(shared_node, "hall", "plain")
    said = [{"a": 1}, "やあ", None, [1, 2]]
    ids = [(await publish(shared_node, "hall", message)).said["id"] for message in said]
    user = {"id": "7", "name": "Ann"}
    asked = {"rooms": ["hall", "kitchen"], "message": "all", "user": user}
    outcomes = (await ask(shared_node, "POST", "/broadcast", asked)).said
    assert [one["room"] for one in outcomes["results"]] == ["hall", "kitchen"] and outcomes["failed"] == 0
    items = [{"room": room, "message": n} for n, room in enumerate(["hall", "kitchen", "hall", "hall"])]
    items[2]["user"] = user
    outcomes = (await ask(shared_node, "POST", "/batch", {"publishes": items})).said
    ids += [one["id"] for one in outcomes["results"] if one["room"] == "hall"]
    await ann.hears(*said, "all", 0, 2, 3)
    await plain.hears(*said, "all", 0, 2, 3)
    heard = ann.of_type("message")
    assert [frame["id"] for frame in heard if frame["message"] != "all"] == ids
    assert [frame["user"] for frame in heard[4:]] == [user, None, user, None]


async def test_history_by_pages(shared_node: Node) -> None:
    """Of a room in which nobody is: the newest first page, then what lies below, until there is no more."""
    assert (await ask(shared_node, "GET", "/history?room=nobody")).said["entries"] == []
    items = [{"room": "past", "message": {"n": n}} for n in range(7)]
    await ask(shared_node, "POST", "/batch", {"publishes": items})
    pages, before = [], ""
    while True:
        page = (await ask(shared_node, "GET", f"/history?room=past&limit=3{before}")).said
        assert page["gaps"] == []
        pages.append([entry["message"]["n"] for entry in page["entries"]])
        if not page["more"]:
            break
        before = f"&before={page['entries'][0]['id']}"
    assert pages == [[4, 5, 6], [1, 2, 3], [0]]


BAD = [
    ("POST", "/publish", '{"room": "a", "message": 1, "x": 2}', 400, "#/x"),
    ("POST", "/publish", '{"room": "a"}', 400, "#/message"),
    ("POST", "/publish", '{"room": 7, "message": 1}', 400, "#/room"),
    ("POST", "/publish", '{"room": "a b", "message": 1}', 400, "#/room"),
    ("POST", "/publish", '{"room": "a", "message": 1, "user": {"id": ""}}', 400, "#/user/id"),
    ("POST", "/publish", '{"room": "a", "message": 1, "user": {"id": "guest:1"}}', 400, "#/user"),
    ("POST", "/publish", '{"room": "a", "message": "' + "x" * 1_000 + '"}', 413, "#/message"),
    ("POST", "/publish", "[]", 400, "#"),
    ("POST", "/broadcast", '{"rooms": [], "message": 1}', 400, "#/rooms"),
    ("POST", "/broadcast", '{"rooms": ["a", "-"], "message": 1}', 400, "#/rooms/1"),
    ("POST", "/broadcast", '{"rooms": ["a", "a"], "message": 1}', 400, "#/rooms"),
    ("POST", "/broadcast", json.dumps({"rooms": [f"r{n}" for n in range(101)], "message": 1}), 413, "#/rooms"),
    ("POST", "/batch", '{"publishes": [{"room": "a", "message": 1}, {"room": "a", "massage": 1}]}', 400,
     "#/publishes/1/massage"),
    ("POST", "/batch", '{"publishes": [{"room": "a", "message": 1}, {"room": "!", "message": 1}]}', 400,
     "#/publishes/1/room"),
    ("GET", "/history", "", 400, "room"),
    ("GET", "/history?room=a&limit=0", "", 400, "limit"),
    ("GET", "/history?room=a&limit=101", "", 400, "limit"),
    ("GET", "/history?room=a&limit=x", "", 400, "limit"),
    ("GET", "/history?room=a&room=b", "", 400, "room"),
    ("GET", "/history?room=a&befor=1-1", "", 400, "befor"),
    ("GET", "/history?room=a&before=1", "", 400, "before"),
    ("GET", "/history?room=-", "", 400, "room"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body", "status", "place"), BAD)
async def test_what_is_wrong_is_said_with_its_place(
    shared_node: Node, method: str, path: str, body: str, status: int, place: str
) -> None:
    answer = await ask(shared_node, method, path, raw=body.encode() if method == "POST" else None)
    assert (answer.status, answer.headers["Content-Type"]) == (status, "application/problem+json")
    assert answer.said["status"] == status and pointers(answer) == [place], answer.said


async def test_a_body_that_is_none(shared_node: Node) -> None:
    async def code(raw: bytes, **headers: str) -> tuple[int, str]:
        answer = await ask(shared_node, "POST", "/publish", raw=raw, **headers)
        return answer.status, answer.said["code"]

    for raw in (
        b"",
        b"nul",
        b'{"room": "a\xff"}',
        b'{"room": "a", "message": "\\ud800"}',
        b'{"room": "a", "message": ' + b"[" * 5_000,
    ):
        assert await code(raw) == (400, "malformed")
    assert await code(b"{}", Content_Type="text/plain") == (415, "type")
    assert await code(b"{}", Content_Encoding="gzip") == (415, "type")
    assert await code(b" " * 20_001) == (413, "too_large")
    for path, status in (("/nothing", 404), ("/publish", 405), ("/", 404)):
        answer = await ask(shared_node, "GET", path)
        assert (answer.status, answer.headers["Content-Type"]) == (status, "application/problem+json")
    assert answer.said["code"] == "not_found"


async def test_one_bad_message_of_a_batch_and_nothing_is_said(shared_node: Node, crowd: Crowd) -> None:
    items: list[object] = [{"room": "whole", "message": n} for n in range(5)]
    assert (
        await ask(shared_node, "POST", "/batch", {"publishes": [*items, {"room": "no room", "message": 1}]})
    ).status == 400
    assert (await stream(crowd, shared_node, "whole")).messages == []


async def test_a_request_that_comes_again_is_done_once(shared_node: Node, crowd: Crowd) -> None:
    """The same answer, byte for byte; another request with its key is refused, whichever operation it is."""
    first = await publish(shared_node, "once", "a", Idempotency_Key="k1")
    for key in ("k1", '"k1"'):
        assert (await publish(shared_node, "once", "a", Idempotency_Key=key)).said == first.said
    for room, message in (("once", "b"), ("elsewhere", "a")):
        taken = await publish(shared_node, room, message, Idempotency_Key="k1")
        assert (taken.status, taken.said["code"], pointers(taken)) == (409, "key_taken", ["Idempotency-Key"])
    items = [{"room": room, "message": n} for n, room in enumerate(["once", "twice", "once"])]
    answers = await asyncio.gather(
        *(ask(shared_node, "POST", "/batch", {"publishes": items}, Idempotency_Key="k2") for _ in range(5))
    )
    assert len({str(answer.said) for answer in answers}) == 1
    assert (await stream(crowd, shared_node, "once")).messages == ["a", 0, 2]
    for bad in ("", "x" * 129, "a b", "ü"):
        assert (await publish(shared_node, "once", "a", Idempotency_Key=bad)).status == 400


async def test_each_write_leaves_a_line_that_says_whose_it_was(shared_node: Node) -> None:
    await publish(shared_node, "audited", "a secret word", Idempotency_Key="audit-me")
    await publish(shared_node, "audited", "a secret word", Idempotency_Key="audit-me")

    def lines() -> list[dict[str, object]]:
        found = [json.loads(line) for line in shared_node.lines() if '"event": "api"' in line and "audit-me" in line]
        return found if len(found) == 2 else []

    one, again = await until(lines, "two lines")
    assert (one["operation"], one["status"], one["key"]) == ("publish", 200, "this machine") and one["id"]
    assert one["room"] == "audited" and again["repeated"] is True
    assert not [line for line in shared_node.lines() if "a secret word" in line]
    assert await shared_node.metric("hiroba_api_requests_total", operation="publish", status="200") >= 2


# ---- who may ----


async def test_without_a_key_only_this_machine_is_answered(shared_node: Node) -> None:
    """Not who comes through a proxy, nor a page whose name leads here (DNS rebinding), nor a page at all."""
    assert "on loopback only" in "\n".join(shared_node.lines())
    here = f"127.0.0.1:{shared_node.ops_port}"
    for headers, code in (
        ({"X_Forwarded_For": "127.0.0.1"}, "not_local"),
        ({"Forwarded": "for=127.0.0.1"}, "not_local"),
        ({"X_Real_IP": "10.0.0.1"}, "not_local"),
        ({"Host": "chat.example.org"}, "not_local"),
        ({"Host": f"rebound.example:{shared_node.ops_port}"}, "not_local"),
        ({"Origin": "https://evil.example"}, "page"),
        ({"Origin": "null"}, "page"),
        ({"Sec_Fetch_Site": "cross-site"}, "page"),
        ({"Origin": f"http://{here}"}, None),
        ({"Host": f"localhost:{shared_node.ops_port}"}, None),
        ({"Host": f"[::1]:{shared_node.ops_port}"}, None),
    ):
        answer = await publish(shared_node, "local", 1, **headers)
        assert (answer.said.get("code"), answer.status) == (code, {"not_local": 401, "page": 403, None: 200}[code])
        assert ("WWW-Authenticate" in answer.headers) == (answer.status == 401)


@redis_only
async def test_keys_open_what_they_are_for_until_they_are_revoked(start_node: NodeFactory, broker: Broker) -> None:
    reader, speaker, admin = [
        await make_key(broker, scope, name=scope) for scope in ("read", "publish", "admin")
    ]  # fmt: skip
    node = await start_node(api_wrong_keys_per_minute=3)

    async def statuses(key: str | None) -> tuple[int, int]:
        return (await publish(node, "a", 1, key=key)).status, (
            await ask(node, "GET", "/history?room=a", key=key)
        ).status

    assert [await statuses(key) for key in (reader, speaker, admin, None)] == [
        (403, 200), (200, 403), (200, 200), (401, 401),
    ]  # fmt: skip
    wrong = speaker[:-2] + ("AA" if speaker[-2:] != "AA" else "BB")
    assert [(await publish(node, "a", 1, key=key)).status for key in (wrong, "x", "", wrong, "x")] == [401] * 3 + [
        429
    ] * 2
    limited = await publish(node, "a", 1, key=wrong)
    assert int(limited.headers["Retry-After"]) >= 1
    assert (await publish(node, "a", 1, key=speaker)).status == 200, "a right key opens all the same"
    assert (await revoke_key(broker, "publish")).name == "publish"

    async def out() -> bool:
        return (await publish(node, "a", 1, key=speaker)).status in (401, 429)

    await until(out, "the revoked key opens nothing")
    for name in ("read", "admin"):
        await revoke_key(broker, name)
    await until(lambda: any('"keys": 0' in line for line in node.lines()), "the last key is gone")
    assert (await publish(node, "a", 1)).status == 401, "what wanted a key goes on wanting one"
    text = "\n".join(node.lines())
    assert not any(key[16:] in text for key in (reader, speaker, admin))


@redis_only
async def test_a_key_that_comes_again_over_a_node_kill_and_a_broker_restart(
    start_node: NodeFactory, broker: Broker, crowd: Crowd
) -> None:
    """Whichever node is asked, before and after: one entry, one id."""
    one, two = await asyncio.gather(start_node(), start_node())
    first = await publish(one, "kept", "x", Idempotency_Key="job-1")
    await one.kill()
    assert (await publish(two, "kept", "x", Idempotency_Key="job-1")).said == first.said
    await broker.kill()
    waiting = asyncio.create_task(publish(two, "kept", "y", Idempotency_Key="job-2"))
    await until(lambda: any("broker is away" in line for line in two.lines()), "the node notices")
    await broker.start()
    second = await waiting
    assert second.status == 200
    for key, message, answer in (("job-1", "x", first), ("job-2", "y", second)):
        assert (await publish(two, "kept", message, Idempotency_Key=key)).said == answer.said
    assert (await stream(crowd, two, "kept")).messages == ["x", "y"]


@redis_only
async def test_while_the_broker_is_away_nothing_is_half_done(start_node: NodeFactory, broker: Broker) -> None:
    node = await start_node(publish_timeout_s=0.5, handshake_timeout_s=0.5)
    await broker.kill()
    said = await publish(node, "away", 1)
    read = await ask(node, "GET", "/history?room=away")
    assert (said.status, read.status) == (503, 503)
    assert said.headers["Retry-After"] and read.headers["Retry-After"]
    assert said.said["code"] in ("broker", "unknown") and read.said["code"] == "broker"
