"""A room's true order: what most of its members heard, wherever they disagree. Pure.

The tape is in order of first hearing. Where members passed along it and nobody heard anything out of that order
it is the truth. Elsewhere every pair of messages is put to the vote of the members who heard both.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from loadtest.channel import RoomEvidence
from loadtest.member import Record

Array = NDArray[np.int64]

# Frames of one dispute. More of them at once is a server that keeps no order at all: then the order of
# first hearing stands, and what differs from it counts as out of order.
DISPUTE_MAX = 2_000


def true_places(room: RoomEvidence) -> Array:
    """The place of each frame of the tape in the true order."""
    places = np.arange(len(room.keys))
    spans = _joined(_strayed(room) + _unfounded(room))
    if not spans:
        return places
    disputers = [r for r in room.records if r.strays]
    followers = _coverage([r for r in room.records if r.first >= 0 and not r.strays], len(room.keys))
    heard = {span: np.full((len(disputers), span[1] - span[0]), -1, np.int64) for span in spans}
    for row, record in enumerate(disputers):
        turn_of = _turns(received(record, room.keys), len(room.keys))
        for (start, end), table in heard.items():
            table[row] = turn_of[start:end]
    for (start, end), table in heard.items():
        # What nobody could compare is put in the order of sending: most likely the room's too.
        by_time = np.argsort(room.sent_us[start:end], kind="stable")
        order = by_time[_sorted(_is_before(table, followers[start:end])[np.ix_(by_time, by_time)])]
        places[start + order] = np.arange(start, end)
    return places


def received(record: Record, keys: Array) -> Array:
    """Frame numbers of everything that a member heard, in order, doubles included."""
    if record.first < 0:
        return np.empty(0, np.int64)
    if not record.jumps and not record.strays:
        return np.arange(record.first, record.end)
    place_of = places_of(keys, [key for _, key in record.strays])
    parts: list[Array] = []
    here = record.first
    for at, is_jump, _, value in turns_of(record):
        if at > here:
            parts.append(np.arange(here, at))
            here = at
        if is_jump:
            here = value
        else:
            parts.append(np.array([place_of[value]]))
    parts.append(np.arange(here, record.end))
    return np.concatenate(parts).astype(np.int64)


def turns_of(record: Record) -> list[tuple[int, int, int, int]]:
    """(at, is_jump, n, key or goal) in the order of happening.

    At one place strays came before the jump: afterwards the member stood elsewhere.
    """
    strays = [(at, 0, n, key) for n, (at, key) in enumerate(record.strays)]
    return sorted(strays + [(a, 1, n, b) for n, (a, b) in enumerate(record.jumps)])


def places_of(keys: Array, wanted: list[int]) -> dict[int, int]:
    """Frame numbers of some keys."""
    order = np.argsort(keys, kind="stable")
    found = order[np.searchsorted(keys, wanted, sorter=order)]
    return dict(zip(wanted, found.tolist(), strict=True))


def _strayed(room: RoomEvidence) -> list[tuple[int, int]]:
    """Stretches of the tape in which somebody heard something out of order."""
    keys = sorted({key for record in room.records for _, key in record.strays})
    place_of = places_of(room.keys, keys) if keys else {}
    return [(min(at, place_of[key]), max(at, place_of[key] + 1)) for r in room.records for at, key in r.strays]


def _unfounded(room: RoomEvidence) -> list[tuple[int, int]]:
    """Stretches around a joint of the tape that no member passed, if the times of sending contradict it.

    One who joined late and heard first what another never heard can make such a joint.
    """
    frames, sent_us = len(room.keys), room.sent_us
    if frames < 2:
        return []
    passed = np.zeros(frames + 1, np.int64)
    for record in room.records:
        for start, end in _ranges(record):
            if end > start:
                passed[start + 1] += 1
                passed[end] -= 1
    latest, earliest = np.maximum.accumulate(sent_us), np.minimum.accumulate(sent_us[::-1])[::-1]
    joints = np.flatnonzero((np.cumsum(passed)[1:frames] == 0) & (latest[:-1] > earliest[1:])) + 1
    return [
        (
            int(np.searchsorted(latest, earliest[joint], "right")),
            int(np.searchsorted(earliest, latest[joint - 1], "left")),
        )
        for joint in joints.tolist()
    ]


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """None overlap, none is too long."""
    joined: list[list[int]] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], end)
        else:
            joined.append([start, end])
    return [(start, end) for start, end in joined if end - start <= DISPUTE_MAX]


def _ranges(record: Record) -> list[tuple[int, int]]:
    """Stretches of the tape that a member heard in its order."""
    if record.first < 0:
        return []
    starts = [record.first, *(b for _, b in record.jumps)]
    ends = [*(a for a, _ in record.jumps), record.end]
    return list(zip(starts, ends, strict=True))


def _turns(heard: Array, frames: int) -> Array:
    """For each frame when it was first heard; -1: never."""
    turn_of = np.full(frames, -1, np.int64)
    turn_of[heard[::-1]] = np.arange(len(heard))[::-1]
    return turn_of


def _coverage(records: list[Record], frames: int) -> Array:
    """How many of these members heard each frame in its place on the tape."""
    change = np.zeros(frames + 1, np.int64)
    for record in records:
        for start, end in _ranges(record):
            change[start] += 1
            change[end] -= 1
    covered: Array = np.cumsum(change)[:-1]
    return covered


def _is_before(table: Array, followers: Array) -> NDArray[np.bool_]:
    """For each two frames of the dispute: did most of those who heard both hear the one before the other?"""
    size = table.shape[1]
    on_tape = np.triu(np.ones((size, size), np.int64), 1)
    before = on_tape * np.minimum.outer(followers, followers)
    # Where it is one word against another, one member is believed: a mixture would be nobody's order.
    believed = np.minimum(before, 1)
    for turns in table:
        heard = turns >= 0
        word = (heard[:, None] & heard[None, :] & (turns[:, None] < turns[None, :])).astype(np.int64)
        before = before + word
        believed = np.where(believed | believed.T, believed, word)
    is_before: NDArray[np.bool_] = (before > before.T) | ((before == before.T) & (believed > 0))
    return is_before


def _sorted(is_before: NDArray[np.bool_]) -> Array:
    """Topological order, otherwise as given. A circle, which members make who were lied to about the same
    messages, is cut where it is thinnest."""
    size = len(is_before)
    waits_for = is_before.sum(axis=0).astype(np.int64)
    order = np.empty(size, np.int64)
    for n in range(size):
        frame = int(np.argmin(waits_for))
        order[n] = frame
        waits_for -= is_before[frame]
        waits_for[frame] = size * 2
    return order
