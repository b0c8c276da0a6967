"""A log paged back from anywhere: each entry once, in order, and where some are missing, how many; against a model."""

import asyncio
from collections import Counter
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.broker.feed import Feed, Follower
from gateway.broker.lane import Lane
from gateway.broker.reads import PAGE_ENTRIES, Raw, Reads
from gateway.core.entry import START, Entry, EntryId, Gap
from gateway.core.paging import ENTRY_BYTES, Back, Page
from gateway.rooms.tail import Tail, TailBudget
from gateway.telemetry.metrics import Metrics
from tests.unit.test_entry import fields
from tests.unit.test_histories import Server, Stored, World, check, steps

AMPLE = 2**40


class Log:
    """A log in which some entries are gone, some can't be read, and messages have any size."""

    def __init__(self) -> None:
        self.raw: Raw = []
        self.asked: list[int] = []

    async def ask_master(self, command: str, key: bytes, high: str, low: str, word: str, count: int) -> Raw:
        assert (command, low, word) == ("XREVRANGE", "-", "COUNT")
        self.asked.append(count)
        ms, _, n = high.lstrip("(").partition("-")
        top = EntryId(int(ms), int(n))
        found = [item for item in self.raw if (id_of(item) < top if high[0] == "(" else id_of(item) <= top)]
        return found[::-1][:count]


def id_of(item: tuple[bytes, list[bytes]]) -> EntryId:
    ms, _, n = item[0].decode().partition("-")
    return EntryId(int(ms), int(n))


def reads_of(log: object) -> tuple[Reads, Feed]:
    return Reads(cast(Lane, log), 1, Metrics()), Feed(b"log", cast(Follower, None), 65_536)


async def ask(reads: Reads, feed: Feed, end: EntryId, entries_max: int = 50, bytes_max: int = AMPLE) -> Page:
    return await reads.before(feed, end, end, entries_max, bytes_max)


async def all_pages(reads: Reads, feed: Feed, end: EntryId, entries_max: int, bytes_max: int = AMPLE) -> list[Page]:
    """The newest first."""
    pages = [await ask(reads, feed, end, entries_max, bytes_max)]
    while pages[-1].more:
        assert pages[-1].entries, "nothing to go on from"
        assert len(pages) < 1_000, "it never comes to an end"
        pages.append(await ask(reads, feed, pages[-1].entries[0].id, entries_max, bytes_max))
    return pages


def in_order(page: Page) -> list[Entry | Gap]:
    """A hole behind the entry that its ids say."""
    items: list[Entry | Gap] = [*page.entries, *page.gaps]
    return sorted(items, key=lambda item: (item.id.n, 0) if isinstance(item, Entry) else (item.after.n, 1))


@st.composite
def logs(draw: st.DrawFn) -> Log:
    log, ms, n = Log(), 1_000, draw(st.integers(0, 3))
    for _ in range(draw(st.integers(0, 40))):
        ms += draw(st.integers(0, 2))
        n += draw(st.sampled_from((1, 1, 1, 1, 2, 9)))
        message = b"x" * draw(st.sampled_from((1, 10, 3_000)))
        version = draw(st.sampled_from((b"1", b"1", b"1", b"1", b"9")))
        log.raw.append((f"{ms}-{n}".encode(), [*fields(version=version)[:-1], message]))
    return log


@settings(max_examples=150)
@given(logs(), st.integers(1, 12), st.integers(1, 9_000), st.integers(0, 3))
def test_pages_are_the_whole_log_with_every_hole_in_its_place(
    log: Log, entries_max: int, bytes_max: int, above: int
) -> None:
    """From above its newest entry down to the first; a page keeps to its bounds, and is never empty in between."""
    reads, feed = reads_of(log)
    newest = id_of(log.raw[-1]) if log.raw else START
    feed.start(EntryId(newest.ms + 9, newest.n + 9), b"")
    top = EntryId(newest.ms + above, newest.n + 1 + above)
    paged: list[Entry | Gap] = []
    for page in asyncio.run(all_pages(reads, feed, top, entries_max, bytes_max)):
        assert len(page.entries) <= entries_max
        sizes = [ENTRY_BYTES + len(entry.message) + len(entry.sender) for entry in page.entries]
        assert sum(sizes) <= bytes_max or len(sizes) == 1
        paged[:0] = in_order(page)
    readable = [id_of(item) for item in log.raw if item[1][1] == b"1"]
    assert [item.id for item in paged if isinstance(item, Entry)] == readable
    n, ended_in_a_gap = 0, False
    for item in paged:
        if isinstance(item, Gap):
            assert not ended_in_a_gap, "two holes that touch are one"
            assert item.lost == item.before.n - n - 1
            n, ended_in_a_gap = item.before.n - 1, True
        else:
            assert item.id.n == n + 1, "a hole that nobody tells"
            n, ended_in_a_gap = item.id.n, False
    assert n == top.n - 1
    assert max(log.asked) <= PAGE_ENTRIES


