"""Writing to a room by plain HTTP (Durable Streams): once, whole or not at all, no faster than a socket may."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from tests.conftest import NodeFactory
from tests.node.conftest import redis_only
from tests.support.broker import Broker
from tests.support.client import Crowd
from tests.support.durable import Answer, append, ask, producing
from tests.support.node import Node
from tests.support.until import until

SETTINGS = {"messages_per_s": 0, "message_bytes_max": 1_000, "append_bytes_max": 20_000, "append_messages_max": 100}
SETTINGS |= {"append_queue_bytes_max": 200_000, "outgoing_bytes_max": 65_536, "handshake_timeout_s": 2}

JSON = {"Content-Type": "application/json"}


async def post(crowd: Crowd, node: Node, room: str, body: str | bytes, **headers: str) -> Answer:
    sent = {**JSON, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return await ask(crowd, node, room, "POST", headers=sent, body=body.encode() if isinstance(body, str) else body)


async def test_what_is_appended_is_said_in_the_room(shared_node: Node, crowd: Crowd) -> None:
    """To sockets as to readers, byte for byte; an array is as many messages as it has elements, one level deep."""
    ann, plain = await crowd.join(shared_node, "said"), await crowd.join(shared_node, "said", "plain")
    ends = []
    for body in ('{"a":  1}', '[1, "やあ" ,[2,3]]', "[[[]]]", ' "x"\n', "null"):
        answer = await post(crowd, shared_node, "said", body)
        assert (answer.status, answer.body) == (204, b"")
        ends.append(answer.next)
    said = [{"a": 1}, 1, "やあ", [2, 3], [[]], "x", None]
    await ann.hears(*said)
    await plain.hears(*said)
    assert ends == sorted(ends) and ends[-1].endswith(ann.ids[-1].partition("-")[2])
    whole = await ask(crowd, shared_node, "said")
    assert whole.messages == said and whole.next == ends[-1]
    assert whole.body.startswith(b'[{"a":  1},1,"\xe3\x82\x84'), "as they were written"
    assert (await ask(crowd, shared_node, "said", offset=ends[2])).messages == ["x", None]
    senders = [frame["from"] for frame in ann.of_type("message")]
    assert len(set(senders[1:4])) == 1 and len(set(senders)) == 5, "each request is a speaker of its own"


async def test_a_producer_s_request_is_appended_once_however_often_it_comes(shared_node: Node, crowd: Crowd) -> None:
    async def produce(epoch: int, seq: int, *messages: object, id: str = "p") -> Answer:
        return await append(crowd, shared_node, "once", *messages, headers=producing(id, epoch, seq))

    first = await produce(0, 0, "a", "b")
    assert (first.status, first.headers["Producer-Epoch"], first.headers["Producer-Seq"]) == (200, "0", "0")
    assert (await produce(0, 1, "c")).status == 200
    for seq in (1, 0):
        again = await produce(0, seq, "whatever it says now")
        assert (again.status, again.headers["Producer-Seq"]) == (204, "1")
        assert again.next == (await ask(crowd, shared_node, "once", "HEAD")).next
    gap = await produce(0, 5, "too early")
    expected = gap.headers["Producer-Expected-Seq"], gap.headers["Producer-Received-Seq"]
    assert (gap.status, expected) == (409, ("2", "5"))
    assert (await produce(1, 1, "an epoch begins with 0")).status == 400
    assert (await produce(3, 0, "d")).status == 200
    stale = await produce(2, 0, "a zombie")
    assert (stale.status, stale.headers["Producer-Epoch"]) == (403, "3")
    assert (await produce(0, 0, "e", id="another")).status == 200
    assert (await produce(0, 1, "no state, no beginning", id="third")).status == 409
    assert (await produce(2**53 - 1, 0, "f", id="p")).status == 200
    assert (await ask(crowd, shared_node, "once")).messages == ["a", "b", "c", "d", "e", "f"]
    assert (await append(crowd, shared_node, "elsewhere", "x", headers=producing("p", 0, 0))).status == 200


@redis_only
async def test_a_node_killed_between_append_and_answer_and_the_retry_elsewhere(
    start_node: NodeFactory, broker: Broker, crowd: Crowd
) -> None:
    """The same answer that the first one would have had, and nothing twice: what a producer has is kept with the log,
    by the same call that appends."""
    one, two = await start_node(), await start_node()
    ann = await crowd.join(two, "r")
    for seq in range(5):
        # The broker stands still with the call in its socket, the node dies, the broker goes on.
        broker.pause()
        asking = asyncio.create_task(append(crowd, one, "r", seq, "and more", headers=producing("writer", 0, seq)))
        await until(lambda: one.metric("hiroba_publish_queue_entries"), "the call is on its way")
        await one.kill()
        broker.cont()
        with pytest.raises(aiohttp.ClientError):
            await asking
        again = await append(crowd, two, "r", seq, "and more", headers=producing("writer", 0, seq))
        assert again.status in (200, 204) and again.headers["Producer-Seq"] == str(seq)
        await ann.hears(*[word for n in range(seq + 1) for word in (n, "and more")])
        assert again.next.endswith(ann.ids[-1].partition("-")[2])
        await one.start()


@redis_only
async def test_a_broker_that_is_restarted_while_producers_write_loses_and_doubles_nothing(
    start_node: NodeFactory, broker: Broker, crowd: Crowd
) -> None:
    """The node asks again over the next connection; a client that was refused meanwhile asks again itself."""
    node = await start_node(messages_per_s=0, publish_timeout_s=20)

    async def write(name: str) -> None:
        for seq in range(40):
            while True:
                answer = await append(crowd, node, "r", f"{name} {seq}", headers=producing(name, 0, seq))
                if answer.status in (200, 204):
                    break
                assert answer.status == 503

    writers = [asyncio.create_task(write(name)) for name in ("a", "b", "c")]
    for _ in range(2):
        published = await node.metric("hiroba_entries_published_total")

        async def wrote(published: float = published) -> bool:
            return await node.metric("hiroba_entries_published_total") > published + 10

        await until(wrote, "they write")
        await broker.kill()
        await broker.restart()
        await node.wait_ready()
    await asyncio.gather(*writers)
    messages: list[str] = []
    offset = "-1"
    while True:
        page = await ask(crowd, node, "r", offset=offset)
        messages += page.messages
        offset = page.next
        if page.up_to_date:
            break
    for name in ("a", "b", "c"):
        assert [word for word in messages if word.startswith(name)] == [f"{name} {seq}" for seq in range(40)]


async def test_stream_seq_only_ever_rises_by_bytes(shared_node: Node, crowd: Crowd) -> None:
    """Of the room, whoever writes; who does without is not held to it, and a producer's repeat is one first."""

    async def write(sequence: str, **by: str) -> int:
        return (await append(crowd, shared_node, "seq", sequence, headers={"Stream-Seq": sequence, **by})).status

    for sequence, status in (("09", 204), ("10", 204), ("1", 409), ("10", 409), ("2", 204), ("10", 409), ("B", 204)):
        assert await write(sequence) == status, sequence
    assert await write("a") == 204 and await write("B!") == 409 and await write("aa") == 204
    assert (await append(crowd, shared_node, "seq", "without")).status == 204
    assert await write("b", **producing("p", 0, 0)) == 200
    assert await write("b", **producing("p", 0, 0)) == 204
    assert await write("b", **producing("p", 0, 1)) == 409
    assert await write("c", **producing("p", 0, 1)) == 200
    assert (await ask(crowd, shared_node, "seq")).messages == ["09", "10", "2", "B", "a", "aa", "without", "b", "c"]


