"""What bad input gets: a reason in words, and nobody else notices."""

import asyncio
import json

import aiohttp
import pytest

from tests.support.client import Crowd
from tests.support.node import Node
from tests.support.raw import BINARY, CLOSE, PING, PONG, frame, frames_in, handshake
from tests.support.until import until

SETTINGS = {"close_s": 1, "linger_s": 0.1}

BAD_JSON = [
    ("{", "truncated"),
    ("", "truncated"),
    ("not json", "malformed"),
    ("[]", "Expected `object`, got `array`"),
    ('"text"', "Expected `object`, got `str`"),
    ("null", "Expected `object`, got `null`"),
    ("{}", "missing required field"),
    ('{"message": }', "malformed"),
    ('{"message": 1} 2', "malformed"),
    ('{"message": NaN}', "malformed"),
    (r'{"message": "\ud800"}', "half of a surrogate pair"),
    ('{"message": ' + "[" * 30_000, "deep"),
]


@pytest.fixture
def node(shared_node: Node) -> Node:
    return shared_node


async def test_plain_that_is_no_message_closes_1007_with_the_reason_in_words(node: Node, crowd: Crowd) -> None:
    witness = await crowd.join(node, "r", "plain")
    before = await node.metric("hiroba_closes_total", reason="bad_data")
    for text, words in BAD_JSON:
        client = await crowd.join(node, "r", "plain")
        await client.send(text)
        code, reason = await client.closed()
        assert code == 1007, text[:40]
        assert words in (reason or ""), text[:40]
        assert client.heard == []
    await witness.say("still here")
    await witness.hears("still here")
    assert await node.metric("hiroba_closes_total", reason="bad_data") - before == len(BAD_JSON)


async def test_v1_that_is_no_message_gets_an_error_and_stays(node: Node, crowd: Crowd) -> None:
    client = await crowd.join(node, "r")
    for text, words in BAD_JSON[:-6]:
        if text in ("{}",):
            continue
        await client.send(text)
        await client.until(lambda: len(client.heard) > 1, "an error")
        error = client.heard.pop()
        assert (error["type"], error["code"], error["ref"]) == ("error", "bad_json", None)
        assert words in error["text"], text
    await client.say("fine", ref=1)
    await client.hears("fine")


@pytest.mark.parametrize(
    ("said", "ref"),
    [
        ({"message": 1, "ref": 7}, None),
        ({"type": "message", "ref": "r"}, "r"),
        ({"type": "dance", "ref": 7}, 7),
        ({"type": "message", "message": 1, "ref": "x" * 65}, None),
        ({"type": "message", "message": 1, "ref": 10**64}, None),
        ({"type": "message", "message": 1, "ref": 1.5}, None),
        ({"type": "message", "message": 1, "ref": {"a": 1}}, None),
        ({"type": 5, "message": 1}, None),
    ],
)
async def test_v1_errors_carry_the_ref_where_it_is_legible(
    node: Node, crowd: Crowd, said: dict[str, object], ref: object
) -> None:
    client = await crowd.join(node, "r")
    await client.send(json.dumps(said))
    await client.until(lambda: client.of_type("error"), "an error")
    error = client.of_type("error")[0]
    assert (error["code"], error["ref"]) == ("bad_json", ref)
    assert error["text"]
    await client.say("fine")
    await client.hears("fine")


async def test_binary_closes_1003(node: Node, crowd: Crowd) -> None:
    for wire in ("plain", "v1"):
        client = await crowd.join(node, "r", wire)  # type: ignore[arg-type]
        await client.ws.send_bytes(b'{"message": 1}')
        assert await client.closed() == (1003, "text frames only")


async def test_too_long_is_refused_by_its_head_before_it_is_sent(node: Node, crowd: Crowd) -> None:
    """1009 comes although not one byte of the payload was sent: nothing waits for what will be thrown away."""
    client = await crowd.member(node, "r")
    client.write(frame(b"", length=65_537))
    assert await client.closed() == (1009, "message too long: message_bytes_max")
    longest = await crowd.member(node, "r")
    longest.write(frame(b'{"message":"%b"}' % (b"x" * (65_536 - 14))))
    await until(longest.payloads, "the longest message that may be")


async def test_too_long_in_pieces_is_refused_as_well(node: Node, crowd: Crowd) -> None:
    client = await crowd.member(node, "r")
    client.write(frame(b"x" * 60_000, fin=False) + frame(b"x" * 60_000, opcode=0, fin=False))
    assert await client.closed() == (1009, "message too long: message_bytes_max")


async def test_who_is_still_sending_what_is_too_long_receives_the_close_frame(node: Node, crowd: Crowd) -> None:
    """A reset at once would destroy the close frame on its way; the node's memory does not grow meanwhile."""
    client = await crowd.connect(node, receive_bytes=4096)
    await client.enter("r")
    before = await node.metric("hiroba_process_resident_bytes")
    client.write(frame(b"x" * 50_000_000))
    assert await client.closed() == (1009, "message too long: message_bytes_max")
    await until(client.over.done, "the connection is over within close_s", within_s=10)
    assert await node.metric("hiroba_process_resident_bytes") - before < 20_000_000


