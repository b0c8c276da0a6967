"""One room's log as this node follows it: where it is, who is told. No I/O; the reader moves it."""

import re
from collections.abc import Collection
from typing import Protocol

from gateway.core.contiguity import Tear
from gateway.core.entry import START, Entry, EntryId, Gap, entry_id


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

    __slots__ = (
        "begun", "bell", "cursor", "doubted", "ended", "entry_bytes", "follower", "former_end", "grouped", "heard",
        "key", "maybe_group", "renewed", "tear",
    )  # fmt: skip

    def __init__(self, key: bytes, follower: Follower, entry_bytes_max: int) -> None:
        self.key = key
        self.follower = follower
        # The id of the last entry delivered.
        self.cursor: EntryId = START
        # False: the group must be put (back) at the cursor before the next read; also while there is no log.
        self.grouped = False
        # Whether the broker may hold a group of ours: one was asked for, and no answer denied it since.
        self.maybe_group = False
        # The largest entry lately seen; an unknown log is taken at the worst. Bounds the next reply.
        self.entry_bytes = entry_bytes_max
        # Which share of the idle time the key's expiry was last renewed in.
        self.renewed = 0
        # The newest bell heard; empty: none.
        self.bell = b""
        # The newest bell of the doorbell's connection before this one: perhaps another server's.
        self.heard = b""
        # Another server answers: whether it has all that the former one had is to be asked.
        self.doubted = False
        # Where it had not; None: never yet.
        self.tear: Tear | None = None
        # The last bell of each log that ended above the cursor, and the ms in which another began under its name.
        self.ended: list[tuple[bytes, int]] = []
        # Where this log began, if this node saw it, and where the one before it ended; None: nobody knows.
        self.begun = START
        self.former_end: EntryId | None = None

    @property
    def newest(self) -> EntryId:
        """The newest entry delivered: above the cursor while that stands where a tear sent it back to."""
        return self.tear.read if self.tear is not None and self.cursor == self.tear.kept else self.cursor

    @property
    def rung(self) -> EntryId:
        """How far the log has grown by the newest bell; START: none was heard over this connection."""
        return _bell_id(self.bell) if self.bell else START

    def hear(self, bell: bytes) -> None:
        """A bell: the log's newest id; `!` before it says that the log began with this call of publish.lua."""
        # All entries of one call have one ms. The reader may have crossed over before the bell came.
        if bell.startswith(b"!") and self.cursor != START and self.begun != EntryId(_bell_id(bell).ms, 1):
            self.ended.append((self.bell, _bell_id(bell).ms))
        self.bell = bell

    def unhear(self) -> None:
        """Bells may have been missed: what was heard says how far the log got once, not where it ends."""
        self.heard = self.bell or self.heard
        self.bell = b""
        self.ended.clear()

    def highs(self) -> list[EntryId]:
        """The end of the log as the former server had it, for all this node knows. A bell may be the new one's."""
        rung = [_bell_id(bell) for bell in (self.bell, self.heard) if bell]
        return list(dict.fromkeys(id for id in (self.cursor, *rung) if id != START and id >= self.cursor))

    def compare(self, found: dict[EntryId, EntryId | None]) -> None:
        """For each of `highs`: the newest that this server has at or below it; None: nothing, then the counts tell."""
        self.doubted = False
        torn = {high: newest for high, newest in found.items() if newest is not None and newest.n < high.n}
        if torn and not self.ended:
            high = max(torn)
            # A third server may miss the same end, when the cursor went back already.
            read = self.tear.read if self.tear is not None and self.tear.high == high else START
            self.tear = Tear(torn[high], high, max(self.cursor, read))

    def begin_again(self, first: EntryId, sure: bool) -> int | None:
        """Cross over into a log that began anew; the cursor then stands before `first`, its oldest entry.

        Returns how many entries are lost between the cursor and `first`; None: nobody knows. `sure`: every bell was
        heard since the cursor last stood at the top.
        """
        lost = None
        self.former_end = None
        crossed = self._ended_before(first)
        if sure and crossed:
            ends = [_bell_id(bell) if bell else self.cursor for bell, _ in crossed]
            ends[0] = max(ends[0], self.cursor)
            lost = sum(end.n for end in ends) - self.cursor.n + first.n - 1
            self.former_end = ends[0] if len(ends) == 1 else None
        self.begun = first
        self.tear = None
        self.cursor = first.before()
        del self.ended[: len(crossed)]
        return lost

    def _ended_before(self, first: EntryId) -> list[tuple[bytes, int]]:
        """Of the ended logs those before the one that holds `first`: while it was read, that one may have ended too."""
        for count in range(len(self.ended), 0, -1):
            if first == EntryId(self.ended[count - 1][1], 1):
                return self.ended[:count]
        return self.ended[:]

    def lost_before(self, first: EntryId, cursor: EntryId) -> int | None:
        """What somebody at `cursor`, in a former log, has lost when this one begins with `first`; None: unknown."""
        if first != self.begun or self.former_end is None or cursor > self.former_end:
            return None
        return self.former_end.n - cursor.n


# `!` and an id as publish.lua rings them; its halves have 64 bits.
_BELL = re.compile(rb"!?\d{1,20}-\d{1,20}\Z")


def is_bell(bell: bytes) -> bool:
    """Whether publish.lua may have rung it; anybody may publish on a channel."""
    return _BELL.match(bell) is not None


def _bell_id(bell: bytes) -> EntryId:
    return entry_id(bell.lstrip(b"!"))
