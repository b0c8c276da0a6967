"""Tapes and the judge without sockets: bytes cut anywhere, members in any order, one process or several."""

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest import frames
from loadtest.channel import RoomEvidence
from loadtest.judge import judge_room
from loadtest.member import OWED_ALL, Member, Record
from loadtest.stage import Stint
from loadtest.tape import Tape, Times
from loadtest.wires import PLAIN, V1, Heard
from tests.loadtest.theatre import Theatre, message_frame, server_frame

KINDS = ("lost", "doubled", "reordered", "foreign")


def member(tape: Tape, record: Record, heard: list[Heard] | None = None, wire: str = "plain") -> Member:
    told = heard if heard is not None else []
    return Member(tape, PLAIN if wire == "plain" else V1, record, Times("x"), told.append, lambda op, payload: None)


def evidence(tape: Tape, records: list[Record], stints: list[Stint]) -> RoomEvidence:
    counts = np.array(tape.ids, np.int64)[1::2]
    return RoomEvidence(np.array(tape.keys, np.int64), np.array(tape.sent_us, np.int64), counts, records, stints)


def stint(user: int, *sent_us: int, broken: bool = False) -> Stint:
    made = Stint(user, 1, broken=broken)
    made.sent_us.extend(sent_us)
    return made


@settings(max_examples=150)
@given(st.integers(0, 2**32), st.integers(3, 9), st.integers(10, 150), st.integers(1, 3))
def test_every_lie_is_counted_exactly(seed: int, members: int, messages: int, processes: int) -> None:
    theatre = Theatre(Random(seed), members, messages, chance=0.5, processes=processes)
    counts = theatre.judge()
    assert {kind: getattr(counts, kind) for kind in KINDS} == {kind: theatre.tally[kind] for kind in KINDS}
    assert counts.expected == members * messages
    assert counts.delivered == members * messages - theatre.tally["lost"]
    assert counts.invented == 0


@settings(max_examples=50)
@given(st.integers(0, 2**32), st.integers(2, 9), st.integers(1, 3))
def test_the_truth_is_judged_true(seed: int, members: int, processes: int) -> None:
    theatre = Theatre(Random(seed), members, 100, chance=0.0, processes=processes)
    counts = theatre.judge()
    assert counts.violations == 0
    assert counts.expected == counts.delivered == members * 100
    assert not any(m.record.strays for m in theatre.members), "true members are told by ranges of the tape alone"


def test_a_late_joiner_is_owed_what_was_sent_after_it_came_and_not_more() -> None:
    tape = Tape("run", "room")
    early, late = Record(0, 0, owed_to=OWED_ALL), Record(1, joined_us=25, owed_to=OWED_ALL)
    log = [message_frame("room", 0, n, sent_us=10 * n) for n in (1, 2, 3, 4)]
    member(tape, early).feed(b"".join(log), 50)
    member(tape, late).feed(log[3], 50)  # 3 was sent at 30, after it had joined: lost
    counts = judge_room([evidence(tape, [early, late], [stint(0, 10, 20, 30, 40)])])
    assert (counts.expected, counts.delivered, counts.lost) == (6, 5, 1)


def test_a_leaver_is_owed_what_the_room_had_heard_when_it_left() -> None:
    tape = Tape("run", "room")
    stayer, leaver = Record(0, 0, owed_to=OWED_ALL), Record(1, 0, owed_to=2)
    log = [message_frame("room", 0, n, sent_us=n) for n in (1, 2, 3)]
    member(tape, stayer).feed(b"".join(log), 50)
    member(tape, leaver).feed(log[0], 50)
    counts = judge_room([evidence(tape, [stayer, leaver], [stint(0, 1, 2, 3)])])
    assert (counts.expected, counts.delivered, counts.lost) == (5, 4, 1)


def test_a_member_whose_connection_broke_is_owed_nothing_beyond_what_it_heard() -> None:
    tape = Tape("run", "room")
    stayer, broken = Record(0, 0, owed_to=OWED_ALL), Record(1, 0, owed_to=-1)
    log = [message_frame("room", 0, n, sent_us=n) for n in (1, 2, 3)]
    member(tape, stayer).feed(b"".join(log), 50)
    member(tape, broken).feed(log[0] + log[1][:20], 50)
    counts = judge_room([evidence(tape, [stayer, broken], [stint(0, 1, 2, 3)])])
    assert (counts.expected, counts.lost) == (4, 0)


@pytest.mark.parametrize(("broken", "lost", "unconfirmed"), [(False, 2, 0), (True, 0, 1)])
def test_a_message_that_nobody_heard(broken: bool, lost: int, unconfirmed: int) -> None:
    """On a sound connection it is lost for everyone; on one that broke nobody can know."""
    tape = Tape("run", "room")
    records = [Record(n, 0, owed_to=OWED_ALL) for n in range(2)]
    for record in records:
        member(tape, record).feed(message_frame("room", 0, 1, 1), 50)
    counts = judge_room([evidence(tape, records, [stint(0, 1, 2, broken=broken)])])
    assert (counts.lost, counts.unconfirmed) == (lost, unconfirmed)


