"""One room's log as this node follows it: its history, its group, who is told. No I/O; the reader moves it."""

from collections.abc import Collection
from typing import Protocol

from gateway.core.entry import Entry, EntryId, Gap
from gateway.core.history import Event, History, State


class Follower(Protocol):
    """Who is told what the log holds: a room, or the probe."""

    def deliver(self, entries: list[Entry]) -> None:
        """The next entries of the log, contiguous, in order. `feed.cursor` already stands at the last of the read."""

    def lose(self, gap: Gap) -> None:
        """Entries that the log lost before this node read them. Comes before what follows them."""

    def recent(self) -> Collection[EntryId]:
        """Ids lately delivered: where to continue when the log was rewound below the cursor."""


_DOUBTS = (State.DOUBTED, State.SHAKEN)


class Feed(History):
    """A log under this node's eyes. The cursor is the node's truth; the consumer group only follows it."""

    __slots__ = ("entry_bytes", "follower", "key", "maybe_group", "renewed")

    def __init__(self, key: bytes, follower: Follower, entry_bytes_max: int) -> None:
        super().__init__()
        self.key = key
        self.follower = follower
        # Whether the broker may hold a group of ours: one was asked for, and no answer denied it since.
        self.maybe_group = False
        # The largest entry lately seen; an unknown log is taken at the worst. Bounds the next reply.
        self.entry_bytes = entry_bytes_max
        # Which share of the idle time the key's expiry was last renewed in.
        self.renewed = 0

    @property
    def grouped(self) -> bool:
        """Whether the group stands at the cursor; otherwise it is put (back) there before the next read."""
        return self.state not in _DOUBTS

    def doubt(self) -> None:
        """Put the group back and ask the log before the next read."""
        self.on(Event.DOUBT)


class _Nobody:
    def deliver(self, entries: list[Entry]) -> None:
        raise AssertionError("nobody follows this log")

    def lose(self, gap: Gap) -> None:
        raise AssertionError("nobody follows this log")

    def recent(self) -> Collection[EntryId]:
        return ()


# Of a log that is only asked for a page.
NOBODY: Follower = _Nobody()