async def test_a_room_is_created_by_being_named(shared_node: Node, crowd: Crowd) -> None:
    created = await ask(crowd, shared_node, "new部屋", "PUT", headers=JSON)
    assert created.status == 201 and created.headers["Content-Type"] == "application/json"
    assert created.next == f"{0:020}-{0:020}"
    first = await ask(crowd, shared_node, "new部屋", "PUT", headers=JSON, body=b'["first", "words"]')
    assert first.status == 201
    for body in (b'["first", "words"]', b"", b"[]"):
        again = await ask(crowd, shared_node, "new部屋", "PUT", headers=JSON, body=body)
        assert (again.status, again.next) == (200, first.next)
    assert (await ask(crowd, shared_node, "new部屋")).messages == ["first", "words"]


async def test_two_who_create_a_room_at_once_speak_once(shared_node: Node, crowd: Crowd) -> None:
    answers = await asyncio.gather(
        *(ask(crowd, shared_node, "both", "PUT", headers=JSON, body=b'"first"') for _ in range(10))
    )
    assert {answer.status for answer in answers} <= {200, 201}
    assert (await ask(crowd, shared_node, "both")).messages == ["first"]


@redis_only
async def test_a_room_that_expired_can_be_created_again(start_node: NodeFactory, crowd: Crowd) -> None:
    """What it is created with is said, not held for what was said before."""
    node = await start_node(retention_s=1, room_idle_s=1, sweep_s=0.5, linger_s=0.1)
    assert (await ask(crowd, node, "again", "PUT", headers=JSON, body=b'"first"')).status == 201

    async def expired() -> bool:
        return (await ask(crowd, node, "again", "HEAD")).next == f"{0:020}-{0:020}"

    await until(expired, "nobody used it", 15, every_s=2.5)
    assert (await ask(crowd, node, "again", "PUT", headers=JSON, body=b'"second"')).status == 201
    assert (await ask(crowd, node, "again")).messages == ["second"]


