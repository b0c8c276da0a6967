"""The node's recent part of a room's log: walks read it before they need the stream. Bounded per room and node."""

from bisect import bisect_right
from collections.abc import Callable

from gateway.core.entry import Entry, EntryId

# Python's own share of an entry in memory, beside its message (measured with sys.getsizeof, 3.11).
ENTRY_MEMORY_BYTES = 400
# The same of its compressed frames, beside their bytes.
DEFLATED_MEMORY_BYTES = 260


class TailBudget:
    """Bytes that all tails of a node may hold together."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.used_bytes = 0

    @property
    def exceeded(self) -> bool:
        return self.used_bytes > self.bytes_max


class Tail:
    """The newest entries of a room, contiguous, oldest first."""

    __slots__ = ("_budget", "_entries", "_entries_max", "bytes")

    def __init__(self, entries_max: int, budget: TailBudget) -> None:
        self._entries: list[Entry] = []
        self._entries_max = entries_max
        self._budget = budget
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def append(self, entries: list[Entry]) -> None:
        """Take what was delivered, with all frames that the entries will ever keep.

        Over its bounds the tail forgets its older half: cutting often would cost more.

        Over the node's budget it forgets all it has if need be: other tails do not shrink before their own turn.
        """
        if self._entries and entries[0].id < self._entries[-1].id:
            self.clear()  # after a failover to a server whose clock is behind: ids must ascend to be found
        self._entries += entries
        self._count(sum(map(_size, entries)))
        held = len(self._entries)
        if held > self._entries_max:
            self.forget(max(held // 2, held - self._entries_max))
        while self._entries and self._budget.exceeded:
            self.forget(max(1, len(self._entries) // 2))

    def forget(self, count: int) -> None:
        """Drop the oldest `count` entries."""
        self._count(-sum(map(_size, self._entries[:count])))
        del self._entries[:count]

    def clear(self) -> None:
        """Drop everything: what follows does not continue it."""
        self.forget(len(self._entries))

    def delete(self, covers: Callable[[EntryId], bool]) -> None:
        """Put tombstones in the places of these. What others hold of the tail is theirs to look through."""
        before = sum(map(_size, self._entries))
        self._entries = [entry.tombstone() if covers(entry.id) else entry for entry in self._entries]
        self._count(sum(map(_size, self._entries)) - before)

    def after(self, cursor: EntryId, entries_max: int) -> list[Entry] | None:
        """What follows the cursor; None: older than this tail, or of another history: ask the log."""
        if not self._entries or cursor < self._entries[0].id.before():
            return None
        at = bisect_right(self._entries, cursor, key=_id)
        following = self._entries[at : at + entries_max]
        if following and cursor != following[0].id.before() and cursor != self._entries[at - 1].id:
            return None
        return following

    def until(self, id: EntryId, count: int) -> list[Entry] | None:
        """The `count` entries that end with this one, without a hole; None: they are not all here: ask the log."""
        end = bisect_right(self._entries, id, key=_id)
        start = end - count
        if start < 0 or self._entries[end - 1].id != id or self._entries[start].id.n != id.n - count + 1:
            return None
        return self._entries[start:end]

    def start_of_last(self, count: int) -> EntryId | None:
        """The cursor from which the last `count` entries follow; None: the tail is shorter than that."""
        if not 0 < count <= len(self._entries):
            return None
        return self._entries[-count].id.before()

    def oldest(self) -> EntryId | None:
        return self._entries[0].id if self._entries else None

    def ids(self) -> list[EntryId]:
        return [entry.id for entry in self._entries]

    def _count(self, size: int) -> None:
        self.bytes += size
        self._budget.used_bytes += size


_id: Callable[[Entry], EntryId] = lambda entry: entry.id  # noqa: E731  # a key function, named


def _size(entry: Entry) -> int:
    size = ENTRY_MEMORY_BYTES + len(entry.user) + len(entry.message)
    if entry.deflated is not None:
        size += DEFLATED_MEMORY_BYTES + sum(map(len, entry.deflated.values()))
    return size
