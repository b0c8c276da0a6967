"""Paging back: a part of a log, read from its newest entry down, and told oldest first, with what is missing. Pure."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gateway.core.contiguity import Seam, first_id, told
from gateway.core.entry import START, Entry, EntryId, Gap

# What an entry has in a page beside its message and its names: id, clock, keys.
ENTRY_BYTES = 110


class Page(NamedTuple):
    """What a log holds right below some id."""

    # Oldest first.
    entries: list[Entry]
    # Holes among them, between the newest of them and that id, and below the oldest where the log begins. Ascending.
    gaps: list[Gap]
    # Whether the log has older ones. There is an entry then.
    more: bool


class Back:
    """A page while it is read, newest first. It ends at so many entries, or bytes; one entry it has at least."""

    def __init__(self, end: EntryId, entries_max: int, bytes_max: int) -> None:
        self._end = end
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        # Newest first. What can't be read has its place, and is no entry.
        self._taken: list[Entry | Gap] = []
        self._entries = 0
        self._bytes = 0

    def wants(self, entry_bytes: int) -> int:
        """How many more to read of a log whose entries have so many bytes: enough to see that it goes on."""
        if self._entries:
            entry_bytes = self._bytes // self._entries
        elif self._taken:
            entry_bytes = ENTRY_BYTES  # nothing but what can't be read
        fit = (self._bytes_max - self._bytes) // entry_bytes
        return max(1, min(fit, self._entries_max - self._entries)) + 2

    def take(self, following: Iterable[Entry | Gap]) -> bool:
        """What the log has below all that was taken, newest first. True: the page is full, and the log goes on."""
        for item in following:
            if first_id(item) >= self._end:
                continue
            size = _size(item) if isinstance(item, Entry) else 0
            if self._entries and (self._entries == self._entries_max or self._bytes + size > self._bytes_max):
                while isinstance(self._taken[-1], Gap):
                    self._taken.pop()  # the next page has it above its newest entry
                return True
            self._taken.append(item)
            if size:
                self._entries += 1
                self._bytes += size
        return False

    def page(self, seams: Sequence[Seam], more: bool, counted: bool = True) -> Page:
        """`seams`: those that lie below its end. `counted`: False where nobody knows how far the end is."""
        # Whoever asked has what is at the end: it closes a hole, and is no part of the page.
        end = Gap(self._end.before(), EntryId(self._end.ms, self._end.n + 1), 1)
        stretch = [*reversed(self._taken), end]
        cursor = first_id(stretch[0]).before() if more else START
        entries: list[Entry] = []
        gaps: list[Gap] = []
        below_a_gap = False
        for piece in told(seams, cursor, stretch):
            if isinstance(piece, list):
                entries += piece
            elif piece is not end:
                gap = piece if counted or piece.before != self._end else piece._replace(lost=None)
                if below_a_gap:
                    gap = _one(gaps.pop(), gap)
                gaps.append(gap)
            below_a_gap = isinstance(piece, Gap)
        return Page(entries, gaps, more)


def _size(entry: Entry) -> int:
    return ENTRY_BYTES + len(entry.message) + len(entry.user) + len(entry.sender)


def _one(gap: Gap, following: Gap) -> Gap:
    """Two with no entry between."""
    lost = None if gap.lost is None or following.lost is None else gap.lost + following.lost
    return Gap(gap.after, following.before, lost, following.seam)