async def test_garbage_in_place_of_frames_closes_1002_and_harms_nobody(node: Node, crowd: Crowd) -> None:
    witness = await crowd.join(node, "r")
    rude = [
        b"\xff" * 100,  # reserved bits
        b"\x83\x80\0\0\0\0",  # unknown opcode
        frame(b"x" * 126, opcode=PING),  # a control frame too long
        frame(b"x", opcode=PING, fin=False),  # a control frame in pieces
        frame(b"x", opcode=0),  # a continuation of nothing
        frame(b"a", fin=False) + frame(b"b"),  # a new message inside one
        b"\x81\x05hello",  # not masked (§5.1)
        b"GET / HTTP/1.1\r\n\r\n",
    ]
    for data in rude:
        client = await crowd.member(node, "r")
        client.write(data)
        close = await client.closed()
        assert close is not None, data[:20]
        assert close[0] == 1002, data[:20]
    await witness.say("still here")
    await witness.hears("still here")


async def test_text_that_is_not_utf8_closes_1007(node: Node, crowd: Crowd) -> None:
    client = await crowd.member(node, "r")
    client.write(frame(b'{"message":"\xff\xfe"}'))
    close = await client.closed()
    assert close is not None
    assert close[0] == 1007


async def test_unmasked_frames_and_resets_harm_nobody(node: Node, crowd: Crowd) -> None:
    witness = await crowd.join(node, "r")
    for data in (b"\x81\x05hello", frame(b'{"message":', fin=False), frame(b"{", length=100), b"\x81"):
        client = await crowd.member(node, "r")
        client.write(data)
        client.reset()
    for _ in range(20):  # RST in the middle of a broadcast
        client = await crowd.member(node, "r")
        await witness.say("x")
        client.reset()
    await witness.until(lambda: len(witness.messages) == 20, "all of its own messages")
    await until(lambda: alone(node), "the others are gone")


async def alone(node: Node) -> bool:
    return await node.metric("hiroba_connections") == 1


