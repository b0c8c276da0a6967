"""A room as a Durable Stream: read page by page, waited for, streamed; by whoever was away, on whichever node."""

import asyncio
import signal
from typing import Any

import pytest

from tests.conftest import NodeFactory
from tests.node.conftest import redis_only
from tests.support.broker import Broker
from tests.support.client import Crowd
from tests.support.durable import ask
from tests.support.events import Event, Stream, parsed
from tests.support.node import Node
from tests.support.until import until

SETTINGS = {"linger_s": 0.1, "messages_per_s": 0, "ping_s": 4, "allowed_origins": "https://other.example"}

BEGINNING = f"{0:020}-{0:020}"


async def read_all(crowd: Crowd, node: Node, room: str, offset: str = "-1") -> tuple[list[object], str]:
    """Page by page until it is up to date; the messages, and the offset behind them."""
    messages: list[object] = []
    while True:
        page = await ask(crowd, node, room, offset=offset)
        messages += page.messages
        assert page.next >= offset or offset == "-1", "offsets sort as text"
        offset = page.next
        if page.up_to_date:
            return messages, offset


async def listening(crowd: Crowd, node: Node, room: str, offset: str, headers: str = "") -> Stream:
    raw = await crowd.connect(node)
    asked = f"GET /streams/chat/{room}?offset={offset}&live=sse HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"
    assert await raw.ask(asked.encode()) == 200, raw.head
    stream = Stream(raw)
    await until(lambda: stream.events, "the first event")
    return stream


def told(stream: Stream) -> list[object]:
    return [message for event in parsed(stream.body)[0] if event.type == "data" for message in event.data]


def control(stream: Stream) -> Event:
    return [event for event in stream.events if event.type == "control"][-1]


async def said(crowd: Crowd, node: Node, room: str, *messages: object) -> list[str]:
    """By a socket; their offsets."""
    ann = await crowd.join(node, room)
    for message in messages:
        await ann.say(message)
    await ann.hears(*messages)
    await ann.leave()
    return ["-".join(half.zfill(20) for half in id.split("-")) for id in ann.ids]


# ---- what there is ----


async def test_a_room_is_read_from_its_beginning_and_on_from_any_offset(shared_node: Node, crowd: Crowd) -> None:
    offsets = await said(crowd, shared_node, "same部屋", "やあ", {"deep": [1, None]}, 3)
    whole = await ask(crowd, shared_node, "same部屋")
    assert whole.messages == ["やあ", {"deep": [1, None]}, 3]
    assert whole.next == offsets[-1] and whole.up_to_date
    assert (await ask(crowd, shared_node, "same部屋", offset="-1")).body == whole.body
    for at, offset in enumerate(offsets):
        page = await ask(crowd, shared_node, "same部屋", offset=offset)
        assert page.messages == whole.messages[at + 1 :] and page.next == offsets[-1] and page.up_to_date
    now = await ask(crowd, shared_node, "same部屋", offset="now")
    assert now.messages == [] and now.next == offsets[-1] and now.up_to_date
    head = await ask(crowd, shared_node, "same部屋", "HEAD")
    assert (head.status, head.next, head.body) == (200, offsets[-1], b"")


async def test_a_room_in_which_nobody_spoke_is_there_and_empty(shared_node: Node, crowd: Crowd) -> None:
    """Rooms exist by being named."""
    for offset in ("-1", "now", BEGINNING, "0-0"):
        page = await ask(crowd, shared_node, "nobody", offset=offset)
        assert page.messages == [] and page.next == BEGINNING and page.up_to_date
    assert (await ask(crowd, shared_node, "nobody", "HEAD")).next == BEGINNING
    (offset,) = await said(crowd, shared_node, "nobody", "first")
    assert (await ask(crowd, shared_node, "nobody", offset=BEGINNING)).messages == ["first"]
    assert offset > BEGINNING


async def test_a_long_room_is_read_in_pages_that_sort(shared_node: Node, crowd: Crowd) -> None:
    """A page is bounded as a step of a walk is; one message that is longer comes alone."""
    words = [f"{n} " + "x" * size for n, size in enumerate([10] * 300 + [30_000, 60_000, 10, 20_000, 20_000])]
    await said(crowd, shared_node, "long", *words)
    for _ in range(2):  # from the tail; then, when the room was closed, from the log
        messages, end = await read_all(crowd, shared_node, "long")
        assert messages == words
        assert (await ask(crowd, shared_node, "long", "HEAD")).next == end
        await closed(shared_node)


