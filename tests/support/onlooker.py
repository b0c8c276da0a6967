"""Who sees who is in a room, and keeps a list of them as docs/protocol.md would have it."""

from tests.support.client import Client, Crowd, Frame
from tests.support.node import Node
from tests.support.tokens import by


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
            if frame["type"] == "joined" and frame.get("members", ...) is not ...:
                members = None if frame["members"] is None else {member["id"]: member for member in frame["members"]}
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
