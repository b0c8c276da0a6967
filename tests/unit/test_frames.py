"""Frames as bytes, read back by a parser that is not ours: aiohttp's own."""

import asyncio

import pytest
from aiohttp import WSMessage, WSMsgType
from aiohttp._websocket.reader import WebSocketDataQueue
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_websocket import WebSocketReader
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import frames
from gateway.core.closes import Close

AMPLE = 2**24


async def parsed(*pieces: bytes) -> list[WSMessage]:
    """What a WebSocket client without compression makes of these bytes; raises its WebSocketError."""
    loop = asyncio.get_running_loop()
    queue = WebSocketDataQueue(BaseProtocol(loop), AMPLE, loop=loop)
    reader = WebSocketReader(queue, AMPLE, False, True)
    for piece in pieces:
        reader.feed_data(piece)
    messages = []
    while queue._buffer or queue.exception() is not None:
        messages.append(await queue.read())
    return messages


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 65_537, 1_000_000])
async def test_a_text_frame_round_trips_at_every_length_encoding(size: int) -> None:
    payload = b"x" * size
    (message,) = await parsed(frames.text(payload))
    assert (message.type, message.data) == (WSMsgType.TEXT, payload.decode())


@pytest.mark.parametrize(("size", "header"), [(125, 2), (126, 4), (65_535, 4), (65_536, 10)])
def test_lengths_take_the_fewest_bytes(size: int, header: int) -> None:
    """RFC 6455 §5.2: the minimal number of bytes MUST be used; a strict client closes otherwise."""
    assert len(frames.text(b"x" * size)) == header + size


@given(st.lists(st.text(max_size=300), max_size=8), st.data())
def test_joined_frames_are_as_many_messages_however_they_are_cut(texts: list[str], data: st.DataObject) -> None:
    """A batch is one write, and TCP knows no writes."""
    stream = b"".join(frames.text(text.encode()) for text in texts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    messages = asyncio.run(parsed(*pieces))
    assert [message.data for message in messages] == texts


@pytest.mark.parametrize("close", [close for close in Close if close is not Close.LOST], ids=lambda close: close.label)
async def test_every_close_says_its_code_and_reason(close: Close) -> None:
    """1006 means that no close frame came (RFC 6455 §7.4.1): it is the one that can't be sent."""
    (message,) = await parsed(frames.close(close.code, close.text))
    assert (message.type, message.data, message.extra) == (WSMsgType.CLOSE, close.code, close.text)


@given(st.text(min_size=30) | st.text(alphabet="部屋😀é", min_size=30))
def test_a_long_reason_is_cut_at_a_character(reason: str) -> None:
    frame = frames.close(1007, reason)
    assert len(frame) <= 2 + 125
    (message,) = asyncio.run(parsed(frame))
    assert message.data == 1007 and reason.startswith(message.extra)
    assert message.extra == reason or len(message.extra.encode()) > 123 - 4


@given(st.binary(max_size=125))
def test_a_pong_gives_the_ping_back(payload: bytes) -> None:
    ping, pong = asyncio.run(parsed(frames.PING, frames.pong(payload)))
    assert (ping.type, bytes(ping.data)) == (WSMsgType.PING, b"")
    assert (pong.type, bytes(pong.data)) == (WSMsgType.PONG, payload)