# ---- limits ----


async def test_a_request_is_taken_whole_or_not_at_all(shared_node: Node, crowd: Crowd) -> None:
    """A message above message_bytes_max, more messages or bytes than one request may have: nothing of it is there."""
    for body in ([1, "x" * 1_000], list(range(101)), ["x" * 500] * 60):
        assert (await append(crowd, shared_node, "whole", *body)).status == 413, body
    chunked = asyncio.create_task(shapeless(crowd, shared_node, "whole", b'"' + b"x" * 30_000))
    assert (await chunked).status == 413
    assert (await ask(crowd, shared_node, "whole")).messages == []
    assert (await append(crowd, shared_node, "whole", *range(100))).status == 204


async def shapeless(crowd: Crowd, node: Node, room: str, body: bytes) -> Answer:
    """A body of which nobody says how long it is."""

    async def pieces() -> Any:
        for at in range(0, len(body), 1_000):
            yield body[at : at + 1_000]

    async with crowd.http.post(node.url(f"/streams/chat/{room}"), headers=JSON, data=pieces()) as answer:
        return Answer(answer.status, answer.headers, await answer.read())


@redis_only
async def test_an_address_appends_no_faster_than_a_socket_may(start_node: NodeFactory, crowd: Crowd) -> None:
    """One token a message, a long one as many as it is long; over connections of any number. Others go on."""
    node = await start_node(messages_per_s=2, messages_burst=4, trusted_proxies="127.0.0.0/8")

    async def say(*messages: object, address: str = "192.0.2.1") -> Answer:
        return await append(crowd, node, "r", *messages, headers={"X-Forwarded-For": address})

    assert [(await say(n)).status for n in range(4)] == [204] * 4
    refused = await say("too fast")
    assert refused.status == 429 and int(refused.headers["Retry-After"]) == 1
    assert (await say("others go on", address="192.0.2.2")).status == 204
    assert (await say("x" * 16_384, address="2001:db8::1")).status == 204
    assert (await say("of the same customer", address="2001:db8::2")).status == 429
    assert (await say("of another", address="2001:db8:0:1::2")).status == 204
    assert (await say(*range(20), address="192.0.2.3")).status == 204, "what is missing is owed"
    owing = await say("later", address="192.0.2.3")
    assert 8 <= int(owing.headers["Retry-After"]) <= 9
    assert await node.metric("hiroba_handshakes_refused_total", reason="rate") == 3

    async def may_again() -> bool:
        return (await say("again")).status == 204

    await until(may_again, "it waited", every_s=0.1)
    socket = await crowd.join(node, "r", headers={"X-Forwarded-For": "192.0.2.3"})
    await socket.say("sockets have a rate of their own")


@redis_only
async def test_bodies_that_do_not_come_hold_nobody_up_for_long(start_node: NodeFactory, crowd: Crowd) -> None:
    """What waits is bounded for the node: one more is told so, /healthz answers. Who is too slow is answered 408."""
    node = await start_node(append_bytes_max=50_000, append_queue_bytes_max=100_000, handshake_timeout_s=2, close_s=1)
    slow = [await crowd.connect(node) for _ in range(2)]
    head = "POST /streams/chat/r HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 45000\r\n\r\n"
    for raw in slow:
        raw.write(head.encode() + b'"' + b"x" * 44_000)

    async def both() -> bool:
        return await node.metric("hiroba_connections") == 2

    await until(both, "both are being read")

    async def is_full() -> bool:
        return (await append(crowd, node, "r", "x" * 20_000)).status == 503

    await until(is_full, "no space", every_s=0.05)
    assert (await node.get("/healthz"))[0] == 200
    for raw in slow:
        await until(lambda raw=raw: raw.head, "an answer")
        assert raw.status == 408

    async def is_free() -> bool:
        return (await append(crowd, node, "r", "x" * 20_000)).status == 204

    await until(is_free, "there is space again", every_s=0.05)
    gone = await crowd.connect(node)
    gone.write(head.encode() + b'"xx')
    gone.reset()

    async def nobody() -> bool:
        return await node.metric("hiroba_connections") == 0

    await until(nobody, "who is gone counts no more")


