"""What somebody may do in which rooms: letters by pattern, of which the longest wins (docs/rights.md). Pure."""

import unicodedata
from collections.abc import Iterable, Iterator, Mapping

from gateway.core.names import ROOM_NAME_CHARS_MAX

# r: read, w: write, p: see who is here, m: moderate. In this order wherever they are told.
LETTERS = "rwpm"
# Patterns with a `*`: each may have to be looked at for a message. Names without one cost nothing.
PATTERNS_MAX = 256


class BadRights(ValueError):
    """No rights: `args[0]` says which part is wrong."""


class _Pattern:
    """A room's name with `*` for any characters, none too."""

    __slots__ = ("_head", "_middle", "_tail", "length", "letters")

    def __init__(self, pattern: str, letters: str) -> None:
        self._head, *self._middle, self._tail = pattern.split("*")
        self.letters = letters
        # By which patterns are compared: what it says of a name, so its stars don't count.
        self.length = len(pattern) - pattern.count("*")

    def matches(self, room: str) -> bool:
        """Piece by piece, each where it first stands: no pattern makes this slow."""
        if len(room) < self.length or not (room.startswith(self._head) and room.endswith(self._tail)):
            return False
        at, end = len(self._head), len(room) - len(self._tail)
        for piece in self._middle:
            found = room.find(piece, at, end)
            if found < 0:
                return False
            at = found + len(piece)
        return True


class Rights:
    """Letters of each room. Immutable, so that all guests share one."""

    __slots__ = ("_everywhere", "_named", "_patterns")

    def __init__(self, letters: Mapping[str, str]) -> None:
        """By pattern. Raises BadRights."""
        checked = {
            unicodedata.normalize("NFC", pattern): _checked(pattern, given) for pattern, given in letters.items()
        }
        self._named = {name: given for name, given in checked.items() if "*" not in name}
        patterns = [_Pattern(pattern, given) for pattern, given in checked.items() if "*" in pattern]
        if len(patterns) > PATTERNS_MAX:
            raise BadRights(f"more than {PATTERNS_MAX} patterns with a *")
        self._patterns = sorted(patterns, key=lambda pattern: -pattern.length)
        # Where one pattern is all there is, a message costs no search.
        self._everywhere = checked["*"] if checked.keys() == {"*"} else None

    @classmethod
    def parse(cls, texts: Iterable[str]) -> "Rights":
        """As settings have them: `team-*=rw`. Raises BadRights."""
        letters: dict[str, str] = {}
        for text in texts:
            pattern, equals, given = text.partition("=")
            if not equals:
                raise BadRights(f"write PATTERN=LETTERS, as in team-*=rw, not {text[:50]!r}")
            letters[pattern.strip()] = given.strip()
        return cls(letters)

    def of(self, room: str) -> str:
        """The letters of a room, in the order of LETTERS; empty: it is closed.

        Its own name is the longest pattern. Of several that are equally long, what all of them give.
        """
        if self._everywhere is not None:
            return self._everywhere
        named = self._named.get(room)
        if named is not None:
            return named
        longest = list(self._longest(room))
        return "".join(letter for letter in LETTERS if longest and all(letter in given for given in longest))

    def _longest(self, room: str) -> Iterator[str]:
        length = -1
        for pattern in self._patterns:
            if pattern.length < length:
                return
            if pattern.matches(room):
                length = pattern.length
                yield pattern.letters


def _checked(pattern: str, letters: str) -> str:
    if not 0 < len(pattern) <= ROOM_NAME_CHARS_MAX:
        raise BadRights(f"a pattern has 1 to {ROOM_NAME_CHARS_MAX} characters, not {len(pattern)}")
    if not set(letters) <= set(LETTERS):
        raise BadRights(f"rights are letters of {LETTERS}, not {letters[:20]!r}")
    return "".join(letter for letter in LETTERS if letter in letters)
