"""What a failover tore off the end of a log: who is told of it, and how many entries."""

import pytest

from gateway.broker.feed import Feed
from gateway.core.contiguity import told
from gateway.core.entry import Entry, EntryId, Gap

# The log up to n = 4; what the former master alone had, 5 to 9; what the new one counts on with, from 5.
KEPT = EntryId(1_000, 4)
LOST = {n: EntryId(1_100, n) for n in range(5, 10)}
NEW = [Entry(EntryId(2_000, n), "s", "", b"1") for n in range(5, 8)]
OLD = [Entry(EntryId(1_000, n), "s", "", b"1") for n in range(2, 5)]


def feed_at(cursor: EntryId, *bells: EntryId) -> Feed:
    feed = Feed(b"log", None, 100)  # type: ignore[arg-type]  # nobody follows
    feed.cursor = cursor
    for bell in bells:
        feed.hear(str(bell).encode())
    return feed


def torn(feed: Feed) -> Feed:
    """Compared with a server that has KEPT and NEW, as XREVRANGE would answer."""
    there = [KEPT, *(entry.id for entry in NEW)]
    feed.compare({high: max((id for id in there if id <= high), default=None) for high in feed.highs()})
    return feed


@pytest.mark.parametrize(
    ("read_n", "lost"), [(4, 5), (7, 2), (9, None)], ids=["nothing of it", "a part of it", "all of it"]
)
@pytest.mark.parametrize("moved", [False, True], ids=["bells not moved", "bells moved, and one of the new log rang"])
def test_a_node_that_heard_of_more_than_it_read_tells_how_much_it_lost(
    read_n: int, lost: int | None, moved: bool
) -> None:
    feed = feed_at(LOST.get(read_n, KEPT), LOST[9])
    if moved:
        feed.unhear()
        feed.hear(str(NEW[0].id).encode())
    torn(feed)
    assert feed.tear is not None or lost is None
    feed.cursor = KEPT  # the log was rewound
    gap = [] if lost is None else [Gap(KEPT, NEW[0].id, lost)]
    assert list(told(feed.tear, feed.cursor, [*NEW], feed.tear.read.n if feed.tear else 0)) == [*gap, NEW]
    # In the same read as what was kept: between the two.
    feed.cursor = OLD[0].id.before()
    pieces = list(told(feed.tear, feed.cursor, [*OLD, *NEW], feed.tear.read.n if feed.tear else 0))
    assert pieces == [OLD, *gap, NEW]


@pytest.mark.parametrize(("after_n", "lost"), [(3, 5), (4, 5), (6, 3), (9, None)])
def test_who_comes_back_is_told_what_it_lost_itself(after_n: int, lost: int | None) -> None:
    """This node read all of it; a reader from elsewhere had not. Its pages begin behind what it had."""
    feed = torn(feed_at(LOST[9]))
    after = LOST.get(after_n, EntryId(1_000, after_n))
    stretch = [*OLD[after_n - 1 :], *NEW]
    cursor = EntryId(after.ms, min(after_n, 4))  # as pages.py puts a cursor that is not in the log any more
    gaps = [piece for piece in told(feed.tear, cursor, [*stretch], after_n) if isinstance(piece, Gap)]
    assert [gap.lost for gap in gaps] == ([] if lost is None else [lost])


@pytest.mark.parametrize("read_n", [4, 7, 9])
def test_a_third_server_that_misses_the_same_end_changes_nothing(read_n: int) -> None:
    """The cursor went back already, and is no measure any more of what was read. Each id is asked for once."""
    feed = feed_at(LOST.get(read_n, KEPT), LOST[9])
    for _ in range(2):
        feed.unhear()
        assert len(feed.highs()) == len(set(feed.highs()))
        feed.compare(dict.fromkeys(feed.highs(), KEPT))
        feed.cursor = KEPT  # the log was rewound
        assert feed.tear is not None and feed.tear.read.n == read_n
        assert feed.newest == LOST.get(read_n, KEPT), "where live sessions stand"
    feed.hear(str(LOST[9]).encode())
    assert feed.highs() == [KEPT, LOST[9]]
    feed.cursor = NEW[0].id
    assert feed.newest == NEW[0].id


def test_nothing_is_told_where_nothing_is_torn() -> None:
    """The server has it all; it has nothing; the counts tell it; the reader is past it; the log began again."""
    whole = feed_at(KEPT, NEW[2].id)
    assert torn(whole).tear is None
    nothing = feed_at(KEPT, LOST[9])
    nothing.compare(dict.fromkeys(nothing.highs()))
    assert nothing.tear is None
    trimmed = torn(feed_at(KEPT, LOST[9]))
    assert list(told(trimmed.tear, KEPT, [*NEW[1:]])) == [Gap(KEPT, NEW[1].id, 1), NEW[1:]]
    assert list(told(trimmed.tear, NEW[0].id, [*NEW[1:]])) == [NEW[1:]]
    trimmed.begin_again(EntryId(3_000, 1), sure=False)
    assert trimmed.tear is None