async def test_half_handshakes_and_other_protocols_harm_nobody(node: Node, crowd: Crowd) -> None:
    witness = await crowd.join(node, "r")
    whole = handshake("r")
    half = [await crowd.connect(node) for _ in range(50)]
    for n, client in enumerate(half):
        client.write(whole[: n * len(whole) // 50])
    garbage = [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\0" * 1000, b"SSH-2.0-x\r\n\r\n", b"\r\n" * 100]
    for data in garbage:
        client = await crowd.connect(node)
        client.write(data)
        half.append(client)
    huge = await crowd.connect(node)
    assert await huge.ask(b"GET /ws/chat/r/ HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 100_000 + b"\r\n\r\n") == 431
    await witness.say("still here")
    await witness.hears("still here")
    for client in half:
        client.reset()
    assert (await node.get("/healthz"))[0] == 200
    assert not [line for line in node.lines() if "Traceback" in line or '"level": "error"' in line]


async def test_pings_are_answered_with_their_payload(node: Node, crowd: Crowd) -> None:
    client = await crowd.member(node, "r")
    for number, payload in enumerate((b"are you there?", b"")):
        client.write(frame(payload, opcode=PING))
        await until(lambda number=number: len(list(frames_in(client.data))) > number, "a pong")
    assert list(frames_in(client.data)) == [(PONG, b"are you there?"), (PONG, b"")]


async def test_a_close_frame_is_answered_with_its_own_code(node: Node, crowd: Crowd) -> None:
    """RFC 6455 §5.5.1, §7.4.2: an application's own codes (4000 to 4999) come back to it, and its reason."""
    for payload, answer in [
        (b"\x0f\xa0enough", (4000, "enough")),
        (b"\x13\x87", (4999, "")),
        (b"\x0b\xb8", (3000, "")),
        (b"\x03\xe9", (1001, "")),
        (b"", (1000, "the client closed")),
    ]:
        client = await crowd.member(node, "r")
        client.write(frame(payload, opcode=CLOSE))
        assert await client.closed() == answer
        await until(client.over.done, "the server closes first", within_s=20)


async def test_a_close_code_that_may_not_be_sent_is_a_protocol_error(node: Node, crowd: Crowd) -> None:
    """§7.4.1: 1005, 1006 and 1015 say that no close frame came; 5000 and above mean nothing."""
    for code in (999, 1004, 1005, 1006, 1015, 2999, 5000):
        client = await crowd.member(node, "r")
        client.write(frame(code.to_bytes(2), opcode=CLOSE))
        close = await client.closed()
        assert close is not None and close[0] == 1002, code


async def test_broken_deflate_data_closes_1007_in_one_line(node: Node, crowd: Crowd) -> None:
    """It was our bug: a traceback that any stranger could order, close 1011, alarms."""
    before = await node.metric("hiroba_closes_total", reason="bad_data")
    bug = await node.metric("hiroba_closes_total", reason="error")
    client = await crowd.connect(node)
    assert await client.ask(handshake("deflate", headers="Sec-WebSocket-Extensions: permessage-deflate\r\n")) == 101
    broken = frame(b"this is no deflate data")
    client.write(bytes((broken[0] | 0x40,)) + broken[1:])
    assert await client.closed() == (1007, "deflate data that is broken")
    client.transport.close()

    def lines() -> list[str]:
        return [line for line in node.lines() if "/ws/chat/deflate/" in line]

    await until(lines, "its line")
    assert len(lines()) == 1
    assert json.loads(lines()[0])["reason"] == "bad_data" and json.loads(lines()[0])["level"] == "info"
    assert not [line for line in node.lines() if "Traceback" in line]
    assert await node.metric("hiroba_closes_total", reason="bad_data") == before + 1
    assert await node.metric("hiroba_closes_total", reason="error") == bug


async def test_who_speaks_at_length_before_the_101_is_refused(node: Node, crowd: Crowd) -> None:
    """RFC 6455 §4.1: a client waits for the answer. What comes in the same read may be a message, and no flood."""
    client = await crowd.connect(node)
    assert await client.ask(handshake("early") + frame(b'{"message":"too early, but well"}')) == 101
    await until(client.payloads, "its message")
    flooder = await crowd.connect(node)
    assert await flooder.ask(handshake("early") + frame(b"", PING) * 10_000) == 101
    close = await flooder.closed()
    assert close is not None and close[0] in (1002, 1008)


async def test_an_unknown_path_or_an_impossible_room_is_404(node: Node, crowd: Crowd) -> None:
    paths = ["/ws/chat/a%20b/", "/ws/chat/a!b/", f"/ws/chat/{'x' * 101}/", "/ws/chat//", "/ws/chat/r", "/api/"]
    paths += [
        "/sse/chat/a/b/",
        "/sse/",
        "/nothing",
        "/ws/chat/a/b/",
        "/ws/chat/%2e%2e/",
        "/ws/chat/%00/",
        "/ws/chat/%ff/",
    ]
    for path in paths:
        client = await crowd.connect(node)
        assert await client.ask(handshake("r").replace(b"/ws/chat/r/", path.encode())) == 404, path


async def test_no_websocket_request_on_the_websocket_path_is_426(node: Node, crowd: Crowd) -> None:
    async with aiohttp.ClientSession() as http:
        async with http.get(node.url("/ws/chat/r/")) as answer:
            assert answer.status == 426
            assert answer.headers["Upgrade"] == "websocket"
            assert "WebSocket" in await answer.text()
        async with http.post(node.url("/ws/chat/r/")) as answer:
            assert answer.status == 426
    for method in (b"POST", b"HEAD", b"PUT"):
        client = await crowd.connect(node)
        assert await client.ask(handshake("r").replace(b"GET", method)) == 426, method
    old = await crowd.connect(node)
    assert await old.ask(handshake("r").replace(b"Version: 13", b"Version: 8")) == 426
    assert b"Sec-WebSocket-Version: 13" in old.head
    keyless = await crowd.connect(node)
    assert await keyless.ask(handshake("r").replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"short")) == 400


async def test_history_that_is_no_number_is_400(node: Node, crowd: Crowd) -> None:
    for history in ("-1", "1001", "x", "", "1.5", "٣", "9" * 30):
        assert (await crowd.refused(node, "r", history=history))[0] == 400, history


async def test_refusals_are_counted_by_reason(node: Node, crowd: Crowd) -> None:
    counter = "hiroba_handshakes_refused_total"
    before = {reason: await node.metric(counter, reason=reason) for reason in ("path", "room_name", "origin")}
    lost = await crowd.connect(node)
    assert await lost.ask(handshake("r").replace(b"/ws/chat/r/", b"/ws/chat/r")) == 404
    await crowd.refused(node, "a!b")
    await crowd.refused(node, "r", headers={"Origin": "https://evil.example"})
    for reason, count in before.items():
        assert await node.metric(counter, reason=reason) == count + 1


async def test_who_leaves_in_the_middle_of_everything_leaves_nothing(node: Node, crowd: Crowd) -> None:
    """Two hundred clients speak and vanish in every way there is; the room's order stays whole for the witness."""
    witness = await crowd.join(node, "busy")

    async def come_and_go(n: int) -> None:
        client = await crowd.member(node, "busy", v1=bool(n % 2))
        client.write(frame(b'{"type":"message","message":%d}' % n))
        if n % 3 == 0:
            client.reset()
        elif n % 3 == 1:
            client.write(frame(b"", opcode=BINARY))
            await client.closed()
        else:
            client.transport.close()

    for start in range(0, 200, 20):
        await asyncio.gather(*(come_and_go(n) for n in range(start, start + 20)))
    await until(lambda: alone(node), "the others are gone")
    numbers = [int(id.rpartition("-")[2]) for id in witness.ids]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(set(witness.messages)) == len(witness.messages)