def test_a_vanished_message_is_not_owed_to_whoever_joined_after_it_was_sent() -> None:
    """Its place in the order is unknown; that it was sent before the member came is known."""
    tape = Tape("run", "room")
    early, late = Record(0, 0, owed_to=OWED_ALL), Record(1, joined_us=15, owed_to=OWED_ALL)
    log = [message_frame("room", 1, 1, 20), message_frame("room", 0, 2, 30)]
    for record in (early, late):
        member(tape, record).feed(b"".join(log), 50)
    counts = judge_room([evidence(tape, [early, late], [stint(0, 10, 30), stint(1, 20)])])
    assert (counts.vanished, counts.lost, counts.expected) == (1, 1, 5)


def test_a_message_that_nobody_sent_is_invented() -> None:
    tape = Tape("run", "room")
    record = Record(0, 0, owed_to=OWED_ALL)
    member(tape, record).feed(message_frame("room", 0, 1, 1) + message_frame("room", 0, 2, 1), 50)
    assert judge_room([evidence(tape, [record], [stint(0, 1)])]).invented == 1


def test_what_the_server_tells_of_in_a_gap_is_no_loss() -> None:
    tape = Tape("run", "room")

    def entry(n: int) -> bytes:
        plain = message_frame("room", 0, n, n)[4:]
        text = plain[plain.index(b"lt1|") : plain.rindex(b'"')].decode()
        body = f'{{"type": "message", "id": "1700000000000-{n}", "user": null, "message": "{text}", "at": 1}}'
        return server_frame(body.encode())

    heard: list[Heard] = []
    whole, told = Record(0, 0, owed_to=OWED_ALL), Record(1, 0, owed_to=OWED_ALL)
    member(tape, whole, wire="v1").feed(b"".join(entry(n) for n in range(1, 7)), 50)
    gap = server_frame(b'{"type": "gap", "after": "1700000000000-2", "before": "1700000000000-5", "lost": 2}')
    member(tape, told, heard, wire="v1").feed(entry(1) + entry(2) + gap + entry(5), 50)
    told.gaps.append((2, 5))  # what Life does when it is told
    counts = judge_room([evidence(tape, [whole, told], [stint(0, *range(1, 7))])])
    assert [h.kind for h in heard] == ["gap"]
    assert (counts.gaps, counts.lost) == (2, 1), "entry 6 is lost, 3 and 4 were told of"


def test_frames_for_one_member_alone_do_not_leave_the_tape() -> None:
    """Pings and acks come between the room's frames; what follows is compared again, not parsed."""
    tape = Tape("run", "room")
    first, second = Record(0, 0, owed_to=OWED_ALL), Record(1, 0, owed_to=OWED_ALL)
    log = [message_frame("room", 0, n, n) for n in (1, 2, 3)]
    member(tape, first).feed(b"".join(log), 50)
    ping = bytes((0x89, 2)) + b"hi"
    pinged = member(tape, second)
    for n in range(0, len(stream := log[0] + ping + log[1] + ping + log[2]), 7):
        pinged.feed(stream[n : n + 7], 50)
    assert (second.first, second.end, second.jumps, second.strays) == (0, 3, [], [])


def test_a_message_in_fragments_is_the_same_message() -> None:
    tape = Tape("run", "room")
    record, whole = Record(0, 0, owed_to=OWED_ALL), Record(1, 0, owed_to=OWED_ALL)
    frame = message_frame("room", 0, 1, 1)
    payload = frame[2:] if frame[1] < 126 else frame[4:]
    pieces = (
        bytes((0x01, 10)) + payload[:10] + bytes((0x80, 126)) + (len(payload) - 10).to_bytes(2, "big") + payload[10:]
    )
    member(tape, record).feed(pieces, 50)
    member(tape, whole).feed(frame, 50)
    counts = judge_room([evidence(tape, [record, whole], [stint(0, 1)])])
    assert (counts.delivered, counts.violations) == (2, 0)


def test_a_tape_forgets_old_bytes_and_still_compares() -> None:
    tape = Tape("run", "room", raw_bytes_max=1_000)
    fast, slow = Record(0, 0, owed_to=OWED_ALL), Record(1, 0, owed_to=OWED_ALL)
    log = b"".join(message_frame("room", 0, n, n) for n in range(1, 101))
    member(tape, fast).feed(log, 50)
    member(tape, slow).feed(log, 60)
    assert len(tape.raw) <= 1_000
    assert (slow.end, slow.jumps, slow.strays) == (100, [], [])


def test_masked_frames_of_a_server_are_refused() -> None:
    masked = frames.client_frame(frames.TEXT, b'{"message": 1}')
    with pytest.raises(frames.BadFrame, match="masks"):
        member(Tape("run", "room"), Record(0, 0)).feed(masked, 1)


@given(st.binary(max_size=70_000))
def test_client_frames_carry_their_payload(payload: bytes) -> None:
    """Unmasked by the letter of RFC 6455, 5.3."""
    frame = frames.client_frame(frames.TEXT, payload)
    length, at = frame[1] & 0x7F, 2
    if length > 125:
        size = 2 if length == 126 else 8
        length, at = int.from_bytes(frame[2 : 2 + size], "big"), 2 + size
    mask, body = frame[at : at + 4], frame[at + 4 :]
    assert frame[0] == 0x81
    assert length == len(payload)
    assert bytes(byte ^ mask[n % 4] for n, byte in enumerate(body)) == payload
