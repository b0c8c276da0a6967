"""One room heard by several processes: their tapes become one, their members' evidence follows. Pure."""

from __future__ import annotations

from dataclasses import replace

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
    keys, from_left, from_right = _interleave(left.keys.tolist(), right.keys.tolist())
    sent_us, counts = np.zeros(len(keys), np.int64), np.zeros(len(keys), np.int64)
    for side, frames in ((left, from_left), (right, from_right)):
        sent_us[frames] = side.sent_us
        counts[frames] = side.counts
    records = [_retold(r, from_left, keys) for r in left.records]
    records += [_retold(r, from_right, keys) for r in right.records]
    return RoomEvidence(np.array(keys, np.int64), sent_us, counts, records, left.stints + right.stints)


def _interleave(left: list[int], right: list[int]) -> tuple[list[int], Array, Array]:
    """The union, in the left's order; what only the right heard stands before its next common message."""
    place = {key: n for n, key in enumerate(left)}
    keys: list[int] = []
    taken = 0
    for key in right:
        n = place.get(key)
        if n is None:
            keys.append(key)
        elif n >= taken:
            keys += left[taken : n + 1]
            taken = n + 1
    keys += left[taken:]
    where = {key: n for n, key in enumerate(keys)}
    return keys, np.array([where[k] for k in left], np.int64), np.array([where[k] for k in right], np.int64)


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
