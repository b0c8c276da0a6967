"""A stretch of log as its readers are told it: runs of entries, and the gaps between them."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.contiguity import contiguous
from gateway.core.entry import Entry, EntryId, Gap, decode, gap_between
from tests.unit.test_entry import fields


@st.composite
def logs(draw: st.DrawFn) -> tuple[EntryId, list[Entry | Gap]]:
    """A cursor and what a read brings behind it: holes, unreadable entries, and perhaps a new beginning."""
    cursor = EntryId(draw(st.integers(0, 1000)), draw(st.integers(0, 1000)))
    ms, n = cursor
    stretch: list[Entry | Gap] = []
    restarts_at = draw(st.none() | st.integers(0, 12))
    for at in range(draw(st.integers(1, 12))):
        ms += draw(st.integers(0, 3))
        if at == restarts_at:
            ms, n = ms + 1, 1
        else:
            n += 1 if restarts_at is not None else draw(st.sampled_from((1, 1, 1, 1, 2, 50)))
        stretch.append(decode(f"{ms}-{n}".encode(), fields(version=draw(st.sampled_from((b"1", b"1", b"1", b"2"))))))
    return cursor, stretch


@given(logs())
def test_a_stretch_is_told_whole_in_order_and_gaps_exactly_where_they_are(
    case: tuple[EntryId, list[Entry | Gap]],
) -> None:
    cursor, stretch = case
    told = list(contiguous(cursor, stretch))
    assert [entry for run in told if isinstance(run, list) for entry in run] == [
        item for item in stretch if isinstance(item, Entry)
    ]
    unreadable = [item for item in stretch if isinstance(item, Gap)]
    lost = 0
    for piece in told:
        if isinstance(piece, Gap):
            assert piece.lost is not None
            lost += piece.lost
            cursor = piece.before.before()
        else:
            assert piece, "an empty run is nothing to deliver"
            for entry in piece:
                assert gap_between(cursor, entry.id) is None, "a run hides a gap"
                cursor = entry.id
    assert [item for item in told if isinstance(item, Gap) and item in unreadable] == unreadable
    assert lost == missing(case[0], stretch) + len(unreadable)


def missing(cursor: EntryId, stretch: list[Entry | Gap]) -> int:
    """How many counts are skipped between neighbours; the model that knows nothing of runs."""
    total, n = 0, cursor.n
    for item in stretch:
        following = item.id.n if isinstance(item, Entry) else item.before.n - 1
        if following != 1:
            total += following - n - 1
        n = following
    return total


def test_an_unreadable_entry_in_the_middle_of_a_dense_stretch_is_told() -> None:
    """The count of a dense stretch adds up although one of its entries can't be read."""
    stretch = [decode(b"1-6", fields()), decode(b"1-7", fields(version=b"9")), decode(b"1-8", fields())]
    before, gap, after = contiguous(EntryId(1, 5), stretch)
    assert (before, gap, after) == ([stretch[0]], Gap(EntryId(1, 6), EntryId(1, 8), 1), [stretch[2]])


def test_a_strangers_entry_is_one_gap() -> None:
    """It was `XADD log *`: a count of 0, and the room's own count begins again behind it."""
    stretch = [decode(b"5-0", [b"a", b"b"]), decode(b"6-1", fields())]
    gap, run = contiguous(EntryId(4, 9), stretch)
    assert isinstance(gap, Gap) and gap.lost == 1
    assert run == [stretch[1]]
