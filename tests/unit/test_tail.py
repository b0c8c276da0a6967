"""The tail of a room's log against a plain list: what it keeps, what it says, and that it stays within its bounds."""

import tracemalloc
from bisect import bisect_right
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.entry import Entry, EntryId
from gateway.core.wires import DEFLATING, PLAIN, V1
from gateway.rooms.tail import ENTRY_MEMORY_BYTES, Tail, TailBudget

AMPLE = 2**40


class Log:
    """A log that grows: dense counts, a clock that never steps back."""

    def __init__(self) -> None:
        self.ms, self.n = 1_000, 0

    def append(self, sizes: list[int], every_ms: int = 1) -> list[Entry]:
        entries = []
        for size in sizes:
            self.ms += every_ms
            self.n += 1
            entries.append(Entry(EntryId(self.ms, self.n), "s", b"", b"x" * size))
        return entries


def held(entries: list[Entry]) -> int:
    return sum(ENTRY_MEMORY_BYTES + len(entry.message) for entry in entries)


def contents(tail: Tail) -> list[Entry]:
    oldest = tail.oldest()
    return [] if oldest is None else tail.after(oldest.before(), len(tail)) or []


batches = st.lists(st.integers(0, 3_000), min_size=1, max_size=40)


@given(st.integers(1, 30), st.lists(batches, min_size=1, max_size=15))
def test_a_tail_is_the_newest_entries_and_no_more_than_its_bound(entries_max: int, work: list[list[int]]) -> None:
    budget = TailBudget(AMPLE)
    tail, log, everything = Tail(entries_max, budget), Log(), []
    for sizes in work:
        everything += (entries := log.append(sizes))
        tail.append(entries)
        assert len(tail) <= entries_max
        assert contents(tail) == everything[len(everything) - len(tail) :]
        assert tail.ids() == [entry.id for entry in contents(tail)]
        assert tail.bytes == budget.used_bytes == held(contents(tail))


@given(st.integers(2, 30), st.lists(st.integers(1, 10), min_size=1, max_size=20))
def test_a_tail_forgets_no_more_than_half_without_need(entries_max: int, work: list[int]) -> None:
    """A tail that dropped everything at its bound would send each walk to the stream."""
    tail, log = Tail(entries_max, TailBudget(AMPLE)), Log()
    appended = 0
    for count in work:
        appended += count
        tail.append(log.append([0] * count))
        assert len(tail) >= min(appended, entries_max // 2)


rooms = st.lists(st.tuples(st.integers(0, 4), batches), min_size=1, max_size=40)


@given(st.integers(0, 60_000), rooms)
def test_all_tails_together_stay_within_the_budget(bytes_max: int, work: list[tuple[int, list[int]]]) -> None:
    """Also when small entries made place for themselves in many rooms and large ones follow in each."""
    budget = TailBudget(bytes_max)
    tails, logs = [Tail(1_000, budget) for _ in range(5)], [Log() for _ in range(5)]
    for room, sizes in work:
        tails[room].append(logs[room].append(sizes))
        assert budget.used_bytes == sum(tail.bytes for tail in tails)
        assert not budget.exceeded
    for tail in tails:
        tail.clear()
        assert len(tail) == tail.bytes == 0 and tail.oldest() is None
    assert budget.used_bytes == 0


@given(st.lists(st.integers(0, 3), min_size=1, max_size=20), st.integers(0, 30), st.integers(1, 30), st.data())
def test_after_is_what_follows_in_the_list(
    gaps_ms: list[int], forgotten: int, entries_max: int, data: st.DataObject
) -> None:
    tail, log, entries = Tail(1_000, TailBudget(AMPLE)), Log(), []
    for gap_ms in gaps_ms:
        entries += log.append([1], gap_ms)
    tail.append(entries)
    tail.forget(forgotten)
    kept = entries[forgotten:]
    cursors = [entry.id for entry in entries] + [entry.id.before() for entry in entries]
    cursor = data.draw(st.sampled_from([*cursors, EntryId(0, 0), EntryId(10**12, 10**6)]))
    found = tail.after(cursor, entries_max)
    if not kept or cursor < kept[0].id.before():
        assert found is None, "the tail can't know what lies between"
    else:
        assert found == kept[bisect_right([entry.id for entry in kept], cursor) :][:entries_max]


@given(st.integers(0, 20), st.integers(0, 25))
def test_the_start_of_the_last_is_where_they_follow(size: int, count: int) -> None:
    tail, log = Tail(1_000, TailBudget(AMPLE)), Log()
    entries = log.append([1] * size)
    tail.append(entries)
    start = tail.start_of_last(count)
    if count == 0 or count > size:
        assert start is None
    else:
        assert start is not None and tail.after(start, size) == entries[-count:]


def test_the_same_millisecond_is_no_excuse() -> None:
    """Under load hundreds of entries share a millisecond: n decides."""
    tail, log = Tail(1_000, TailBudget(AMPLE)), Log()
    entries = log.append([1] * 300, every_ms=0)
    tail.append(entries)
    for at, entry in enumerate(entries):
        assert tail.after(entry.id, 1_000) == entries[at + 1 :]


def test_a_tail_forgets_what_does_not_ascend() -> None:
    """A failover to a server whose clock is behind: below the last id nothing could be found any more."""
    log, tail = Log(), Tail(100, TailBudget(AMPLE))
    before = log.append([1] * 5)
    tail.append(before)
    log.ms -= 50
    log.n -= 2
    after = log.append([1] * 3)
    tail.append(after)
    assert tail.ids() == [entry.id for entry in after] and tail.bytes == held(after)


def test_a_tail_counts_what_its_entries_keep_compressed() -> None:
    """With sessions on both wires that compress, tails held up to 2.8 times what was counted."""
    rng = Random(1)
    tracemalloc.start()
    try:
        began, _ = tracemalloc.get_traced_memory()
        budget = TailBudget(AMPLE)
        tail, log = Tail(1_000, budget), Log()
        for size in (50, 300, 3_000):
            entries = log.append([size] * 100)
            for entry in entries:
                entry.message = b'"' + rng.randbytes(size // 2).hex().encode() + b'"'
                DEFLATING[V1].shared(b'"r"', entry)
                DEFLATING[PLAIN].shared(b'"r"', entry)
            tail.append(entries)
        del entries, entry
        held_bytes = tracemalloc.get_traced_memory()[0] - began
    finally:
        tracemalloc.stop()
    assert 0.9 * held_bytes < tail.bytes < 1.5 * held_bytes
    tail.clear()
    assert budget.used_bytes == 0


def test_who_is_walked_adds_nothing_to_an_entry() -> None:
    """What the tail has counted must not grow behind its back."""
    (entry,) = Log().append([3_000])
    frame = DEFLATING[V1].message(b'"r"', entry)
    assert entry.deflated is None
    assert DEFLATING[V1].shared(b'"r"', entry) == frame and DEFLATING[V1].message(b'"r"', entry) is entry.deflated["v1"]
