"""What was deleted lately, as a node remembers it."""

import msgspec
import pytest

from gateway.core.deletions import IDS_MAX, BadDeletion, Deletion, Lately, News, decode, encode, is_deletion, masked
from gateway.core.entry import Entry, EntryId
from gateway.core.orders import Kick, Order
from gateway.core.orders import encode as encode_order
from gateway.rooms.tail import Tail, TailBudget


def entries(count: int) -> list[Entry]:
    return [Entry(EntryId(1000, n), "s", b'{"id":"a"}', b'"secret"') for n in range(1, count + 1)]


def said(tail: list[Entry]) -> list[bool]:
    return [bool(entry.message) for entry in tail]


def test_a_word_is_told_from_an_order_and_one_that_is_none_is_refused() -> None:
    """Both are in the control log."""
    assert is_deletion(encode(Deletion("lobby", ("1-1",))))
    assert not is_deletion(encode_order(Order(Kick("ann"), 1, 1)))
    for raw in (
        b'{"deleted":',
        b'{"deleted":7}',
        b'{"deleted":"lobby","ids":["nonsense"]}',
        b'{"deleted":"a","up_to":"x"}',
    ):
        with pytest.raises(BadDeletion):
            decode(raw)
    later = msgspec.json.decode(encode(Deletion("lobby", up_to="5-5"))) | {"more": "of a later version"}
    assert decode(msgspec.json.encode(later)).up_to == EntryId(5, 5)


def test_a_tail_and_what_was_read_before_have_tombstones_where_it_says_so() -> None:
    """In their places, and the budget gets back what their words took."""
    budget = TailBudget(10_000)
    tail = Tail(100, budget)
    tail.append(entries(4))
    held = budget.used_bytes
    news = News(Deletion("lobby", ("1000-2", "1000-9")))
    tail.delete(news.covers)
    assert tail.ids() == [entry.id for entry in entries(4)]
    assert said(tail.after(EntryId(0, 0).before(), 9) or tail.until(EntryId(1000, 4), 4) or []) == [
        True,
        False,
        True,
        True,
    ]
    assert budget.used_bytes == tail.bytes < held
    assert said(masked(entries(4), [news, News(Deletion("lobby", up_to="1000-1"))])) == [False, False, True, True]
    kept = entries(4)
    assert masked(kept, ()) is kept, "where nothing was deleted nothing is looked through"


def test_a_tombstone_says_nothing_but_where_and_when() -> None:
    entry = entries(1)[0]
    entry.at, entry.deflated = 999, {"v1": b"secret"}
    left = entry.tombstone()
    assert (left.id, left.at, left.sender, left.user, left.message, left.deflated) == (
        entry.id,
        999,
        "",
        b"",
        b"",
        None,
    )


def test_news_are_forgotten_with_age_and_number() -> None:
    lately = Lately()
    for at in range(10):
        lately.take(News(Deletion("lobby" if at % 2 else "den", ("1-1",), given=at)))
    lately.end(5)
    assert [news.at_ms for news in lately.of("lobby")] == [5, 7, 9] and len(list(lately.all())) == 5
    lately.take(News(Deletion("hall", tuple(f"1-{n}" for n in range(IDS_MAX)), given=10)))
    assert [news.room for news in lately.all()] == ["hall"] and lately.of("lobby") == ()
