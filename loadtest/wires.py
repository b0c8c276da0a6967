"""The two published wires as a client speaks them: `plain` and `v1`. Pure; see docs/protocol.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

EntryId = tuple[int, int]

Kind = Literal["message", "welcome", "joined", "left", "ack", "gap", "error", "reconnect", "other", "nonsense"]


class Heard(NamedTuple):
    """One thing that a server said. `body` holds the frame's fields where they matter."""

    kind: Kind
    message: object = None
    entry_id: EntryId = (0, 0)  # v1: milliseconds and the room's dense count; zeros on plain
    body: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Wire:
    name: str
    subprotocol: str | None
    resumes: bool  # can a client come back and get what it missed?

    def say(self, message: str, ref: int, room: str | None = None) -> bytes:
        """A message; `room`, on v1: to one of the rooms of its connection."""
        if self.subprotocol is None:
            return json.dumps({"message": message}).encode()
        said: dict[str, object] = {"type": "message", "message": message, "ref": ref}
        return json.dumps(said if room is None else said | {"room": room}).encode()

    def join(self, room: str, after: str | None) -> bytes:
        """v1: be in a room too, behind an entry where one is given. Its name is the `ref`: messages have numbers."""
        asked = {"type": "join", "room": room, "ref": room}
        return json.dumps(asked if after is None else asked | {"after": after}).encode()

    def hear(self, payload: bytes) -> Heard:
        """What a text frame says; kind `nonsense` if it is not of this wire."""
        try:
            body = json.loads(payload)
        except ValueError:
            return Heard("nonsense")
        if not isinstance(body, dict):
            return Heard("nonsense")
        return _hear_v1(body) if self.subprotocol else _hear_plain(body)


PLAIN = Wire("plain", None, resumes=False)
V1 = Wire("v1", "hiroba.v1", resumes=True)
WIRES = {wire.name: wire for wire in (PLAIN, V1)}


def read_id(text: object) -> EntryId:
    """Both parts of `<ms>-<n>`; zeros for anything else."""
    if not isinstance(text, str):
        return 0, 0
    ms, _, count = text.partition("-")
    return (int(ms), int(count)) if ms.isdigit() and count.isdigit() else (0, 0)


def write_id(entry_id: EntryId) -> str:
    return f"{entry_id[0]}-{entry_id[1]}"


def _hear_plain(body: dict[str, Any]) -> Heard:
    return Heard("message", body["message"]) if "message" in body else Heard("nonsense", body=body)


def _hear_v1(body: dict[str, Any]) -> Heard:
    kind = body.get("type")
    if kind == "message":
        return Heard("message", body.get("message"), read_id(body.get("id")), body)
    if kind in ("welcome", "joined", "left", "ack", "gap", "error", "reconnect"):
        return Heard(kind, body=body)
    return Heard("other" if isinstance(kind, str) else "nonsense", body=body)
