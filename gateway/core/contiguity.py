"""What is missing in a stretch of log, as its readers are told it: gaps between entries, and what seams took. Pure."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gateway.core.entry import START, Entry, EntryId, Gap, gap_between


class Seam(NamedTuple):
    """Where a log parted from the one that stood under its name before: a failover, a flush, another server.

    Up to `kept` both are one. What the former had above it, up to `high`, is gone; counts went on from `kept`, so that
    no count shows it.
    """

    # 1, 2, 3 … on this node.
    number: int
    # START: nothing was kept.
    kept: EntryId
    # The end of the former log, for all this node read or heard; and up to where it had read it.
    high: EntryId
    read: EntryId
    # Entries of logs that came and went in between; None: nobody knows what there was beside all this.
    more: int | None
    # The entry with which the present log goes on behind `kept`; START: there is none yet.
    first: EntryId = START

    def lost(self, n: int) -> int | None:
        """How many entries somebody lost who had the former log up to count `n`; None: nobody knows."""
        if self.more is None or n > self.high.n:
            return None
        return max(0, self.high.n - max(n, self.kept.n)) + self.more


def first_id(item: Entry | Gap) -> EntryId:
    """The id of an entry, readable or not."""
    return item.id if isinstance(item, Entry) else item.before.before()


def ascends(seams: Sequence[Seam], index: int) -> bool:
    """Whether all ids behind a seam are above those that it took: then the order of ids tells the two apart."""
    return all(seam.first == START or seam.first > seams[index].high for seam in seams[index:])


def may_have_stood(seams: Sequence[Seam], index: int, cursor: EntryId) -> bool:
    """Whether this id, or a cursor before the entry behind it, may have stood in what a seam took: whether it agrees
    with all ids that are known of that log, in which counts grow as ids do."""
    seam = seams[index]
    if not seam.kept < cursor <= seam.high or cursor == seam.first:
        return False
    known = [seam.kept, seam.read, seam.high]
    if index and seams[index - 1].first != START:
        known.append(seams[index - 1].first)
    return all(cursor == id or (cursor.n >= id.n if cursor > id else cursor.n < id.n) for id in known)


def doubted(seams: Sequence[Seam], line: int, cursor: EntryId, past: int = 0, oldest: EntryId = START) -> bool:
    """Whether a cursor that stood before a seam may as well have stood before an earlier one, or behind it where the
    log is trimmed now, so that nobody can count what its reader lost. `oldest`: the first entry behind the seam."""
    seam = seams[line]
    if cursor in (seam.read, seam.high):
        return False  # an id that is known to have stood there
    if START < seam.first < cursor and seam.first.n <= cursor.n < oldest.n:
        return True
    return any(seams[index].number > past and may_have_stood(seams, index, cursor) for index in range(line))


def former(seams: Sequence[Seam], cursor: EntryId, past: int = 0) -> int | None:
    """The index of the first seam before which an id stood that the log has not got; None: of none that we know.

    `past`: the newest seam that lies behind whoever stands there, 0: nobody knows. It counts where the order of ids
    does not tell.
    """
    for index in range(len(seams) - 1, -1, -1):
        seam = seams[index]
        took = may_have_stood(seams, index, cursor)
        # A log that went on behind an earlier seam had no ids between what that one kept and what came there.
        if took and any(seams[at].kept < cursor < place(seams[:index], at).before() for at in range(index)):
            continue
        if took and (seam.number > past or ascends(seams, index)):
            first = index
            while first and cursor <= seams[first - 1].kept:
                first -= 1  # nor had it come to that one
            return first
    return None


def place(seams: Sequence[Seam], index: int) -> EntryId:
    """The entry behind a seam in the log as it is now: a later seam may have taken the one that was there."""
    first = seams[index].first
    for later in seams[index + 1 :]:
        if later.kept.n < first.n:
            first = later.first
    return first


def told(
    seams: Sequence[Seam], cursor: EntryId, stretch: list[Entry | Gap], line: int | None = None, doubt: bool = False
) -> Iterable[list[Entry] | Gap]:
    """As `contiguous`; and at each seam that its reader crosses, what that reader lost there.

    `line`: the index of the seam before which the cursor stands; None: it stands in the log itself. `doubt`: or before
    an earlier one.
    """
    n, debts = cursor.n, dict[int, tuple[int | None, int]]()
    for index in range(line or 0, len(seams)):
        seam, first = seams[index], place(seams, index)
        if line is None and first.before() <= cursor:
            continue  # it was told already
        at = bisect_left(stretch, first, key=first_id)
        before, _ = debts.get(at, (0, 0))
        lost = None if doubt and index == line else seam.lost(n)
        debts[at] = (None if lost is None or before is None else before + lost), seam.number
        n = min(n, seam.kept.n)
    at = 0
    for cut, (debt, number) in sorted(debts.items()):
        if cut == len(stretch):
            break  # not reached yet
        if cut > at:
            yield from contiguous(cursor, stretch[at:cut])
            cursor = first_id(stretch[cut - 1])
            n = cursor.n
        following = first_id(stretch[cut])
        trimmed = following.n - n - 1
        lost = None if debt is None or trimmed < 0 else debt + trimmed
        if lost != 0:
            yield Gap(cursor, following, lost, number)
        cursor, at = following.before(), cut
        n = cursor.n
    yield from contiguous(cursor, stretch[at:])


def contiguous(cursor: EntryId, stretch: list[Entry | Gap]) -> Iterable[list[Entry] | Gap]:
    """A piece of log as it is told to its readers: runs of entries, and the gaps between them."""
    last = first_id(stretch[-1])
    # Dense ids: nothing is missing between. An unreadable entry has its place in the count and is a gap all the same.
    if last.n - cursor.n == len(stretch) and Gap not in map(type, stretch):
        return (stretch,)  # type: ignore[return-value]
    return _runs(cursor, stretch)


def _runs(cursor: EntryId, stretch: list[Entry | Gap]) -> Iterable[list[Entry] | Gap]:
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
