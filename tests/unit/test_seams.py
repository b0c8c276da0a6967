"""What a seam took from the end of a log: who is told of it, where, and how many entries."""

import pytest

from gateway.core.contiguity import Seam, former, place, told
from gateway.core.entry import START, Entry, EntryId, Gap

# The log up to n = 4; what the former master alone had, 5 to 9; what the new one counts on with, from 5.
KEPT = EntryId(1_000, 4)
LOST = {n: EntryId(1_100, n) for n in range(5, 10)}
OLD = [Entry(EntryId(1_000, n), "s", b"", b"1") for n in range(2, 5)]


NEW = {ms: [Entry(EntryId(ms, n), "s", b"", b"1") for n in range(5, 8)] for ms in (2_000, 1_050)}


def new(ms: int) -> list[Entry | Gap]:
    return [*NEW[ms]]


def seam(read_n: int = 9, ms: int = 2_000, more: int | None = 0) -> Seam:
    return Seam(1, KEPT, LOST[9], LOST.get(read_n, KEPT), more, EntryId(ms, 5))


@pytest.mark.parametrize("ms", [2_000, 1_050], ids=["clock ahead", "clock behind"])
@pytest.mark.parametrize(("read_n", "lost"), [(4, 5), (7, 2), (9, 0)])
def test_who_stood_before_it_lost_what_it_had_not_got(read_n: int, lost: int, ms: int) -> None:
    """Whatever the ids behind it say."""
    stood = LOST.get(read_n, KEPT)
    gap = [Gap(stood, EntryId(ms, 5), lost, 1)] * bool(lost)
    assert list(told([seam(read_n, ms)], stood, new(ms), 0)) == [*gap, new(ms)]


@pytest.mark.parametrize("ms", [2_000, 1_050], ids=["clock ahead", "clock behind"])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_who_comes_to_it_lost_all_of_it(at: int, ms: int) -> None:
    cursor = OLD[at - 1].id
    pieces = list(told([seam(ms=ms)], cursor, [*OLD[at:], *new(ms)]))
    assert pieces == [*([OLD[at:]] if OLD[at:] else []), Gap(KEPT, EntryId(ms, 5), 5, 1), new(ms)]


def test_who_is_past_it_or_has_not_come_to_it_is_told_nothing() -> None:
    entries = new(2_000)
    assert list(told([seam()], EntryId(2_000, 5), entries[1:])) == [entries[1:]]
    assert list(told([seam()], EntryId(1_000, 1), [*OLD])) == [OLD]


def test_what_was_trimmed_behind_it_is_counted_with_it() -> None:
    entries = new(2_000)
    assert list(told([seam()], KEPT, entries[1:])) == [Gap(KEPT, EntryId(2_000, 6), 6, 1), entries[1:]]
    assert list(told([seam()], LOST[7], entries[2:], 0)) == [Gap(LOST[7], EntryId(2_000, 7), 4, 1), entries[2:]]


def test_nobody_counts_what_nobody_knows() -> None:
    """Other logs were there in between; the reader comes from further than was ever heard of."""
    entries = new(2_000)
    assert list(told([seam(more=None)], LOST[9], entries, 0)) == [Gap(LOST[9], EntryId(2_000, 5), None, 1), entries]
    further = EntryId(1_100, 12)
    assert next(iter(told([seam()], further, entries, 0))) == Gap(further, EntryId(2_000, 5), None, 1)


# The log went on to n = 7 with `new(2_000)`, and was torn again: at 6, behind what the first seam left; or at 3.
BEHIND = Seam(2, EntryId(2_000, 6), EntryId(2_000, 7), EntryId(2_000, 7), 0, EntryId(3_000, 7))
BELOW = Seam(2, EntryId(1_000, 3), EntryId(2_000, 7), EntryId(2_000, 7), 0, EntryId(3_000, 4))


def log(*ids: tuple[int, int]) -> list[Entry | Gap]:
    return [Entry(EntryId(*id), "s", b"", b"1") for id in ids]


@pytest.mark.parametrize(
    ("after", "lost"), [(EntryId(1_000, 3), [5, 1]), (LOST[6], [3, 1]), (EntryId(2_000, 6), [1]), (BEHIND.high, [])]
)
def test_of_two_seams_each_is_told_in_its_place(after: EntryId, lost: list[int]) -> None:
    seams = [seam(), BEHIND]
    whole = log((1_000, 4), (2_000, 5), (2_000, 6), (3_000, 7), (3_000, 8))
    line = former(seams, after) if after in (LOST[6], BEHIND.high) else None
    start = place(seams, line).before() if line is not None else after
    stretch = [entry for entry in whole if isinstance(entry, Entry) and entry.id > start]
    gaps = [piece for piece in told(seams, after, [*stretch], line) if isinstance(piece, Gap)]
    assert [gap.lost for gap in gaps] == lost
    assert [gap.before for gap in gaps] == [EntryId(2_000, 5), EntryId(3_000, 7)][2 - len(lost) :]


@pytest.mark.parametrize(
    ("after", "lost"), [(EntryId(1_000, 2), 9), (EntryId(1_000, 3), 9), (LOST[6], 6), (EntryId(2_000, 6), 1)]
)
def test_a_seam_that_a_later_one_took_along_is_told_at_the_later(after: EntryId, lost: int) -> None:
    """Above 3: of the first log 4, and 5 to 9 that the first seam took; then 5 to 7 of what came behind that."""
    seams = [seam(), BELOW]
    line = former(seams, after) if after.n > 3 else None
    if after == LOST[6]:
        line = 0
    assert place(seams, 0) == EntryId(3_000, 4)
    stretch = log((1_000, 3), (3_000, 4), (3_000, 5))[after.n == 3 or line is not None :]
    gaps = [piece for piece in told(seams, after, stretch, line) if isinstance(piece, Gap)]
    assert [(gap.lost, gap.before) for gap in gaps] == [(lost, EntryId(3_000, 4))]


def test_a_seam_at_the_beginning_is_a_log_that_began_again() -> None:
    anew = Seam(1, START, EntryId(1_000, 4), EntryId(1_000, 4), 3, EntryId(900, 1))
    stretch = log((900, 1), (900, 2))
    assert list(told([anew], EntryId(1_000, 2), stretch, 0)) == [Gap(EntryId(1_000, 2), EntryId(900, 1), 5, 1), stretch]
    assert former([anew], EntryId(1_000, 2)) == 0 and former([anew], EntryId(1_001, 2)) is None
