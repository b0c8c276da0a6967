"""Was anything lost? Compares what each member received with what it should have. Pure; runs after the test.

The room's true order is what most members saw. Each member is owed a stretch of it: from the first message
that was sent after it had joined (or the first that it heard) to the last that it stayed for. Within the
stretch a message that is missing is lost; one that came again is doubled; the fewest messages that would
have to move to restore the order are reordered.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from loadtest.channel import RoomEvidence
from loadtest.member import OWED_ALL, Record
from loadtest.merge import merged
from loadtest.order import received, true_places
from loadtest.stage import Stint
from loadtest.stamp import key_of

Array = NDArray[np.int64]


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
    order = _true_order(room, vanished)
    for record in room.records:
        low, high = order.owed(record)
        if order.is_the_tape and _is_whole(record, low, high):
            heard = record.end - record.first
            counts.expected += heard
            counts.delivered += heard
        else:
            _judge_deliveries(record, room, order, low, high, counts)
        counts.foreign += record.foreign
        counts.replayed += record.replayed
    return counts


class Order:
    """The room's true order: a rank for every message, vanished ones included."""

    def __init__(self, rank: Array, sent_us: Array) -> None:
        self.rank = rank  # of each frame of the tape
        self.sent_us = sent_us  # by rank
        self.is_the_tape = rank.size == sent_us.size and bool((np.diff(rank) == 1).all())
        # By rank: the latest time at which anything up to there was sent.
        self._latest_us = np.maximum.accumulate(sent_us) if sent_us.size else sent_us
        # By frame: the highest rank up to there.
        self._highest = np.maximum.accumulate(rank) if rank.size else rank

    def owed(self, record: Record) -> tuple[int, int]:
        """Ranks from, until: by the times of joining and leaving alone."""
        low = high = int(np.searchsorted(self._latest_us, record.joined_us))
        if record.owed_to == OWED_ALL:
            high = len(self.sent_us)
        elif record.owed_to > 0 and self._highest.size:
            high = int(self._highest[min(record.owed_to, len(self._highest)) - 1]) + 1
        return low, high


def _is_whole(record: Record, low: int, high: int) -> bool:
    """One stretch of the tape without a hole, as nearly every member's of an honest server."""
    return not record.jumps and not record.strays and 0 <= record.first <= low and record.end >= high


def _judge_deliveries(record: Record, room: RoomEvidence, order: Order, low: int, high: int, counts: Counts) -> None:
    heard = order.rank[received(record, room.keys)]
    unique = _first_occurrences(heard)
    if unique.size:
        # What was there before its first message is not owed, even if it came late.
        low, high = min(low, int(unique[0])), max(high, int(unique.max()) + 1)
    missing = np.ones(max(high - low, 0), bool)
    missing[unique[(unique >= low) & (unique < high)] - low] = False
    # Sent before the member came, and missing: it may have stood before that moment, whatever others heard.
    missing &= order.sent_us[low : low + len(missing)] >= record.joined_us
    lost = int(missing.sum())
    told = _told_missing(record, room, order.rank, low, missing) if record.gaps and lost else 0
    counts.expected += lost - told + len(unique)
    counts.delivered += len(unique)
    counts.lost += lost - told
    counts.gaps += told
    counts.doubled += len(heard) - len(unique)
    counts.reordered += len(unique) - _longest_rising(unique)


def _missing_from(room: RoomEvidence, counts: Counts) -> list[tuple[int, int | None, int]]:
    """Messages sent that nobody heard: (key, key of the sender's next one heard, sent_us)."""
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


def _true_order(room: RoomEvidence, vanished: Sequence[tuple[int, int | None, int]]) -> Order:
    places = true_places(room)
    frame_of = {int(key): frame for frame, key in enumerate(room.keys)} if vanished else {}
    # A vanished message belongs before its sender's next one; behind everything if there was none.
    vanished_places = [places[frame_of[n]] if n is not None else len(places) for _, n, _ in vanished]
    order = np.lexsort(
        (
            np.concatenate([np.ones(len(places), np.int64), np.zeros(len(vanished), np.int64)]),
            np.concatenate([places, np.array(vanished_places, np.int64)]),
        )
    )
    sent_us = np.concatenate([room.sent_us, np.array([at for _, _, at in vanished], np.int64)])
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return Order(rank[: len(places)], sent_us[order])


def _told_missing(record: Record, room: RoomEvidence, rank: Array, low: int, missing: Array) -> int:
    """How many of the missing messages (by rank from `low` on) the server told of in `gap`."""
    told = np.zeros(len(room.keys), bool)
    for after, before in record.gaps:
        told |= (room.counts > after) & (room.counts < before)
    ranks = rank[told] - low
    return int(missing[ranks[(ranks >= 0) & (ranks < len(missing))]].sum())


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
