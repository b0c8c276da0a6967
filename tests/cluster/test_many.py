"""Ten nodes on one broker: every member of every room has the same sequence, whichever node it sits on."""

import asyncio

import pytest

from tests.cluster.chat import Chat, balanced
from tests.cluster.conftest import redis_only
from tests.conftest import NodeFactory

NODES = ROOMS = 10
SAID = 15


@pytest.mark.long
@redis_only
async def test_ten_nodes_tell_the_same_story(quick_node: NodeFactory, chat: Chat) -> None:
    """Speakers sit on different nodes in each room; ten processes at once are slow to start on a small machine."""
    slow = {"probe_s": 30, "heartbeat_s": 10, "node_ttl_s": 60}
    nodes = await asyncio.gather(*(quick_node(ready=False, **slow) for _ in range(NODES)))
    await asyncio.gather(*(node.wait_ready(60) for node in nodes))
    rooms = {
        f"room{number}": await asyncio.gather(*(chat.join(node, f"room{number}") for node in nodes))
        for number in range(ROOMS)
    }
    talkers = [
        chat.talk(members[(number + turn) % NODES], f"{room}-{turn}")
        for number, (room, members) in enumerate(rooms.items())
        for turn in range(2)
    ]
    await asyncio.gather(*(talker.more(SAID) for talker in talkers))
    await chat.quiet()
    for room, members in rooms.items():
        log = await chat.log(room)
        assert len(log) >= 2 * SAID
        assert [entry.id.n for entry in log] == list(range(1, len(log) + 1))
        for member in members:
            await balanced(member, log)
            assert not member.gaps
        await chat.answers_agree(room)
        assert len(await chat.groups(room)) == NODES
