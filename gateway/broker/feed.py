"""One room's log as this node follows it: where it is, who is told. No I/O; the reader moves it."""

from collections.abc import Collection
from typing import Protocol

from gateway.core.entry import START, Entry, EntryId, Gap


class Follower(Protocol):
    """Who is told what the log holds: a room, or the probe."""

    def deliver(self, entries: list[Entry]) -> None:
        """The next entries of the log, contiguous, in order. `feed.cursor` already stands at the last."""

    def lose(self, gap: Gap) -> None:
        """Entries that the log lost before this node read them. Comes before what follows them."""

    def recent(self) -> Collection[EntryId]:
        """Ids lately delivered: where to continue when the log was rewound below the cursor."""


class Feed:
    """A log under this node's eyes. The cursor is the node's truth; the consumer group only follows it."""

    __slots__ = ("cursor", "entry_bytes", "follower", "grouped", "key", "renewed")

    def __init__(self, key: bytes, follower: Follower, entry_bytes_max: int) -> None:
        self.key = key
        self.follower = follower
        # The id of the last entry delivered.
        self.cursor: EntryId = START
        # False: the group must be put (back) at the cursor before the next read; also while there is no log.
        self.grouped = False
        # The largest entry lately seen; an unknown log is taken at the worst. Bounds the next reply.
        self.entry_bytes = entry_bytes_max
        # Which share of the idle time the key's expiry was last renewed in.
        self.renewed = 0
