"""Entries, their ids, and what is missing between two of them."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.core.entry import START, Entry, EntryId, Gap, decode, gap_between, parse_id

BOUND = 10**18 - 1
counts = st.integers(1, BOUND)
ids = st.builds(EntryId, st.integers(0, BOUND), counts)


def fields(message: bytes = b'"hi"', sender: bytes = b"s", user: bytes = b"", version: bytes = b"1") -> list[bytes]:
    """As publish.lua writes them."""
    return [b"v", version, b"b", b"4", b"f", sender, b"u", user, b"m", message]


def raw(id: EntryId) -> bytes:
    return str(id).encode()


# ---- ids ----


@given(st.integers(0, BOUND), st.integers(0, BOUND))
def test_an_id_survives_its_text(ms: int, n: int) -> None:
    assert parse_id(str(EntryId(ms, n))) == EntryId(ms, n)


@given(ids, ids)
def test_ids_order_as_redis_orders_them(a: EntryId, b: EntryId) -> None:
    """Redis compares 128-bit numbers: ms in the upper half, the sequence in the lower."""
    assert (a < b) == (a.ms << 64 | a.n < b.ms << 64 | b.n)


@pytest.mark.parametrize(
    "text",
    ["", "-", "1", "1-", "-1", "1-2-3", " 1-2", "1-2 ", "1-2\n", "+1-2", "1--2", "1_0-2", "0x1-2", "$", "*", "1-*",
     "１-２", "١-٢", "1.0-2", "1" * 19 + "-1", "1-" + "1" * 19, "1" * 5000 + "-1", "(1-2", "1-2\0"],
)  # fmt: skip
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an entry id"):
        parse_id(text)


@given(st.text())
def test_parse_id_takes_exactly_what_an_id_prints(text: str) -> None:
    try:
        id = parse_id(text)
    except ValueError:
        return
    assert id >= START and str(id).lstrip("0") <= text.lstrip("0")
    assert parse_id(str(id)) == id


@given(ids)
def test_before_is_a_cursor_from_which_the_entry_is_next(id: EntryId) -> None:
    assert id.before() < id
    assert gap_between(id.before(), id) is None


@given(st.integers(1, BOUND))
def test_before_a_strangers_id_is_still_an_id(ms: int) -> None:
    """`XADD log *` numbers from 0: the place before it is read with XRANGE, so it has to be an id too."""
    before = EntryId(ms, 0).before()
    assert START < before < EntryId(ms, 0)
    assert parse_id(str(before)) == before


# ---- decode ----


@given(ids, st.binary(), st.text(), st.text().map(str.encode), st.sampled_from([b"1", b"2"]))
def test_decode_gives_back_what_was_written(
    id: EntryId, message: bytes, sender: str, user: bytes, version: bytes
) -> None:
    """Either format: the first one has no user."""
    entry = decode(raw(id), fields(message, sender.encode(), user, version))
    assert isinstance(entry, Entry)
    assert (entry.id, entry.message, entry.sender) == (id, message, sender)
    assert entry.user == (user if version == b"2" else b"")


@given(ids, st.integers(0, BOUND))
def test_an_entry_says_itself_when_it_was_appended_where_its_id_cannot(id: EntryId, at: int) -> None:
    """Ids never go back; the broker's clock may."""
    entry, late = decode(raw(id), fields()), decode(raw(id), [*fields(), b"t", b"%d" % at])
    assert isinstance(entry, Entry) and isinstance(late, Entry)
    assert (entry.at, late.at) == (id.ms, at)
    assert (late.id, late.message) == (entry.id, entry.message)


UNREADABLE = {
    "another version": fields(version=b"9"),
    "no fields": [],
    "a stranger's": [b"message", b"hi"],
    "one field more": [*fields(), b"x", b"y"],
    "no time": [*fields(), b"t", b"noon"],
    "no message": [*fields()[:8], b"x", b"y"],
    "sender is not UTF-8": fields(sender=b"\xff"),
    "user is not UTF-8": fields(user=b"\xed\xa0\x80"),
}


@pytest.mark.parametrize("written", UNREADABLE.values(), ids=UNREADABLE)
@given(id=ids)
def test_an_unreadable_entry_is_the_gap_of_itself(written: list[bytes], id: EntryId) -> None:
    """Old and new nodes run side by side: what one can't read it must tell, and go on behind it."""
    gap = decode(raw(id), written)
    assert isinstance(gap, Gap)
    assert gap.lost == 1 and gap.after < id < gap.before
    # A cursor behind it, as the reader puts it.
    assert gap.before.before() == id


@given(st.integers(1, BOUND), st.lists(st.binary()))
def test_whatever_a_stranger_adds_is_an_entry_or_a_gap_between_ids(ms: int, written: list[bytes]) -> None:
    found = decode(raw(EntryId(ms, 0)), written)
    assert isinstance(found, Gap)
    assert parse_id(str(found.after)) < EntryId(ms, 0) < parse_id(str(found.before))


# ---- gaps between two neighbours ----


@given(st.integers(0, 10**13), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 10**6))
def test_a_gap_counts_what_is_missing(ms: int, n: int, later_ms: int, missing: int) -> None:
    cursor = EntryId(ms, n)
    following = EntryId(ms + later_ms, n + 1 + missing)
    assert gap_between(cursor, following) == Gap(cursor, following, missing)
    assert gap_between(cursor, EntryId(ms + later_ms, n + 1)) is None


@given(ids, ids)
def test_a_log_that_begins_again_misses_nothing_of_its_own(cursor: EntryId, following: EntryId) -> None:
    assert gap_between(cursor, EntryId(following.ms, 1)) is None


@given(ids, ids)
def test_nobody_can_count_what_a_rewound_log_lost(cursor: EntryId, following: EntryId) -> None:
    assume(1 < following.n <= cursor.n)
    assert gap_between(cursor, following) == Gap(cursor, following, None)
