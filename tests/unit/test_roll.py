"""Who is in a room, as one node knows it: the log read on, the set where it does not continue, and what is told."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.broker.roll import BadRoll, Roll
from gateway.core.entry import EntryId
from gateway.core.names import room_name
from gateway.rooms.here import CHANGE_BYTES, PAGE_BYTES, PAGE_MEMBERS, Change, lists

ROOM = room_name("room")
MAX = 100


def roll(**members: str) -> Roll:
    """One that has read a set of these."""
    roll = Roll(ROOM, "node-1", (b"set", b"claims", b"log"))
    roll.load(the_set("5-1", **members), 0)
    return roll


def the_set(stamp: str, **members: str) -> dict[bytes, bytes]:
    return {
        b"": f"{stamp} server".encode(),
        **{id.encode(): f",node-1, {told}".encode() for id, told in members.items()},
    }


def entry(id: str, *changes: str) -> tuple[bytes, list[bytes]]:
    fields = [part for change in changes for part in (change.encode(), b"m" if change[0] == "+" else b"")]
    return id.encode(), [b"#", b"0", *fields]


def here(roll: Roll) -> set[str]:
    return set(roll.here(MAX)[0] or ())


def test_the_log_is_read_on() -> None:
    known = roll(ann="m")
    known.read([entry("5-2", "+bob", "+carl"), entry("5-3", "-ann")])
    assert (here(known), known.stamp, known.lost) == ({"bob", "carl"}, EntryId(5, 3), False)


@pytest.mark.parametrize("id", ["5-3", "5-1", "6-2", "6-1"])
def test_a_log_that_does_not_continue_is_left_for_the_set(id: str) -> None:
    """Trimmed, put back, begun anew: nothing of it is taken."""
    known = roll(ann="m")
    known.read([entry(id, "+bob")])
    assert known.lost and here(known) == {"ann"}


def test_who_was_in_a_set_that_is_gone_counts_until_then() -> None:
    """Unless they are heard of: who comes is there, who goes is not."""
    known = roll(ann="m", bob="m", carl="m")
    assert known.hear(EntryId(9, 1)) and known.lost
    known.load(the_set("9-1", dora="m"), 100)
    assert here(known) == {"ann", "bob", "carl", "dora"}
    known.read([entry("9-2", "+ann"), entry("9-3", "-ann")])
    assert here(known) == {"bob", "carl", "dora"}
    assert not known.let_go(99) and known.let_go(100) and not known.let_go(101)
    assert here(known) == {"dora"}


def test_a_count_of_a_set_that_is_gone_does_not_fall_at_once() -> None:
    known = roll()
    known.take_count(EntryId(5, 2), 5_000, 0)
    known.take_count(EntryId(9, 1), 300, 100)
    assert known.here(MAX) == (None, 5_000)
    known.load(the_set("9-2", ann="m"), 100)
    assert known.here(MAX) == (None, 5_000)
    known.let_go(100)
    assert known.here(MAX) == ({"ann": b"m"}, 1)


def test_what_this_node_says_is_known_here_before_anybody_else_knows_it() -> None:
    known = roll(ann="m")
    assert known.say("bob", b"m") and not known.say("bob", b"m") and known.say("bob", b"n")
    assert here(known) == {"ann", "bob"}
    taken = known.take_unsaid(10)
    known.unsay("bob")
    known.put_back(taken)
    assert known.unsaid == {"bob": None}, "what was said since counts"
    former = known.claim
    known.say("carl", b"m")
    known.begin_anew()
    assert known.claim != former and known.unsaid == {"carl": b"m"}


@pytest.mark.parametrize("stamp", ["", "what", "1", "-", "1-x"])
def test_a_stranger_s_set_is_none(stamp: str) -> None:
    with pytest.raises(BadRoll):
        roll().load({b"": stamp.encode()}, 0)


def people(names: dict[str, int]) -> dict[str, bytes]:
    return {id: b'{"id":"%b","name":%d}' % (id.encode(), name) for id, name in names.items()}


lists_of_people = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 2), max_size=8).map(people)


@given(lists_of_people, lists_of_people)
def test_a_change_leads_from_one_list_to_the_other(former: dict[str, bytes], now: dict[str, bytes]) -> None:
    payload = Change(former, now).payload(ROOM, 1)
    assert (payload is None) == (former == now)
    told = {"joined": [], "left": []} if payload is None else json.loads(payload)
    known = {id: json.loads(member) for id, member in former.items()}
    for member in told["left"]:
        del known[member["id"]]
    known |= {member["id"]: member for member in told["joined"]}
    assert known == {id: json.loads(member) for id, member in now.items()}


def test_a_change_that_is_too_large_for_a_frame_is_told_in_several() -> None:
    """Each bounded; in the end all is told, and nobody twice."""
    member = b'"' + b"x" * 1_000 + b'"'
    former: Any = {f"old{at}": member for at in range(100)}
    now = {f"new{at}": member for at in range(100)}
    frames = 0
    while (change := Change(former, now)).told is not now:
        payload = change.payload(ROOM, 1)
        assert payload is not None and len(payload) < CHANGE_BYTES + 2_000
        assert len(json.loads(payload)["joined"]) + len(json.loads(payload)["left"]) == CHANGE_BYTES // len(member)
        former, frames = change.told, frames + 1
    assert frames == 200 * len(member) // CHANGE_BYTES


@pytest.mark.parametrize(
    ("members", "size"), [(0, 10), (PAGE_MEMBERS, 10), (PAGE_MEMBERS + 1, 10), (50, PAGE_BYTES // 10)]
)
def test_a_list_comes_in_bounded_pages(members: int, size: int) -> None:
    known = {str(at): b"%d" % (10 ** (size - 1) + at) for at in range(members)}
    pages = [json.loads(frame[frame.index(b"{") :]) for frame in lists(ROOM, known, members)]
    assert [page["more"] for page in pages] == [True] * (len(pages) - 1) + [False]
    assert [member for page in pages for member in page["members"]] == [int(member) for member in known.values()]
    assert all(len(page["members"]) <= PAGE_MEMBERS for page in pages)
