"""Room names: the one door through which a name becomes a room."""

import re
import unicodedata
from typing import NewType

# A checked name; only room_name() makes one.
RoomName = NewType("RoomName", str)

# 100: Django Channels' own limit for group names, which the old chats lived with.
ROOM_NAME_CHARS_MAX = 100

_WORD = re.compile(r"\w+\Z")


class BadRoomName(ValueError):
    """The text names no room. `args[0]` says why, in words for a person."""


def room_name(raw: str, chars_max: int = ROOM_NAME_CHARS_MAX) -> RoomName:
    """The room that `raw` names: NFC, `\\w+` (部屋 is a room), at most `chars_max` characters.

    Two spellings that look alike (か + ゙ and が) are one room, so the name is normalised before it is judged.
    """
    name = unicodedata.normalize("NFC", raw)
    if not name:
        raise BadRoomName("a room needs a name")
    if len(name) > chars_max:
        raise BadRoomName(f"a room name has at most {chars_max} characters, this one has {len(name)}")
    if not _WORD.match(name):
        raise BadRoomName("a room name holds letters, digits and underscores only")
    return RoomName(name)