@redis_only
async def test_health_answers_while_as_many_write_as_may(start_node: NodeFactory, crowd: Crowd) -> None:
    """Whoever reads, writes or waits by HTTP has both a place among the connections and one among those of HTTP; taken
    for two, 300 of 400 left no place for anybody who comes to ask how the node is."""
    node = await start_node(connections_max=400, handshake_timeout_s=20)
    head = "POST /streams/chat/r HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
    writers = await asyncio.gather(*(crowd.connect(node) for _ in range(300)))
    for raw in writers:
        raw.write(head.encode() + b'"')

    async def all_write() -> bool:
        return await node.metric("hiroba_connections") == 300

    await until(all_write, "all are being read")
    for _ in range(10):
        assert (await node.get("/healthz"))[0] == 200
    for raw in writers:
        raw.write(b'1234567"')
    for raw in writers:
        await until(lambda raw=raw: raw.head, "an answer")
    assert {raw.status for raw in writers} <= {204, 429}


@redis_only
async def test_a_broker_that_is_away_is_told_within_publish_timeout_s(
    start_node: NodeFactory, broker: Broker, crowd: Crowd
) -> None:
    node = await start_node(publish_timeout_s=1)
    await broker.kill()
    late = await append(crowd, node, "r", "never")
    assert (late.status, "Retry-After" in late.headers) == (503, True)
    await broker.restart()
    await node.wait_ready()
    assert (await append(crowd, node, "r", "now")).status == 204
    assert (await ask(crowd, node, "r")).messages == ["now"], "what was told to never appear did not"


# ---- what is not taken ----


async def test_what_can_t_be_appended_is_refused_with_the_reason(shared_node: Node, crowd: Crowd) -> None:
    async def refusal(status: int, reason: str, body: str | bytes = "1", method: str = "POST", **headers: str) -> None:
        sent = JSON | {name.replace("_", "-"): value for name, value in headers.items()}
        before = await shared_node.metric("hiroba_handshakes_refused_total", reason=reason)
        raw = body.encode() if isinstance(body, str) else body
        answer = await ask(crowd, shared_node, "bad", method, headers=sent, body=raw)
        assert answer.status == status, (body, headers, answer)
        assert await shared_node.metric("hiroba_handshakes_refused_total", reason=reason) == before + 1

    for bad in ("{", "[1,]", "[1] 2", "nul", "01", "'x'", b"\xff", '"\\ud800"', "[" * 100_00, '"a\nb"', "\ufeff1"):
        await refusal(400, "json", bad)
    for nothing in ("", "[]", " [ ] "):
        await refusal(400, "empty", nothing)
    await refusal(409, "type", Content_Type="text/plain")
    await refusal(415, "encoding", Content_Encoding="gzip")
    await refusal(501, "unsupported", Stream_Closed="true")
    await refusal(400, "producer", Stream_Seq="s" * 129)
    whole = {"Producer_Id": "p", "Producer_Epoch": "0", "Producer_Seq": "0"}
    for name in whole:
        await refusal(400, "producer", **{key: value for key, value in whole.items() if key != name})
        for bad in ("", "-1", "1.5", "x", "1e3", "\u0661", str(2**53), "9" * 5_000):
            if name != "Producer_Id" or not bad:
                await refusal(400, "producer", **(whole | {name: bad}))
    await refusal(400, "producer", **(whole | {"Producer_Id": "p" * 129}))
    await refusal(409, "configuration", "", "PUT", Content_Type="text/plain")
    await refusal(409, "configuration", "", "PUT", Stream_TTL="3600")
    await refusal(409, "configuration", "", "PUT", Stream_Closed="true")
    await refusal(400, "configuration", "", "PUT", Stream_TTL="03600")
    await refusal(400, "configuration", "", "PUT", Stream_Expires_At="tomorrow")
    await refusal(501, "unsupported", "", "PUT", Stream_Forked_From="/streams/chat/other")
    await refusal(403, "origin", Origin="https://evil.example")
    assert (await ask(crowd, shared_node, "bad")).messages == []
    raw = await crowd.connect(shared_node)
    head = "POST /streams/chat/bad HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked"
    raw.write(f"{head}\r\n\r\n3\r\n[1,\r\nzz\r\n".encode())
    await until(lambda: raw.head or raw.over.done(), "an answer, or the end")
    assert (await ask(crowd, shared_node, "bad")).messages == []
    assert json.loads((await ask(crowd, shared_node, "bad")).body) == []
