"""What was deleted of rooms' logs, as nodes tell each other and remember it for a while. Pure.

That a message is deleted its log says itself, by the tombstone in its place. This is the news of it, for who read the
message before.
"""

from collections import deque
from collections.abc import Iterable, Sequence

import msgspec

from gateway.core.entry import START, Entry, EntryId, parse_id

# Remembered at once, for all rooms of a node. Of more the oldest are forgotten: who comes back is not told of them.
IDS_MAX = 10_000


class BadDeletion(ValueError):
    """Bytes that are no deletion of this version's. `args[0]` says why."""


class Deletion(msgspec.Struct, frozen=True):
    """One entry of the control log: some messages of a room, or all up to an id, are no more."""

    deleted: str
    ids: tuple[str, ...] = ()
    # Empty: only `ids` are.
    up_to: str = ""
    # The room itself is no more: counts begin anew.
    gone: bool = False
    # When, Unix ms by the broker's clock.
    given: int = 0
    # Who asked for it, for the log.
    by: str = ""


encode = msgspec.json.encode
# How the bytes of one begin; those of an order do not.
_HEAD = b'{"deleted":'
_decode = msgspec.json.Decoder(Deletion).decode


def is_deletion(raw: bytes) -> bool:
    """Whether an entry of the control log is one: `decode` says whether it can be read."""
    return raw.startswith(_HEAD)


def decode(raw: bytes) -> "News":
    """An entry's message. Raises BadDeletion."""
    try:
        return News(_decode(raw))
    except (msgspec.MsgspecError, ValueError) as exc:
        raise BadDeletion(str(exc)) from None


class News:
    """A deletion as a node works with it."""

    __slots__ = ("at_ms", "by", "gone", "ids", "room", "up_to")

    def __init__(self, told: Deletion) -> None:
        """Raises ValueError where an id is none."""
        self.room = told.deleted
        self.ids = frozenset(map(parse_id, told.ids))
        # START: only `ids` are deleted.
        self.up_to = parse_id(told.up_to) if told.up_to else START
        self.gone = told.gone
        self.at_ms = told.given
        self.by = told.by

    def __len__(self) -> int:
        return len(self.ids) + 1

    def covers(self, id: EntryId) -> bool:
        return id <= self.up_to or id in self.ids


def masked(entries: list[Entry], news: Sequence[News]) -> list[Entry]:
    """Entries that were read before they were deleted, perhaps, as they are now."""
    if not news:
        return entries
    return [entry.tombstone() if any(one.covers(entry.id) for one in news) else entry for entry in entries]


class Lately:
    """What a node heard lately: for who resumes, and for what was read before and is told after."""

    def __init__(self) -> None:
        self._rooms: dict[str, list[News]] = {}
        self._order: deque[News] = deque()
        self._ids = 0

    def take(self, news: News) -> None:
        self._rooms.setdefault(news.room, []).append(news)
        self._order.append(news)
        self._ids += len(news)
        while self._ids > IDS_MAX and len(self._order) > 1:
            self._forget()

    def of(self, room: str) -> Sequence[News]:
        """In the order of hearing. Of most rooms there is none."""
        return self._rooms.get(room, ())

    def all(self) -> Iterable[News]:
        return tuple(self._order)

    def end(self, before_ms: float) -> None:
        """Forget what is older."""
        while self._order and self._order[0].at_ms < before_ms:
            self._forget()

    def _forget(self) -> None:
        news = self._order.popleft()
        self._ids -= len(news)
        of_room = self._rooms[news.room]
        of_room.remove(news)
        if not of_room:
            del self._rooms[news.room]
