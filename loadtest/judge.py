"""Was anything lost? Compares what each member received with what it should have. Pure; runs after the test.

The room's true order is what most members saw. Each member is owed a stretch of it: from the first message
that was sent after it had joined (or the first that it heard) to the last that it stayed for. Within the
stretch a message that is missing is lost; one that came again is doubled; the fewest messages that would
have to move to restore the order are reordered.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from loadtest.channel import RoomEvidence
from loadtest.member import OWED_ALL, Record
from loadtest.merge import merged
from loadtest.stage import Stint
from loadtest.stamp import key_of

Array = NDArray[np.int64]

# Where a frame stands that is simply on the tape: behind all strays that were heard before it.
_ON_TAPE = 1 << 40
_FAR = np.iinfo(np.int64).max


@dataclass
class Counts:
    """What came of one room, or of all of them. One delivery is one message to one member."""

    expected: int = 0
    delivered: int = 0  # each message once per member
    lost: int = 0
    doubled: int = 0
    reordered: int = 0
    foreign: int = 0
    gaps: int = 0  # deliveries that are missing and of which the server told (v1)
    replayed: int = 0  # deliveries that came after a resume (v1)
    invented: int = 0  # messages of this run that nobody sent
    vanished: int = 0  # messages sent on a sound connection that nobody ever heard; counted in `lost` too
    unconfirmed: int = 0  # sent on a connection that broke, heard by nobody: they may or may not exist

    def add(self, other: Counts) -> None:
        for f in fields(self):
            setattr(self, f.name, getattr(self, f.name) + getattr(other, f.name))

    @property
    def violations(self) -> int:
        return self.lost + self.doubled + self.reordered + self.foreign + self.invented


def judge(rooms: dict[str, list[RoomEvidence]]) -> tuple[Counts, dict[str, Counts]]:
    """All rooms together, and those rooms by name where something is wrong."""
    total, wrong = Counts(), {}
    for name, evidence in rooms.items():
        counts = judge_room(evidence)
        total.add(counts)
        if counts.violations or counts.gaps:
            wrong[name] = counts
    return total, wrong


def judge_room(evidence: list[RoomEvidence]) -> Counts:
    room = evidence[0] if len(evidence) == 1 else merged(evidence)
    counts = Counts()
    vanished = _missing_from(room, counts)
    rank, sent_us = _true_order(room, vanished)
    # The first rank at which a message sent at or after a given time can stand.
    latest_us = np.maximum.accumulate(sent_us) if sent_us.size else sent_us
    highest = np.maximum.accumulate(rank) if rank.size else rank
    straight = rank.size == latest_us.size and bool((np.diff(rank) == 1).all())
    for record in room.records:
        if straight and not record.jumps and not record.strays and record.owed_to == OWED_ALL:
            _judge_simple(record, latest_us, counts)
        else:
            _judge_member(record, room, rank, latest_us, highest, counts)
    return counts


def _judge_simple(record: Record, latest_us: Array, counts: Counts) -> None:
    """One stretch of an undisputed tape: what nearly every member of an honest server is. No array per member."""
    low = int(np.searchsorted(latest_us, record.joined_us))
    if record.first >= 0:
        low = min(low, record.first)
    heard = record.end - record.first if record.first >= 0 else 0
    counts.expected += len(latest_us) - low
    counts.delivered += heard
    counts.lost += len(latest_us) - low - heard
    counts.foreign += record.foreign
    counts.replayed += record.replayed


def _judge_member(
    record: Record, room: RoomEvidence, rank: Array, latest_us: Array, highest: Array, counts: Counts
) -> None:
    heard = rank[received(record, room.keys)]
    unique = _first_occurrences(heard)
    low = int(np.searchsorted(latest_us, record.joined_us))
    high = low
    if record.owed_to == OWED_ALL:
        high = len(latest_us)
    elif record.owed_to > 0 and highest.size:
        high = int(highest[min(record.owed_to, len(highest)) - 1]) + 1
    if unique.size:
        # What was there before its first message is not owed, even if it came late.
        low, high = min(low, int(unique[0])), max(high, int(unique.max()) + 1)
    inside = int(((unique >= low) & (unique < high)).sum())
    missing = max(high - low, 0) - inside
    told = _told_missing(record, room, rank, unique, low, high) if record.gaps and missing else 0
    counts.expected += missing - told + len(unique)
    counts.delivered += len(unique)
    counts.lost += missing - told
    counts.gaps += told
    counts.doubled += len(heard) - len(unique)
    counts.reordered += len(unique) - _longest_rising(unique)
    counts.foreign += record.foreign
    counts.replayed += record.replayed


def received(record: Record, keys: Array) -> Array:
    """Frame numbers of everything that a member heard, in order, doubles included."""
    if record.first < 0:
        return np.empty(0, np.int64)
    if not record.jumps and not record.strays:
        return np.arange(record.first, record.end)
    place_of = _places_of(keys, [key for _, key in record.strays])
    parts: list[Array] = []
    here = record.first
    # At one place strays came before the jump: afterwards the member stood elsewhere.
    turns = sorted([(at, 0, n, place_of[key]) for n, (at, key) in enumerate(record.strays)]
                   + [(a, 1, n, b) for n, (a, b) in enumerate(record.jumps)])  # fmt: skip
    for at, is_jump, _, value in turns:
        if at > here:
            parts.append(np.arange(here, at))
            here = at
        if is_jump:
            here = value
        else:
            parts.append(np.array([value]))
    parts.append(np.arange(here, record.end))
    return np.concatenate(parts).astype(np.int64)


def _missing_from(room: RoomEvidence, counts: Counts) -> list[tuple[int, int | None, int]]:
    """Messages that nobody heard though they were sent: (key, key of the sender's next one heard, sent_us)."""
    known = set(room.keys.tolist())
    sent: set[int] = set()
    vanished: list[tuple[int, int | None, int]] = []
    for stint in room.stints:
        keys = [key_of(stint.user, stint.first_number + n) for n in range(len(stint.sent_us))]
        sent.update(keys)
        vanished += _missing_from_stint(stint, keys, known, counts)
    counts.invented += len(known - sent)
    counts.vanished += len(vanished)
    return vanished


def _missing_from_stint(
    stint: Stint, keys: list[int], known: set[int], counts: Counts
) -> list[tuple[int, int | None, int]]:
    vanished: list[tuple[int, int | None, int]] = []
    following: int | None = None
    refused = set(stint.refused)
    for n in reversed(range(len(keys))):
        if keys[n] in known:
            following = keys[n]
        elif stint.first_number + n in refused:
            continue
        elif stint.broken and following is None:
            counts.unconfirmed += 1
        else:
            vanished.append((keys[n], following, stint.sent_us[n]))
    return vanished[::-1]


def _true_order(room: RoomEvidence, vanished: Sequence[tuple[int, int | None, int]]) -> tuple[Array, Array]:
    """Rank of each frame of the tape in the true order, and sent_us of every rank, vanished messages included."""
    places = [(frame, _ON_TAPE, 0) for frame in range(len(room.keys))]
    for frame, place in _votes(room).items():
        places[frame] = (*place, 0)
    frame_of = {int(key): frame for frame, key in enumerate(room.keys)} if vanished else {}
    sent = [*room.sent_us.tolist()]
    for n, (_, following, sent_us) in enumerate(vanished):
        # It belongs before the sender's next message; behind everything if there was none.
        at = places[frame_of[following]] if following is not None else (_FAR, 0, 0)
        places.append((at[0], at[1], n - len(vanished)))
        sent.append(sent_us)
    order = np.array(sorted(range(len(places)), key=places.__getitem__), np.int64)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank[: len(room.keys)], np.array(sent, np.int64)[order]


def _votes(room: RoomEvidence) -> dict[int, tuple[int, int]]:
    """Where most members heard each message that somebody heard out of the tape's order."""
    stray_keys = {key for record in room.records for _, key in record.strays}
    if not stray_keys:
        return {}
    place_of = _places_of(room.keys, list(stray_keys))
    votes: dict[int, Counter[tuple[int, int]]] = defaultdict(Counter)
    on_tape = np.zeros(len(room.keys) + 1, np.int64)  # how many members heard the frame in its place
    for record in room.records:
        if record.first < 0:
            continue
        on_tape[record.first] += 1
        on_tape[record.end] -= 1
        for a, b in record.jumps:
            on_tape[a] -= 1
            on_tape[b] += 1
    on_tape = np.cumsum(on_tape)
    for record in room.records:
        seen: set[int] = set()
        turn: Counter[int] = Counter()
        for at, key in record.strays:
            frame = place_of[key]
            if frame not in seen and not _heard_in_place(record, frame):
                votes[frame][at, turn[at]] += 1
            seen.add(frame)
            turn[at] += 1
    return {
        frame: place
        for frame, ballot in votes.items()
        for place, count in ballot.most_common(1)
        if count > on_tape[frame]
    }


def _heard_in_place(record: Record, frame: int) -> bool:
    return record.first <= frame < record.end and not any(a <= frame < b for a, b in record.jumps)


def _told_missing(record: Record, room: RoomEvidence, rank: Array, unique: Array, low: int, high: int) -> int:
    """How many of the missing messages the server told of in `gap`."""
    told = np.zeros(len(room.keys), bool)
    for after, before in record.gaps:
        told |= (room.counts > after) & (room.counts < before)
    ranks = rank[told]
    ranks = ranks[(ranks >= low) & (ranks < high)]
    return int((~np.isin(ranks, unique)).sum())


def _places_of(keys: Array, wanted: list[int]) -> dict[int, int]:
    """Frame numbers of some keys."""
    order = np.argsort(keys, kind="stable")
    found = order[np.searchsorted(keys, wanted, sorter=order)]
    return dict(zip(wanted, found.tolist(), strict=True))


def _first_occurrences(heard: Array) -> Array:
    if heard.size < 2 or bool((np.diff(heard) > 0).all()):
        return heard
    _, index = np.unique(heard, return_index=True)
    return heard[np.sort(index)]


def _longest_rising(ranks: Array) -> int:
    """Length of the longest rising subsequence (patience sorting)."""
    if ranks.size < 2 or bool((np.diff(ranks) > 0).all()):
        return len(ranks)
    tails: list[int] = []
    for rank in ranks.tolist():
        at = bisect_left(tails, rank)
        tails[at : at + 1] = [rank]
    return len(tails)
