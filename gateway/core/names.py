"""Room names: the one door through which a name becomes a room."""

import re
import unicodedata
from functools import lru_cache
from typing import NewType

from precis_i18n import get_profile

# A checked name; only room_name() makes one.
RoomName = NewType("RoomName", str)

# 100: Django Channels' own limit for group names, which the old chats lived with.
ROOM_NAME_CHARS_MAX = 100

# Letters of any script, digits, underscore: nearly every name there is, and all that were names before 2027.
_WORD = re.compile(r"\w+\Z")
# Letters for Python, and yet nothing to see: the Hangul fillers.
_INVISIBLE = re.compile("[\u115f\u1160\u3164\uffa0]")
# What RFC 8265 would have in a name, and an address or a sentence would not: ASCII's marks but for _ - . : @
_MARKS = re.compile(r"[!-,/;-?\[-^`{-~]")
_INSIDE = ("-", ".", ":", "@")
_PROFILE = get_profile("UsernameCasePreserved")
# NFC makes no more than so many characters into one (UAX #15, maximum expansion of NFD in UTF-32).
_NFC_SHRINKS = 4
# Names that are remembered with what the profile says: it takes 6 µs a character where it knows a script least.
_REMEMBERED_MAX = 4096


class BadRoomName(ValueError):
    """The text names no room. `args[0]` says why, in words for a person."""


def room_name(raw: str, chars_max: int = ROOM_NAME_CHARS_MAX) -> RoomName:
    """The room that `raw` names, at most `chars_max` characters in NFC. Raises BadRoomName.

    It is `\\w+` (部屋 is a room), or what RFC 8265 §3.4 makes of a user's name (PRECIS, RFC 8264): that has the marks
    that many scripts write vowels with, and joiners where they can be seen. `-`, `.`, `:` and `@` may stand inside.
    Two spellings that look alike (か + ゙ and が) are one room, so the name is normalised before it is judged.
    """
    if len(raw) > chars_max * _NFC_SHRINKS:  # sorting its marks would take time by the square of them
        raise BadRoomName(f"a room name has at most {chars_max} characters, this one has more")
    name = raw if raw.isascii() else unicodedata.normalize("NFC", raw)
    if not name:
        raise BadRoomName("a room needs a name")
    if len(name) > chars_max:
        raise BadRoomName(f"a room name has at most {chars_max} characters, this one has {len(name)}")
    if not _is_word(name):
        name = _by_profile(name)
    if not name:
        raise BadRoomName("a room name holds letters, digits and underscores, and - . : @ between them")
    return RoomName(name)


def _is_word(name: str) -> bool:
    return _WORD.match(name) is not None and (name.isascii() or _INVISIBLE.search(name) is None)


@lru_cache(_REMEMBERED_MAX)
def _by_profile(name: str) -> str:
    """What the profile makes of `name`: wide letters become usual ones. "" if it is none."""
    try:
        name = _PROFILE.enforce(name)
    except UnicodeEncodeError:
        return ""
    bare = _MARKS.search(name) or name.startswith(_INSIDE) or name.endswith(_INSIDE)
    # A mark needs a letter to sit on.
    return "" if bare or unicodedata.category(name[0]).startswith("M") else name
