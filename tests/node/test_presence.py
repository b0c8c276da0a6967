"""Who is here: the users in a room, whatever nodes and however many tabs they are in it by."""

from collections.abc import Awaitable, Callable

import pytest

from tests.conftest import NodeFactory
from tests.support.broker import Broker
from tests.support.client import Client, Crowd, Frame
from tests.support.node import Node
from tests.support.tokens import SECRET, by

# Long enough that no node is late with a heartbeat on a busy machine; the tests that wait for it have less.
SETTINGS = {"messages_per_s": 0, "probe_s": 2, "token_keys": f"HS256:{SECRET}", "presence_grace_s": 10}


@pytest.fixture
async def start(start_node: NodeFactory) -> Callable[..., Awaitable[Node]]:
    async def started(**settings: object) -> Node:
        return await start_node(**{**SETTINGS, **settings})

    return started


class Onlooker:
    """A client of docs/protocol.md: who is in one room, for all that it was told."""

    def __init__(self, client: Client, room: str) -> None:
        self.client = client
        self.room = room
        self.joined: Frame = {}

    @property
    def members(self) -> dict[str, Frame] | None:
        """By id; None: they are too many."""
        return self._told()[0]

    @property
    def count(self) -> int:
        return self._told()[1]

    def _told(self) -> tuple[dict[str, Frame] | None, int]:
        members: dict[str, Frame] | None = {}
        count, page = 0, dict[str, Frame]()
        for frame in self.client.heard:
            if frame.get("room") != self.room or "count" not in frame:
                continue
            count = frame["count"]
            if frame["type"] == "joined" and "members" in frame:
                members = {member["id"]: member for member in frame["members"]}
            elif frame["type"] == "presence":
                page |= {member["id"]: member for member in frame["members"] or ()}
                if not frame["more"]:
                    members, page = None if frame["members"] is None else page, {}
            elif frame["type"] == "members" and "joined" not in frame:
                members = None
            elif frame["type"] == "members" and members is not None:
                for member in frame["left"]:
                    members.pop(member["id"], None)
                members |= {member["id"]: member for member in frame["joined"]}
        return members, count

    async def sees(self, *users: str, within_s: float = 20.0) -> None:
        def so() -> bool:
            members, count = self._told()
            return members is not None and sorted(members) == sorted(users) and count == len(users)

        await self.client.until(so, f"{users} are in {self.room}", within_s)

    @property
    def left(self) -> list[str]:
        """Everybody who was told to have left, in this order."""
        return [
            member["id"]
            for frame in self.client.of_type("members")
            if frame["room"] == self.room
            for member in frame.get("left", ())
        ]


async def look(crowd: Crowd, node: Node, user: str, room: str = "room") -> Onlooker:
    """A connection of a user that is in a room and asks who is there."""
    client = await crowd.come(node, headers=by(user))
    onlooker = Onlooker(client, room)
    onlooker.joined = await client.ask("join", room=room, presence=True)
    assert onlooker.joined["type"] == "joined", onlooker.joined
    return onlooker


async def come(crowd: Crowd, node: Node, user: str, room: str = "room") -> Client:
    """A connection that is in a room and asks for nothing."""
    client = await crowd.come(node, headers=by(user))
    assert (await client.ask("join", room=room))["type"] == "joined"
    return client


async def test_people_on_two_nodes_see_each_other_come_and_go(broker: Broker, start: NodeFactory, crowd: Crowd) -> None:
    """Who asks is given the list with its answer, itself in it, and hears who comes and goes; who never asked is listed
    all the same, whatever wire they are on."""
    here, there = await start(presence_grace_s=1), await start(presence_grace_s=1)
    silent = await come(crowd, there, "carl")
    ann = await look(crowd, here, "ann")
    assert [member["id"] for member in ann.joined["members"]] == ["ann"] and ann.joined["count"] == 1
    assert ann.joined["members"][0] == {"id": "ann", "name": "ann", "guest": False}
    await ann.sees("ann", "carl")
    bob = await look(crowd, there, "bob")
    await bob.sees("ann", "bob", "carl")
    await ann.sees("ann", "bob", "carl")
    plain = await crowd.join(there, "room", "plain", headers=by("dora"))
    for onlooker in (ann, bob):
        await onlooker.sees("ann", "bob", "carl", "dora")
    await silent.leave()
    await bob.client.ask("leave", room="room")
    await ann.sees("ann", "dora")
    await plain.leave()
    await ann.sees("ann")
    assert sorted(ann.left) == ["bob", "carl", "dora"]
    assert not silent.of_type("members")