async def closed(node: Node) -> None:
    async def no_rooms() -> bool:
        return await node.metric("hiroba_rooms") == 0

    await until(no_rooms, "rooms are closed, and their tails with them")


async def test_what_was_acknowledged_on_one_node_is_read_on_another(start_node: NodeFactory, crowd: Crowd) -> None:
    """At once: whoever is told an id by somebody may read it anywhere."""
    one, two = await start_node(), await start_node()
    ann = await crowd.join(one, "r")
    await ask(crowd, two, "r")  # the room is open there: its reader hears by a bell, some time later
    for n in range(20):
        await ann.say(n, ref=n)
        ack = await ann.answer(n)
        messages, end = await read_all(crowd, two, "r")
        assert messages == list(range(n + 1)), "read before the bell"
        assert end.endswith(ack["id"].partition("-")[2])


async def test_who_has_the_page_is_not_sent_it_again(shared_node: Node, crowd: Crowd) -> None:
    await said(crowd, shared_node, "etag", 1, 2)
    page = await ask(crowd, shared_node, "etag")
    same = await ask(crowd, shared_node, "etag", headers={"If-None-Match": f'"other", {page.headers["ETag"]}'})
    assert (same.status, same.body, same.next) == (304, b"", page.next)
    await said(crowd, shared_node, "etag", 3)
    grown = await ask(crowd, shared_node, "etag", headers={"If-None-Match": page.headers["ETag"]})
    assert grown.messages == [1, 2, 3]


# ---- what is gone ----


async def test_an_offset_whose_continuation_is_gone_is_answered_410(
    house: tuple[Broker, Node], shared_node: Node, crowd: Crowd
) -> None:
    """Trimmed away, flushed, or never there: not passed over in silence. From -1 one reads what is left."""
    broker, _ = house
    offsets = await said(crowd, shared_node, "trimmed", *range(6))
    async with broker.client() as redis:
        (key,) = [key async for key in redis.scan_iter(match="hiroba:*:log:trimmed", count=1000)]
        await closed(shared_node)
        await redis.xtrim(key, maxlen=2, approximate=False)
        for gone in (*offsets[:3], BEGINNING, "99999999999999-1", "1-1"):
            for live in ({}, {"live": "long-poll"}, {"live": "sse"}):
                answer = await ask(crowd, shared_node, "trimmed", offset=gone, **live)
                assert answer.status == 410, (gone, live, answer)
        assert (await ask(crowd, shared_node, "trimmed", offset=offsets[3])).messages == [4, 5], "nothing is missing"
        left = await ask(crowd, shared_node, "trimmed", offset="-1")
        assert left.messages == [4, 5] and "Stream-Lost" not in left.headers
        await redis.delete(key)
        assert (await ask(crowd, shared_node, "trimmed", offset=offsets[5])).status in (200, 410)
        await closed(shared_node)
        assert (await ask(crowd, shared_node, "trimmed", offset=offsets[5])).status == 410, "flushed"


async def test_a_hole_behind_an_offset_that_is_there_is_told_and_passed(
    house: tuple[Broker, Node], shared_node: Node, crowd: Crowd
) -> None:
    """To begin anew would not help: the hole stays."""
    broker, _ = house
    offsets = await said(crowd, shared_node, "hole", *range(6))
    await closed(shared_node)
    async with broker.client() as redis:
        (key,) = [key async for key in redis.scan_iter(match="hiroba:*:log:hole", count=1000)]
        for offset in offsets[2:4]:
            await redis.xdel(key, "-".join(str(int(half)) for half in offset.split("-")))
    first = await ask(crowd, shared_node, "hole", offset="-1")
    assert first.messages == [0, 1] and not first.up_to_date
    for live in ({}, {"live": "long-poll"}):
        page = await ask(crowd, shared_node, "hole", offset=first.next, **live)
        assert page.messages == [4, 5] and page.headers["Stream-Lost"] == "2"
    stream = await listening(crowd, shared_node, "hole", first.next)
    assert told(stream) == [4, 5] and b"\r\nStream-Lost: 2\r\n" in stream.raw.head
    stream = await listening(crowd, shared_node, "hole", offsets[0])
    await stream.raw.over
    assert told(stream) == [1], "it ends before the hole, and its reader comes back"
    assert control(stream).data["streamNextOffset"] == offsets[1]


# ---- waiting ----


