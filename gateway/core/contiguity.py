"""What is missing in a stretch of log, as its readers are told it: gaps between entries, and a torn end. Pure."""

from collections.abc import Iterable
from typing import NamedTuple

from gateway.core.entry import START, Entry, EntryId, Gap, gap_between


class Tear(NamedTuple):
    """Where a failover tore the end off a log: what stood above `kept`, up to `high`, is gone. Counts went on from
    `kept`, so that no count shows it."""

    kept: EntryId
    high: EntryId
    # Up to where this node had read it.
    read: EntryId


def first_id(item: Entry | Gap) -> EntryId:
    """The id of an entry, readable or not."""
    return item.id if isinstance(item, Entry) else item.before.before()


def told(
    tear: Tear | None, cursor: EntryId, stretch: list[Entry | Gap], read_n: int = 0
) -> Iterable[list[Entry] | Gap]:
    """As `contiguous`; and where a failover tore the log, what its reader at `cursor` lost there and no count shows.

    `read_n`: up to which count that reader got what was torn off.
    """
    if tear is not None and cursor < tear.high:
        at = tear.kept.n + 1 - first_id(stretch[0]).n
        following = first_id(stretch[at]) if 0 <= at < len(stretch) else START
        if following > tear.kept and following.n == tear.kept.n + 1:
            if at:
                yield from contiguous(cursor, stretch[:at])
            lost = tear.high.n - max(cursor.n, tear.kept.n, read_n)
            if lost > 0:
                yield Gap(max(cursor, tear.kept), following, lost)
            cursor, stretch = following.before(), stretch[at:]
    yield from contiguous(cursor, stretch)


def contiguous(cursor: EntryId, stretch: list[Entry | Gap]) -> Iterable[list[Entry] | Gap]:
    """A piece of log as it is told to its readers: runs of entries, and the gaps between them."""
    last = first_id(stretch[-1])
    # Dense ids: nothing is missing between. An unreadable entry has its place in the count and is a gap all the same.
    if last.n - cursor.n == len(stretch) and Gap not in map(type, stretch):
        yield stretch  # type: ignore[misc]
        return
    run: list[Entry] = []
    for item in stretch:
        id = first_id(item)
        gap = gap_between(cursor, id)
        if gap is not None or isinstance(item, Gap):
            if run:
                yield run
                run = []
            if gap is not None:
                yield gap
            if isinstance(item, Gap):
                yield item
        if isinstance(item, Entry):
            run.append(item)
        cursor = id
    if run:
        yield run
