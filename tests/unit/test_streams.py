"""Durable Streams: offsets sort as ids do, and nothing that a client writes is taken for what it is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import appends, streams
from gateway.core.entry import EntryId
from gateway.core.streams import BadRequest, Live, Named, Wanted, next_cursor, offset_of, parse_offset
from gateway.core.wires import BadMessage

halves = st.integers(0, 2**64 - 1)
ids = st.builds(EntryId, halves, halves)


@given(ids, ids)
def test_offsets_sort_as_text_as_ids_do(one: EntryId, two: EntryId) -> None:
    assert (one < two) == (offset_of(one) < offset_of(two))
    assert parse_offset(offset_of(one)) == one == parse_offset(str(one))
    assert not set(offset_of(one)) & set(",&=?/")


@given(st.text())
def test_any_other_text_is_no_offset(text: str) -> None:
    try:
        offset = parse_offset(text)
    except BadRequest:
        return
    assert isinstance(offset, Named) or text.isascii()


def test_a_query_asks_one_thing() -> None:
    assert streams.parse_query([], [], []) == (Named.BEGINNING, None, None)
    assert streams.parse_query(["now"], ["sse"], ["12", "13"]) == (Named.NOW, Live.EVENTS, 12)
    assert streams.parse_query(["1-1"], ["long-poll"], ["x"]) == (EntryId(1, 1), Live.POLL, None)
    for offsets, lives in ((["-1", "-1"], []), ([], ["sse"]), (["-1"], ["sse", "sse"]), (["-1"], ["SSE"]), ([""], [])):
        with pytest.raises(BadRequest):
            streams.parse_query(offsets, lives, [])


@given(st.integers(0, 2**50), st.one_of(st.none(), st.integers(0, 10**15)), st.integers(1, 180))
def test_a_cursor_never_comes_back_as_it_was(at_ms: int, asked: int | None, jitter: int) -> None:
    """Else a cache between would answer from it for ever."""
    cursor = next_cursor(at_ms, asked, jitter)
    assert cursor >= streams.cursor_at(at_ms) and (asked is None or cursor > asked)


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        ({}, Wanted.USUAL),
        ({"Stream-Closed": "false"}, Wanted.USUAL),
        ({"Stream-Closed": "TRUE"}, Wanted.OTHER),
        ({"Stream-TTL": "0"}, Wanted.OTHER),
        ({"Stream-Expires-At": "2030-01-01T00:00:00Z"}, Wanted.OTHER),
        ({"Stream-Forked-From": "/x"}, Wanted.FORK),
    ],
)
def test_what_a_creator_wants(headers: dict[str, str], wanted: Wanted) -> None:
    assert streams.configuration(headers.get) is wanted


@pytest.mark.parametrize(
    ("body", "messages"),
    [
        (b' {"a" : 1}\n', [b'{"a" : 1}']),
        (b"[1, [2, 3],\r\n {}]", [b"1", b"[2, 3]", b"{}"]),
        (b"[[1]]", [b"[1]"]),
        (b"[]", []),
        ('"\u2028"'.encode(), ['"\u2028"'.encode()]),
    ],
)
def test_an_array_is_as_many_messages_as_it_has_elements(body: bytes, messages: list[bytes]) -> None:
    assert [bytes(message) for message in appends.messages(body)] == messages


@given(st.binary(max_size=40))
def test_what_is_no_json_is_refused_and_nothing_else_happens(body: bytes) -> None:
    try:
        messages = appends.messages(body)
    except BadMessage:
        return
    assert all(bytes(message) in body for message in messages)


def test_a_producer_is_named_whole_or_not_at_all() -> None:
    assert appends.producer(None, None, None) is None
    assert appends.producer("p", "0", str(2**53 - 1)) == (b"p", 0, 2**53 - 1)
    for id, epoch, seq in (("", "0", "0"), ("p", None, "0"), (None, "0", "0"), ("p", "0", "01x"), ("p", "-1", "0")):
        with pytest.raises(BadRequest):
            appends.producer(id, epoch, seq)


@pytest.mark.parametrize(
    ("line", "word", "number", "id"),
    [
        (b"=stale 7", "stale", 7, None),
        (b"=gap 3", "gap", 3, None),
        (b"=begin", "begin", 0, None),
        (b"=passed", "passed", 0, None),
        (b"=repeated 4 12-9", "repeated", 4, EntryId(12, 9)),
    ],
)
def test_what_the_script_says_of_a_condition(line: bytes, word: str, number: int, id: EntryId | None) -> None:
    assert appends.told(line) == (word, number, id)