async def test_a_long_poll_is_answered_as_soon_as_something_is_said(shared_node: Node, crowd: Crowd) -> None:
    ann = await crowd.join(shared_node, "poll")
    polls = [
        asyncio.create_task(ask(crowd, shared_node, "poll", offset=offset, live="long-poll"))
        for offset in ("now", "-1", BEGINNING)
    ]

    async def all_wait() -> bool:
        return await shared_node.metric("hiroba_wire_connections", wire="poll") == 3

    await until(all_wait, "they wait")
    assert await shared_node.metric("hiroba_connections") >= 4
    await ann.say("wake up")
    async with asyncio.timeout(2):  # half of ping_s: nobody waited it out
        answers = await asyncio.gather(*polls)
    for answer in answers:
        assert answer.messages == ["wake up"] and answer.up_to_date and answer.headers["Stream-Cursor"].isdigit()
    at_once = await ask(crowd, shared_node, "poll", offset="-1", live="long-poll")
    assert at_once.messages == ["wake up"]


@redis_only
async def test_a_long_poll_in_vain_is_answered_within_ping_s_and_counts_no_more(
    start_node: NodeFactory, crowd: Crowd
) -> None:
    node = await start_node(ping_s=0.5)
    answer = await ask(crowd, node, "r", offset="now", live="long-poll")
    assert (answer.status, answer.body, answer.next, answer.up_to_date) == (204, b"", BEGINNING, True)
    cursor = int(answer.headers["Stream-Cursor"])
    again = await ask(crowd, node, "r", offset=answer.next, live="long-poll", cursor=cursor)
    assert again.status == 204 and int(again.headers["Stream-Cursor"]) > cursor, "no cache answers for ever"
    assert await node.metric("hiroba_connections") == 0


@redis_only
@pytest.mark.denied
async def test_a_long_poll_that_the_broker_refuses_is_told_when_to_come_again(
    broker: Broker, start_node: NodeFactory, crowd: Crowd
) -> None:
    """What was said has to be read from the log, for the node keeps nothing of it; and there it may not."""
    node = await start_node(tail_bytes_max=1)
    ann = await crowd.join(node, "r")
    poll = asyncio.create_task(ask(crowd, node, "r", offset="now", live="long-poll"))

    async def waits() -> bool:
        return await node.metric("hiroba_wire_connections", wire="poll") == 1

    await until(waits, "it waits")
    async with broker.client() as redis:
        await redis.execute_command("ACL", "SETUSER", "gateway", "-xrange")
        await ann.say("hi")
        answer = await poll
        assert (answer.status, answer.headers["Retry-After"]) == (503, "2"), answer
        await redis.execute_command("ACL", "SETUSER", "gateway", "+xrange")
    assert (await ask(crowd, node, "r", offset="-1")).messages == ["hi"]


@redis_only
async def test_who_polls_takes_a_connection_s_place_and_gives_it_back_when_gone(
    start_node: NodeFactory, crowd: Crowd
) -> None:
    node = await start_node(connections_max=2, ping_s=60)
    raws = [await crowd.connect(node) for _ in range(2)]
    for raw in raws:
        raw.write(b"GET /streams/chat/r?offset=now&live=long-poll HTTP/1.1\r\nHost: localhost\r\n\r\n")

    async def full() -> bool:
        return await node.metric("hiroba_wire_connections", wire="poll") == 2

    await until(full, "both wait")
    refused = await ask(crowd, node, "r", offset="now", live="long-poll")
    assert (refused.status, refused.headers["Retry-After"]) == (503, "2")
    assert (await node.get("/healthz"))[0] == 200
    for raw in raws:
        raw.reset()

    async def empty() -> bool:
        return await node.metric("hiroba_connections") == 0

    await until(empty, "their places are free, long before ping_s is over")


# ---- the event stream ----


async def test_an_event_stream_tells_what_there_is_and_what_follows(shared_node: Node, crowd: Crowd) -> None:
    """And behind everything how far the reader has come, to come back from there."""
    (offset,) = await said(crowd, shared_node, "events", "before")
    ann = await crowd.join(shared_node, "events")
    streams = [await listening(crowd, shared_node, "events", start) for start in ("-1", "now", offset)]
    for stream in streams:
        assert control(stream).data["upToDate"] is True and control(stream).data["streamNextOffset"] == offset
    await ann.send('{"type":"message","message":{"a":\r\n\r\n1}}')
    await ann.say("after")
    for stream, seen in zip(streams, (["before"], [], []), strict=True):
        await until(lambda stream=stream, seen=seen: told(stream) == [*seen, {"a": 1}, "after"], "all of it")
        await until(lambda stream=stream: stream.events[-1].type == "control", "how far it came")
        assert control(stream).data["upToDate"] is True
        again = await listening(crowd, shared_node, "events", control(stream).data["streamNextOffset"])
        assert told(again) == []
    for field in ("Content-Type: text/event-stream", "X-Content-Type-Options: nosniff", "X-Accel-Buffering: no"):
        assert f"\r\n{field}\r\n" in stream.raw.head.decode()


