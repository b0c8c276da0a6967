"""A room as an event stream: what v1 tells, to who only listens; resumed, bounded, sent away like a socket."""

import asyncio
import json
import signal
import subprocess

import pytest

from deploy.pages import typed
from tests.conftest import NodeFactory
from tests.node.conftest import redis_only
from tests.support.broker import Broker
from tests.support.client import Crowd
from tests.support.events import Stream, listen, parsed, request, resuming
from tests.support.node import Node
from tests.support.raw import handshake
from tests.support.until import until

SETTINGS = {"linger_s": 0.1, "messages_per_s": 0, "allowed_origins": "https://other.example"}


async def hears(stream: Stream, *messages: object) -> None:
    """Exactly these, in this order."""
    await until(lambda: len(stream.messages) >= len(messages), f"{len(messages)} messages")
    assert stream.messages == list(messages)


def streams_line(node: Node, room: str, step: str = "DISCONNECT") -> list[dict[str, object]]:
    lines = [json.loads(line) for line in node.lines()]
    return [line for line in lines if line.get("step") == step and f"/sse/chat/{room}/" in line["path"]]


# ---- what is told ----


async def test_the_readme_s_command_hears_the_room(shared_node: Node, crowd: Crowd) -> None:
    """By curl, without buffering: each message as it is said."""
    command = typed("README.md", "curl -N").replace("127.0.0.1:8000", f"127.0.0.1:{shared_node.port}")
    ann = await crowd.join(shared_node, "lobby")
    curl = await asyncio.create_subprocess_exec(*command.split(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert curl.stdout is not None
    try:
        async with asyncio.timeout(20):
            await curl.stdout.readuntil(b"\n\n")
            await ann.say("typed by hand")
            await curl.stdout.readuntil(b"typed by hand")
    finally:
        curl.terminate()
        await curl.wait()


async def test_a_stream_tells_what_v1_tells(shared_node: Node, crowd: Crowd) -> None:
    ann = await crowd.join(shared_node, "same部屋")
    stream = await listen(crowd, shared_node, "same部屋")
    head = stream.raw.head.decode()
    for field in ("Content-Type: text/event-stream", "Cache-Control: no-store", "X-Accel-Buffering: no"):
        assert f"\r\n{field}\r\n" in head
    assert "Transfer-Encoding" not in head, "HAProxy holds small chunks back for up to 0.2 s"
    await ann.say("やあ")
    await ann.say({"deep": [1, None]})
    await hears(stream, "やあ", {"deep": [1, None]})
    await ann.until(lambda: len(ann.messages) == 2, "its own")
    welcome, *messages = stream.events
    assert welcome.type == "welcome" and welcome.id == "0-0" and 1_000 <= (stream.retry or 0) <= 5_000
    assert welcome.data == (await ann.welcome()) | {"session": welcome.data["session"]}
    assert [event.data for event in messages] == ann.of_type("message")
    assert [event.id for event in messages] == ann.ids


async def test_line_breaks_in_a_client_s_json_break_no_event(shared_node: Node, crowd: Crowd) -> None:
    """It is handed on byte for byte. A line that began with `id:` or nothing would be the client's own event."""
    ann = await crowd.join(shared_node, "breaks")
    stream = await listen(crowd, shared_node, "breaks")
    for written in (
        '{"type":"message","message":{"a":\r\n1,\n\n"b":\r2\r\n\r\n}}',
        '{"type":"message","message":["\\n\\nid: 1-1\\n", "\u2028\u2029\x85",\n\n"id: 1-1"\n\n]}',
        '{"type":"message","message":\n\n\n0\r}',
    ):
        await ann.send(written)
    await hears(stream, {"a": 1, "b": 2}, ["\n\nid: 1-1\n", "\u2028\u2029\x85", "id: 1-1"], 0)
    await ann.until(lambda: len(ann.messages) == 3, "its own")
    assert [event.id for event in stream.of_type("message")] == ann.ids


async def test_sockets_and_streams_of_a_room_hear_the_same(shared_node: Node, crowd: Crowd) -> None:
    """Live or walked, each message once and in the order of the log."""
    ann, plain = await crowd.join(shared_node, "mixed"), await crowd.join(shared_node, "mixed", "plain")
    live = [await listen(crowd, shared_node, "mixed") for _ in range(20)]
    for n in range(150):
        await ann.say(n)
    late = [await listen(crowd, shared_node, "mixed", history=1000) for _ in range(20)]
    for n in range(150, 200):
        await ann.say(n)
    await plain.hears(*range(200))
    for stream in live + late:
        await hears(stream, *range(200))


# ---- coming back ----


async def test_last_event_id_resumes_and_wins_over_the_url(shared_node: Node, crowd: Crowd) -> None:
    """An EventSource that comes back repeats its URL."""
    ann = await crowd.join(shared_node, "resume")
    for n in range(9):
        await ann.say(n)
    await ann.hears(*range(9))
    stream = await listen(crowd, shared_node, "resume", headers=resuming(ann.ids[5]), after=ann.ids[1], history=3)
    await hears(stream, 6, 7, 8)
    assert stream.events[0].data["recovered"] is True and stream.events[0].id == ann.ids[5]
    await hears(await listen(crowd, shared_node, "resume", after=ann.ids[6], history=1), 7, 8)
    await hears(await listen(crowd, shared_node, "resume", headers=resuming(""), history=2), 7, 8)
    for bad in ("nonsense", "9999999999999-99", "1-", "\u00e9"):
        stream = await listen(crowd, shared_node, "resume", headers=resuming(bad), history=2)
        assert stream.events[0].data["recovered"] is False, bad
        await hears(stream, 7, 8)


async def test_who_was_cut_off_before_the_first_message_resumes_from_the_welcome(
    shared_node: Node, crowd: Crowd
) -> None:
    """In an empty room, and where history was asked for: its URL alone would skip what was said meanwhile."""
    ann = await crowd.join(shared_node, "early")
    empty = (await listen(crowd, shared_node, "early")).events[0].id
    for n in range(5):
        await ann.say(n)
    await ann.hears(*range(5))
    begun = (await listen(crowd, shared_node, "early", history=3)).events[0]
    assert begun.data["last_id"] == ann.ids[4]
    await ann.say(5)
    await ann.hears(*range(6))
    await hears(await listen(crowd, shared_node, "early", headers=resuming(empty), history=1), *range(6))
    await hears(await listen(crowd, shared_node, "early", headers=resuming(begun.id), history=1), 2, 3, 4, 5)


async def test_what_the_log_lost_is_an_event(house: tuple[Broker, Node], shared_node: Node, crowd: Crowd) -> None:
    broker, _ = house
    ann = await crowd.join(shared_node, "hole")
    for n in range(6):
        await ann.say(n)
    await ann.hears(*range(6))
    await ann.leave()
    async with broker.client() as redis:
        (key,) = [key async for key in redis.scan_iter(match="hiroba:*:log:hole", count=1000)]

        async def closed() -> bool:
            return not list(await redis.xinfo_groups(key))

        await until(closed, "the room is closed, and its tail with it")
        await redis.xdel(key, ann.ids[2], ann.ids[3])
    stream = await listen(crowd, shared_node, "hole", headers=resuming(ann.ids[0]))
    await hears(stream, 1, 4, 5)
    (gap,) = stream.of_type("gap")
    assert gap.data == {"type": "gap", "room": "hole", "after": ann.ids[1], "before": ann.ids[4], "lost": 2}
    assert gap.id == ann.ids[1], "the gap is told again to who is cut off before it saw what follows"


@redis_only
async def test_nothing_is_lost_over_a_kill(start_node: NodeFactory, crowd: Crowd) -> None:
    one, two = await start_node(), await start_node()
    ann = await crowd.join(two, "r")
    streams = [await listen(crowd, one, "r") for _ in range(10)]
    for n in range(10):
        await ann.say(n)
    await hears(streams[0], *range(10))
    await one.kill()
    for n in range(10, 20):
        await ann.say(n)
    for stream in streams:
        await stream.raw.over
        last = stream.events[-1].id
        again = await listen(crowd, two, "r", headers=resuming(last))
        await until(lambda again=again, stream=stream: len(stream.messages + again.messages) >= 20, "the rest")
        assert stream.messages + again.messages == list(range(20))


# ---- who may come, and what the others are told ----


async def test_refusals_have_the_reasons_of_a_handshake(shared_node: Node, crowd: Crowd) -> None:
    for asked, status, reason in (
        (request("no room"), 404, "room_name"),
        (request("r").replace(b"/sse/chat/r/", b"/sse/chat/"), 404, "path"),
        (request("r", history="many"), 400, "history"),
        (request("r", headers="Origin: https://evil.example\r\n"), 403, "origin"),
        (request("r", headers="Origin: http://[\r\n"), 400, "bad_origin"),
        (request("r", headers="Content-Length: 2\r\n") + b"{}", 400, "body"),
        (request("r", method="POST"), 405, "method"),
    ):
        before = await shared_node.metric("hiroba_handshakes_refused_total", reason=reason)
        raw = await crowd.connect(shared_node)
        assert await raw.ask(asked) == status, reason
        assert await shared_node.metric("hiroba_handshakes_refused_total", reason=reason) == before + 1
        (*_, line) = [json.loads(line) for line in shared_node.lines() if '"REJECT"' in line]
        assert (line["event"], line["reason"], line["status"]) == ("sse", reason, status)


async def test_a_page_of_another_origin_reads_the_stream_if_it_may(shared_node: Node, crowd: Crowd) -> None:
    origin = "Origin: https://other.example\r\n"
    stream = await listen(crowd, shared_node, "cors", headers=origin)
    for head in (
        stream.raw.head,
        await answered(shared_node, crowd, request("no room", headers=origin), 404),
        await answered(shared_node, crowd, request("r", method="HEAD", headers=origin), 200),
        await answered(shared_node, crowd, request("r", method="OPTIONS", headers=origin), 204),
    ):
        assert b"\r\nAccess-Control-Allow-Origin: https://other.example\r\n" in head
        assert b"\r\nAccess-Control-Allow-Credentials: true\r\n" in head
        assert b"\r\nVary: Origin\r\n" in head
    assert b"\r\nAccess-Control-Allow-Headers: Last-Event-ID" in head
    evil = await answered(shared_node, crowd, request("r", headers="Origin: https://evil.example\r\n"), 403)
    own = await answered(shared_node, crowd, request("r"), 200)
    assert b"Access-Control" not in evil + own and b"\r\nVary: Origin\r\n" in own


async def answered(node: Node, crowd: Crowd, asked: bytes, status: int) -> bytes:
    raw = await crowd.connect(node)
    assert await raw.ask(asked) == status
    return raw.head


async def test_head_says_how_a_stream_begins_and_joins_nothing(shared_node: Node, crowd: Crowd) -> None:
    before = await shared_node.metric("hiroba_connections")
    raw = await crowd.connect(shared_node)
    assert await raw.ask(request("head", method="HEAD")) == 200
    assert b"text/event-stream" in raw.head and b"Content-Length" not in raw.head
    await raw.over
    assert not raw.data
    assert await shared_node.metric("hiroba_connections") == before


@redis_only
async def test_an_event_source_that_can_t_come_in_at_present_comes_back(start_node: NodeFactory, crowd: Crowd) -> None:
    """A 503 would end it for ever. A proxy gets the 503: it has other nodes."""
    node = await start_node(connections_max=2)
    members = [await listen(crowd, node, "r"), await crowd.member(node, "r")]
    assert len(members) == await node.metric("hiroba_connections") == await node.metric("hiroba_connections_max")
    full = await listen(crowd, node, "r")
    await full.raw.over
    (refused,) = full.events
    assert (refused.type, refused.data["reason"], refused.id) == ("refused", "connections", "")
    assert 2_000 <= (full.retry or 0) <= 5_000
    for proxy in ("X-Forwarded-For: 192.0.2.1\r\n", "Forwarded: for=192.0.2.1\r\n", "Via: 1.1 cache\r\n"):
        raw = await crowd.connect(node)
        assert await raw.ask(request("r", headers=proxy)) == 503
        assert b"\r\nRetry-After: 2\r\n" in raw.head
    raw = await crowd.connect(node)
    assert await raw.ask(request("r").replace(b"text/event-stream", b"*/*")) == 503, "curl is told the status"
    raw = await crowd.connect(node)
    assert await raw.ask(handshake("r")) == 503
    assert await node.metric("hiroba_handshakes_refused_total", reason="connections") == 6
    members[0].raw.transport.close()  # type: ignore[union-attr]

    async def a_place() -> bool:
        return await node.metric("hiroba_connections") == 1

    await until(a_place, "there is a place")
    assert (await listen(crowd, node, "r")).events[0].type == "welcome"


# ---- how it is looked after, and how it ends ----


@redis_only
async def test_a_quiet_stream_hears_a_comment_and_is_never_dead_for_its_silence(
    start_node: NodeFactory, crowd: Crowd
) -> None:
    """Nothing ever comes from a browser. Between, somebody cuts what is quiet for 30 s."""
    node = await start_node(ping_s=0.5)
    stream = await listen(crowd, node, "r")
    await until(lambda: stream.comments >= 5, "comments", every_s=0.05)
    assert not stream.raw.over.done()
    assert await node.metric("hiroba_pings_sent_total") >= 5
    assert await node.metric("hiroba_closes_total", reason="dead") == 0


@redis_only
async def test_a_stream_that_is_not_read_falls_behind_alone_and_catches_up(
    start_node: NodeFactory, crowd: Crowd
) -> None:
    node = await start_node(messages_per_s=0, stall_s=60)
    speaker = await crowd.join(node, "r")
    raw = await crowd.connect(node, receive_bytes=4096)
    assert await raw.ask(request("r")) == 200
    raw.transport.pause_reading()
    for n in range(60):
        await speaker.say(f"{n} " + "x" * 60_000)
        await speaker.until(lambda n=n: len(speaker.messages) > n, "the room goes on")

    async def behind() -> bool:
        return await node.metric("hiroba_sessions_behind") == 1

    await until(behind, "it is behind")
    raw.transport.resume_reading()
    stream = Stream(raw)
    await until(lambda: raw.data.count(b"\n\n") >= 61, "all of it", every_s=0.1)
    assert [int(message.partition(" ")[0]) for message in stream.messages] == list(range(60))
    await speaker.say("live again")
    await until(lambda: stream.messages[-1] == "live again", "live again", every_s=0.1)
    assert await node.metric("hiroba_sessions_live") == 2


@redis_only
async def test_who_never_reads_is_ended_and_its_line_says_why(start_node: NodeFactory, crowd: Crowd) -> None:
    node = await start_node(messages_per_s=0, stall_s=1, close_s=0.5)
    speaker = await crowd.join(node, "r")
    raw = await crowd.connect(node, receive_bytes=4096)
    assert await raw.ask(request("r")) == 200
    raw.transport.pause_reading()
    for n in range(60):
        await speaker.say("x" * 60_000)
        await speaker.until(lambda n=n: len(speaker.messages) > n, "the room goes on")
    (line,) = await until(lambda: streams_line(node, "r"), "its line")
    # Both judge the same: whether bytes were taken. The kernel counts from the last one acknowledged.
    assert line["reason"] in ("slow", "dead")
    assert await node.metric("hiroba_connections") == 1


async def test_how_it_ended_is_counted_and_said(shared_node: Node, crowd: Crowd) -> None:
    stream, lost = await listen(crowd, shared_node, "ends"), await listen(crowd, shared_node, "ends")
    assert await shared_node.metric("hiroba_wire_connections", wire="sse") >= 2
    ann = await crowd.join(shared_node, "ends")
    await ann.say("hello")
    await hears(stream, "hello")
    await hears(lost, "hello")
    stream.raw.transport.close()
    await until(lambda: streams_line(shared_node, "ends"), "a line")
    lost.raw.reset()
    closed, broken = await until(
        lambda: len(streams_line(shared_node, "ends")) == 2 and streams_line(shared_node, "ends"), "both lines"
    )
    assert (closed["reason"], broken["reason"]) == ("client", "lost")
    assert closed["wire"] == "sse" and closed["room"] == "ends" and closed["frames_out"] == 1
    event = bytes(stream.raw.data).partition(b"\n\n")[2]
    assert closed["bytes_out"] == len(event)


async def test_a_stream_takes_over_a_connection_that_asked_before_and_is_told_nothing_behind_it(
    shared_node: Node, crowd: Crowd
) -> None:
    """A browser's connection is kept alive and used again. What comes behind the request is never answered."""
    raw = await crowd.connect(shared_node)
    assert await raw.ask(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n") == 200
    await until(lambda: bytes(raw.data) == b"ok\n", "the answer")
    raw.data.clear()
    raw.write(request("again") + request("other"))
    await until(lambda: b"event: welcome" in raw.data, "the stream")
    raw.write(request("third"))
    ann = await crowd.join(shared_node, "again")
    await ann.say("one")
    await until(lambda: raw.data.endswith(b"\n\n") and b'"one"' in raw.data, "the message")
    events, _, _ = parsed(raw.data.partition(b"\r\n\r\n")[2])
    assert [event.data["room"] for event in events] == ["again"] * 2


@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/1.1"])
async def test_a_stream_needs_no_newer_http_than_nginx_speaks_by_default(
    shared_node: Node, crowd: Crowd, version: bytes
) -> None:
    raw = await crowd.connect(shared_node)
    assert await raw.ask(request("old").replace(b"HTTP/1.1", version)) == 200
    await until(lambda: Stream(raw).events, "the welcome")


@redis_only
async def test_a_drain_sends_streams_away_with_a_time_to_come_back_and_nothing_is_lost(
    start_node: NodeFactory, crowd: Crowd
) -> None:
    node, other = await start_node(lb_wait_s=0, drain_s=0.5), await start_node()
    ann = await crowd.join(other, "r")
    streams = [await listen(crowd, node, "r") for _ in range(20)]
    await ann.say("before")
    for stream in streams:
        await hears(stream, "before")
    node.process.signal(signal.SIGTERM)
    for n in range(20):
        await ann.say(n)
    for stream in streams:
        await stream.raw.over
        last = stream.events[-1]
        assert last.type == "reconnect"
        assert stream.retry == round(last.data["after_s"] * 1000) <= 2_000
        again = await listen(crowd, other, "r", headers=resuming(last.id))
        await until(lambda again=again, stream=stream: len(stream.messages + again.messages) > 20, "the rest")
        assert stream.messages + again.messages == ["before", *range(20)]
    assert len({stream.retry for stream in streams}) > 10, "spread"
    assert await node.process.ended() == 0
    assert [line["reason"] for line in streams_line(node, "r")] == ["drain"] * 20


@redis_only
async def test_who_comes_while_a_node_drains_is_told_to_come_back(start_node: NodeFactory, crowd: Crowd) -> None:
    node = await start_node(lb_wait_s=0, drain_s=3)
    members = [await crowd.join(node, "r") for _ in range(3)]
    node.process.signal(signal.SIGTERM)
    await members[0].until(lambda: any(member.close_code for member in members), "the drain has begun")
    late = await listen(crowd, node, "r")
    await late.raw.over
    assert [(event.type, event.data["reason"]) for event in late.events] == [("refused", "draining")]
    assert await node.process.ended() == 0
