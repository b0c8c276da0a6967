"""One room heard by several processes: their tapes become one, their members' evidence follows. Pure."""

from __future__ import annotations

from dataclasses import replace
from heapq import merge

import numpy as np

from loadtest.channel import RoomEvidence
from loadtest.histogram import Counts as Array
from loadtest.member import OWED_ALL, Record
from loadtest.order import turns_of


def merged(evidence: list[RoomEvidence]) -> RoomEvidence:
    whole = evidence[0]
    for other in evidence[1:]:
        whole = _two(whole, other)
    return whole


def _two(left: RoomEvidence, right: RoomEvidence) -> RoomEvidence:
    keys, from_left, from_right = _interleave(left, right)
    sent_us, counts = np.zeros(len(keys), np.int64), np.zeros(len(keys), np.int64)
    for side, frames in ((left, from_left), (right, from_right)):
        sent_us[frames] = side.sent_us
        counts[frames] = side.counts
    records = [_retold(r, from_left, keys) for r in left.records]
    records += [_retold(r, from_right, keys) for r in right.records]
    return RoomEvidence(np.array(keys, np.int64), sent_us, counts, records, left.stints + right.stints)


def _interleave(left: RoomEvidence, right: RoomEvidence) -> tuple[list[int], Array, Array]:
    """The union of both tapes, and where each one's frames went.

    What both heard stands in the left's order. What only one heard stands between the same common messages as
    on its own tape; where both have such messages in one place, in the order of sending.
    """
    left_sent = list(zip(left.sent_us.tolist(), left.keys.tolist(), strict=True))
    right_sent = list(zip(right.sent_us.tolist(), right.keys.tolist(), strict=True))
    place = {key: n for n, (_, key) in enumerate(left_sent)}
    keys: list[int] = []
    taken = 0
    alone: list[tuple[int, int]] = []  # heard by the right only, since the last common message
    for sent in right_sent:
        n = place.get(sent[1])
        if n is None:
            alone.append(sent)
        elif n >= taken:
            keys += [key for _, key in merge(left_sent[taken:n], alone)]
            keys.append(sent[1])
            alone = []
            taken = n + 1
    keys += [key for _, key in merge(left_sent[taken:], alone)]
    where = {key: n for n, key in enumerate(keys)}
    frames = [np.array([where[key] for _, key in side], np.int64) for side in (left_sent, right_sent)]
    return keys, frames[0], frames[1]


def _retold(record: Record, frames: Array, keys: list[int]) -> Record:
    """The same evidence in the merged tape's frame numbers."""
    if record.first < 0:
        return replace(record, owed_to=_owed(record, frames))
    told = replace(record, jumps=[], strays=[], owed_to=_owed(record, frames))
    told.first = told.end = int(frames[record.first])
    here = record.first
    for at, is_jump, _, value in turns_of(record):
        _walk(told, frames[here:at], keys)
        here = max(here, at)
        if is_jump:
            here = value
        else:
            told.strays.append((told.end, value))
    _walk(told, frames[here : record.end], keys)
    return told


def _walk(told: Record, frames: Array, keys: list[int]) -> None:
    """Hear these frames one after the other, in runs."""
    if not frames.size:
        return
    for run in np.split(frames, np.flatnonzero(np.diff(frames) != 1) + 1):
        first = int(run[0])
        if first < told.end:
            told.strays += [(told.end, keys[frame]) for frame in run.tolist()]
            continue
        if first > told.end:
            told.jumps.append((told.end, first))
        told.end = first + len(run)


def _owed(record: Record, frames: Array) -> int:
    if record.owed_to in (-1, OWED_ALL) or not record.owed_to or not frames.size:
        return record.owed_to
    return int(frames[min(record.owed_to, len(frames)) - 1]) + 1