async def test_a_reader_from_the_beginning_catches_up_and_is_told_when(shared_node: Node, crowd: Crowd) -> None:
    """Pages, then the walk, then live: each message once, in order; only who has all is told so."""
    words = [f"{n} " + "x" * 300 for n in range(600)]
    await said(crowd, shared_node, "walked", *words)
    ann = await crowd.join(shared_node, "walked")
    stream = await listening(crowd, shared_node, "walked", "-1")
    await until(lambda: len(told(stream)) >= 600 and control(stream).data.get("upToDate"), "it caught up", every_s=0.1)
    assert told(stream) == words
    assert sum(bool(event.data.get("upToDate")) for event in stream.events if event.type == "control") == 1
    await ann.say("live")
    await until(lambda: told(stream)[-1] == "live", "live", every_s=0.1)


@redis_only
async def test_a_drain_answers_who_waits_and_ends_who_listens_and_nothing_is_lost(
    start_node: NodeFactory, crowd: Crowd
) -> None:
    node, other = await start_node(lb_wait_s=0, drain_s=0.2, ping_s=60), await start_node()
    ann = await crowd.join(other, "r")
    stream = await listening(crowd, node, "r", "now")
    poll = asyncio.create_task(ask(crowd, node, "r", offset="now", live="long-poll"))

    async def waits() -> bool:
        return await node.metric("hiroba_wire_connections", wire="poll") == 1

    await until(waits, "it waits")
    node.process.signal(signal.SIGTERM)
    async with asyncio.timeout(20):
        waited = await poll
        await stream.raw.over
    assert waited.status == 204 and waited.headers["Connection"] == "close"
    await ann.say("meanwhile")
    for offset in (waited.next, control(stream).data["streamNextOffset"]):
        assert (await ask(crowd, other, "r", offset=offset, live="long-poll")).messages == ["meanwhile"]
    assert await node.process.ended() == 0


# ---- who may come, and what is no request ----


async def test_what_can_t_be_read_is_refused_with_the_reason(shared_node: Node, crowd: Crowd) -> None:
    async def refusal(status: int, reason: str, method: str = "GET", **asked: Any) -> None:
        room = asked.pop("room", "r")
        before = await shared_node.metric("hiroba_handshakes_refused_total", reason=reason)
        answer = await ask(crowd, shared_node, room, method, **asked)
        assert answer.status == status, (asked, answer)
        assert await shared_node.metric("hiroba_handshakes_refused_total", reason=reason) == before + 1
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"

    for offset in ("", "0,1", "1", "1-1-1", "-2", "NOW", "1-", "\u0661-1", f"{2**64}-1", "1" * 99 + "-1", "0 1"):
        await refusal(400, "offset", offset=offset)
    await refusal(400, "offset", live="long-poll")
    await refusal(400, "offset", offset="-1", live="websocket")
    await refusal(404, "room_name", room="no room")
    await refusal(404, "room_name", room="a/b")
    await refusal(405, "method", "DELETE")
    await refusal(400, "body", body=b"x")
    await refusal(403, "origin", headers={"Origin": "https://evil.example"})


async def test_a_page_of_another_origin_reads_if_it_may(shared_node: Node, crowd: Crowd) -> None:
    origin = {"Origin": "https://other.example"}
    stream = await listening(crowd, shared_node, "cors", "now", "Origin: https://other.example\r\n")
    assert b"\r\nAccess-Control-Allow-Origin: https://other.example\r\n" in stream.raw.head
    for method in ("GET", "HEAD", "OPTIONS"):
        answer = await ask(crowd, shared_node, "cors", method, headers=origin)
        assert answer.headers["Access-Control-Allow-Origin"] == "https://other.example"
        assert "Stream-Next-Offset" in answer.headers["Access-Control-Expose-Headers"]
    preflight = await ask(crowd, shared_node, "cors", "OPTIONS", headers=origin)
    assert "If-None-Match" in preflight.headers["Access-Control-Allow-Headers"]
    assert "Access-Control-Allow-Origin" not in (await ask(crowd, shared_node, "cors")).headers