@settings(max_examples=300)
@given(st.lists(steps, max_size=16), st.integers(1, 5))
def test_whoever_pages_back_from_what_it_was_told_gets_what_was_before_that(
    story: list[tuple[str, *tuple[int, ...]]], entries_max: int
) -> None:
    """Servers that go back, empty ones, trimming, flushes, clocks that jump: what it shows and the pages are one."""
    world = World.after(story)
    there = {entry.id: entry for entry in world.log}
    reads, feed = reads_of(Server(world.log))
    feed.seams, feed.cursor = world.node.seams, world.node.cursor
    times = Counter(entry.id for entry in world.ever)
    for had in (item for item in world.heard if isinstance(item, Stored)):
        # Ids are no proof where they are the same by chance, or are gone and their order does not tell.
        if times[had.id] > 1 or (had.id not in there and feed.astray(had.id)):
            continue
        paged: list[Stored | Gap] = []
        for page in asyncio.run(all_pages(reads, feed, had.id, entries_max)):
            paged[:0] = [there[item.id] if isinstance(item, Entry) else item for item in in_order(page)]
        check([*paged, had], world.ever, 0, unknown=True)


def test_an_id_that_the_log_never_gave_is_above_a_hole_of_unknown_size() -> None:
    log = Log()
    log.raw = [(b"1000-1", fields()), (b"1000-2", fields())]
    reads, feed = reads_of(log)
    feed.start(EntryId(1_000, 2), b"")
    page = asyncio.run(ask(reads, feed, EntryId(9_999, 70)))
    assert [entry.id.n for entry in page.entries] == [1, 2]
    assert (page.gaps, page.more) == ([Gap(EntryId(1_000, 2), EntryId(9_999, 70), None)], False)


def test_a_flushed_log_has_nothing_below_what_was_shown_of_it() -> None:
    reads, feed = reads_of(Log())
    feed.start(EntryId(1_000, 70), b"")
    assert asyncio.run(ask(reads, feed, EntryId(1_000, 60))) == Page([], [Gap(START, EntryId(1_000, 60), 59)], False)


def test_who_asks_for_the_same_page_meanwhile_gets_the_same_one() -> None:
    log = Log()
    log.raw = [(f"1000-{n}".encode(), fields()) for n in range(1, 9)]
    reads, feed = reads_of(log)

    async def at_once() -> list[Page]:
        return await asyncio.gather(*(ask(reads, feed, EntryId(1_000, 8), most) for most in (3, 3, 2)))

    one, other, smaller = asyncio.run(at_once())
    assert one is other and one != smaller
    assert len(log.asked) == 2, "one for both who want the same"
    assert not reads._under_way


@given(st.integers(0, 30), st.integers(0, 35), st.integers(1, 10))
def test_a_tail_gives_a_page_only_where_it_has_all_of_it(held: int, n: int, entries_max: int) -> None:
    entries = [Entry(EntryId(1_000, 100 + at), "s", b"", b"1") for at in range(held)]
    tail = Tail(1_000, TailBudget(AMPLE))
    if entries:
        tail.append(entries)
    end = EntryId(1_000, 100 + n)
    recent = tail.until(end, entries_max + 2)
    assert (recent is not None) == (entries_max < n < held)
    if recent is not None:
        back = Back(end, entries_max, AMPLE)
        assert back.take(reversed(recent))
        assert back.page((), more=True) == Page(entries[n - entries_max : n], [], True)


@pytest.mark.parametrize("bytes_max", [1, 3 * (ENTRY_BYTES + 2)])
def test_a_page_has_one_entry_however_large_that_is(bytes_max: int) -> None:
    entries = [Entry(EntryId(1_000, n), "s", b"", b"1") for n in range(5)]
    back = Back(EntryId(1_000, 4), 10, bytes_max)
    assert back.take(reversed(entries))
    assert len(back.page((), more=True).entries) == max(1, bytes_max // (ENTRY_BYTES + 2))
