"""Order at fan-out: in rooms by the hundred, over two nodes and from several publishers, each session has exactly
its room's sequence."""

import asyncio
import json
from collections.abc import Sequence

from tests.conftest import NodeFactory
from tests.support.client import Crowd
from tests.support.node import Node
from tests.support.raw import Raw, frame
from tests.support.until import until

ROOMS = 100
SESSIONS = 20
ENTRIES = 200
# Publishers of one room, on both nodes.
PUBLISHERS = 4


async def fill(crowd: Crowd, nodes: Sequence[Node], room: str) -> list[Raw]:
    """Half on each node, half of each wire."""
    return await asyncio.gather(*(crowd.member(nodes[n % 2], room, v1=n % 4 < 2) for n in range(SESSIONS)))


async def speak(publisher: Raw, number: int) -> None:
    """Its share of the room's entries: [publisher, count], on either wire."""
    for count in range(ENTRIES // PUBLISHERS):
        publisher.write(frame(b'{"type":"message","message":[%d,%d]}' % (number, count)))
        if count % 10 == 9:
            await asyncio.sleep(0)


def heard(session: Raw) -> list[bytes]:
    """The messages as they came; on one wire the same for every session, byte for byte."""
    return [payload for payload in session.payloads() if not payload.startswith((b'{"type":"w', b'{"type":"a'))]


def said(messages: Sequence[bytes]) -> list[list[int]]:
    return [json.loads(message)["message"] for message in messages]


async def test_every_session_has_exactly_its_rooms_sequence(start_node: NodeFactory, crowd: Crowd) -> None:
    nodes = await asyncio.gather(*(start_node(messages_per_s=0) for _ in range(2)))
    rooms = [await fill(crowd, nodes, f"r{n}") for n in range(ROOMS)]
    await asyncio.gather(*(speak(sessions[n], n) for sessions in rooms for n in range(PUBLISHERS)))

    async def delivered() -> bool:
        counts = [await node.metric("hiroba_entries_delivered_total") for node in nodes]
        return sum(counts) >= ROOMS * SESSIONS * ENTRIES

    await until(delivered, "all was written", within_s=90, every_s=0.2)
    for number, sessions in enumerate(rooms):
        for session in sessions:
            await until(lambda session=session: len(heard(session)) >= ENTRIES, "all was read", every_s=0.1)
        v1, plain = heard(sessions[0]), heard(sessions[2])
        sequence = said(v1)
        assert said(plain) == sequence, number
        assert sorted(sequence) == [[p, n] for p in range(PUBLISHERS) for n in range(ENTRIES // PUBLISHERS)], number
        for publisher in range(PUBLISHERS):  # what one session said comes in the order it was said
            assert [n for p, n in sequence if p == publisher] == list(range(ENTRIES // PUBLISHERS)), number
        for at, session in enumerate(sessions):
            assert heard(session) == (v1 if at % 4 < 2 else plain), number
            assert session.close_frame() is None
