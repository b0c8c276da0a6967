"""A connection of many rooms that stops reading: it falls behind in each, and catches up through the one socket."""

import json
from collections import defaultdict
from typing import Any

from tests.conftest import NodeFactory
from tests.node.conftest import redis_only
from tests.support.client import Crowd
from tests.support.raw import frame, handshake
from tests.support.until import until

ROOMS = [f"stalled{at}" for at in range(500)]
READERS = 3
ROUNDS = 4
TEXT = "x" * 12_000


@redis_only
async def test_who_stalls_in_many_rooms_falls_behind_in_each_and_loses_nothing(
    start_node: NodeFactory, crowd: Crowd
) -> None:
    """Its rooms share its socket: as they catch up they fill it one after the other, not all at once: each by itself
    would put a step of its own on top, 11 MB for 200 rooms."""
    node = await start_node(messages_per_s=0, joins_per_s=0, tail_bytes_max=1_000_000, stall_s=60, pages_max=64)
    readers = []
    for _ in range(READERS):
        raw = await crowd.connect(node, receive_bytes=8_192)
        assert await raw.ask(handshake("x", v1=True).replace(b"/ws/chat/x/", b"/ws/")) == 101
        raw.write(b"".join(said(type="join", room=room) for room in ROOMS))
        readers.append(raw)
    for raw in readers:
        await until(lambda raw=raw: len(raw.payloads()) > len(ROOMS), "all are joined")
        raw.transport.pause_reading()
    talker = await crowd.connect(node)
    assert await talker.ask(handshake("x", v1=True).replace(b"/ws/chat/x/", b"/ws/")) == 101
    talker.write(b"".join(said(type="join", room=room) for room in ROOMS))
    for number in range(ROUNDS):
        for room in ROOMS:
            talker.write(said(type="message", room=room, message=[number, TEXT]))

    async def all_behind() -> bool:
        return await node.metric("hiroba_sessions_behind") == READERS * len(ROOMS)

    await until(all_behind, "every session of theirs is behind", within_s=30)
    before = most = await node.metric("hiroba_process_resident_bytes")
    for raw in readers:
        raw.transport.resume_reading()

    async def all_caught_up() -> bool:
        nonlocal most
        most = max(most, await node.metric("hiroba_process_resident_bytes"))
        return all(count(raw) >= ROUNDS * len(ROOMS) for raw in readers)

    await until(all_caught_up, "every session has caught up", within_s=60)
    for raw in readers:
        frames = 1 + len(ROOMS) * (1 + ROUNDS)
        await until(lambda raw=raw, frames=frames: len(raw.payloads()) == frames, "the last frame is whole")
        heard = defaultdict(list)
        for payload in raw.payloads():
            told: dict[str, Any] = json.loads(payload)
            assert told["type"] in ("welcome", "joined", "message")
            if told["type"] == "message":
                heard[told["room"]].append(told["message"][0])
        assert heard == {room: list(range(ROUNDS)) for room in ROOMS}
    assert most - before < 6_000_000


def said(**fields: object) -> bytes:
    return frame(json.dumps(fields).encode())


def count(raw: Any) -> int:
    return bytes(raw.data).count(b'"type":"message"')
