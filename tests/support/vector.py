"""What a client of many rooms keeps: a cursor in each. It notices at once when a room's sequence is broken."""

from typing import Any

Frame = dict[str, Any]


class Vector:
    """Fed with frames in the order in which they came. Raises AssertionError where a room's ids do not follow."""

    def __init__(self) -> None:
        # Room -> the id that it was told of last; kept over `left` and a lost connection, to resume from.
        self.cursors: dict[str, str] = {}
        self.joined: set[str] = set()
        self.messages = 0
        # How often it was told that its node goes away.
        self.sent_away = 0

    def lost(self) -> None:
        """The connection is gone. It is in no room, and knows where it was."""
        self.joined.clear()

    def join(self, room: str) -> Frame:
        """The request that resumes, or enters a room anew."""
        asked = {"type": "join", "room": room}
        return {**asked, "after": self.cursors[room]} if room in self.cursors else asked

    def take(self, frame: Frame) -> None:
        kind, room = frame["type"], frame.get("room")
        if kind == "joined":
            assert room not in self.joined
            assert frame["recovered"] is (room in self.cursors), f"could not resume: {frame}"
            self.cursors.setdefault(room, frame["last_id"])
            self.joined.add(room)
        elif kind == "left":
            assert "reason" not in frame
            self.joined.remove(room)
        elif kind == "message":
            assert room in self.joined, f"a message of a room that it is not in: {frame}"
            assert count(frame["id"]) == count(self.cursors[room]) + 1, f"behind {self.cursors[room]}: {frame}"
            self.cursors[room] = frame["id"]
            self.messages += 1
        elif kind == "reconnect":
            self.sent_away += 1
        else:
            assert kind in ("welcome", "ack"), frame


def count(id: str) -> int:
    """The n of `<ms>-<n>`."""
    return int(id.partition("-")[2])
