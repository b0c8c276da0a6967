"""One room as this process heard it: every frame once, in the order of first hearing. No sockets.

Members of one room receive the same bytes. Whoever is first puts a frame on the tape, parsed and checked;
everyone else's bytes are compared with the tape's (one memcmp per read) and parsed only where they differ.
What each member received is then a few ranges of the tape (member.py), judged after the run (judge.py).
"""

from __future__ import annotations

from array import array

import numpy as np

from loadtest.histogram import Counts, Histogram
from loadtest.stamp import Stamp, sender_and_number
from loadtest.wires import EntryId

# Frames on the tape whose bytes are kept for comparison, per process; shared among its rooms.
RAW_BYTES_MAX = 64 * 1024 * 1024
RAW_BYTES_MIN = 64 * 1024

# A read of so many frames or fewer is timed at once; more of them wait for numpy.
SHORT_READ = 4
# Deliveries that wait for numpy: 8,192 take half a millisecond, so the loop is never held up for long.
PENDING_MAX = 8_192


class Times:
    """Latency and service time of one scenario's deliveries, on their way into histograms."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.latency = Histogram()
        self.service = Histogram()
        self.delivered = 0
        self._latency_us = array("q")
        self._service_us = array("q")

    def one(self, latency_us: int, service_us: int) -> None:
        self._latency_us.append(latency_us)
        self._service_us.append(service_us)

    def flush(self) -> None:
        for times, histogram in ((self._latency_us, self.latency), (self._service_us, self.service)):
            histogram.record(times)
            del times[:]


class Tape:
    def __init__(self, run: str, room: str, raw_bytes_max: int = RAW_BYTES_MAX) -> None:
        self.run = run
        self.room = room
        # Bytes of the newest frames; the first byte has offset `cut`.
        self.raw = bytearray()
        self.cut = 0
        self.ends = array("q")  # offset behind each frame
        self.keys = array("q")  # sender and number, see stamp.py
        self.intended_us = array("q")
        self.sent_us = array("q")
        self.ids = array("q")  # v1: the entry id, milliseconds and count, two per frame; 0 0 on plain
        self._places: dict[int, array[int]] = {}  # sender -> frame of its number 1, 2, 3 ...; -1: not heard
        self._raw_bytes_max = raw_bytes_max
        # Long reads not timed yet, by scenario: at_us, first frame, last + 1, joined_us, again and again.
        self._pending: dict[Times, array[int]] = {}
        self._pending_frames = 0

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, key: int) -> int:
        """The frame that carries this key, -1 if nobody here heard it."""
        sender, number = sender_and_number(key)
        places = self._places.get(sender)
        return places[number - 1] if places is not None and 0 < number <= len(places) else -1

    def add(self, stamp: Stamp, frame: bytes, entry_id: EntryId) -> int:
        """Put a message that nobody here heard before at the end; its frame number."""
        place = len(self.keys)
        self.raw += frame
        self.ends.append(self.cut + len(self.raw))
        self.keys.append(stamp.key)
        self.intended_us.append(stamp.intended_us)
        self.sent_us.append(stamp.sent_us)
        self.ids.extend(entry_id)
        places = self._places.setdefault(stamp.sender, array("q"))
        if stamp.number > len(places):
            places.extend([-1] * (stamp.number - len(places)))
        places[stamp.number - 1] = place
        if len(self.raw) > self._raw_bytes_max:
            half = len(self.raw) // 2
            del self.raw[:half]
            self.cut += half
        return place

    def id_of(self, frame: int) -> EntryId:
        return self.ids[2 * frame], self.ids[2 * frame + 1]

    def start_of(self, frame: int) -> int:
        """The offset where a frame begins (or will begin, for the one behind the last)."""
        return self.ends[frame - 1] if frame else 0

    def timed(self, times: Times, at_us: int, first: int, end: int, joined_us: int) -> None:
        """Frames first..end-1 reached a member at at_us. What was sent before it joined is not timed."""
        times.delivered += end - first
        if end - first <= SHORT_READ:
            for frame in range(first, end):
                sent_us = self.sent_us[frame]
                if sent_us >= joined_us:
                    times.one(at_us - self.intended_us[frame], at_us - sent_us)
            return
        self._pending.setdefault(times, array("q")).extend((at_us, first, end, joined_us))
        self._pending_frames += end - first
        if self._pending_frames >= PENDING_MAX:
            self.flush()

    def flush(self) -> None:
        """Put the long reads into their histograms."""
        intended = np.frombuffer(self.intended_us, np.int64)
        sent = np.frombuffer(self.sent_us, np.int64)
        for times, reads in self._pending.items():
            at, frames = _spread(np.frombuffer(reads, np.int64).reshape(-1, 4), sent)
            times.latency.record(at - intended[frames])
            times.service.record(at - sent[frames])
        self._pending.clear()
        self._pending_frames = 0


def _spread(reads: Counts, sent: Counts) -> tuple[Counts, Counts]:
    """One row per delivery out of one row per read: when, and which frame."""
    at, first, end, joined = reads.T
    lengths = end - first
    begins = np.cumsum(lengths) - lengths
    frames = np.arange(int(lengths.sum())) + np.repeat(first - begins, lengths)
    timed = sent[frames] >= np.repeat(joined, lengths)
    return np.repeat(at, lengths)[timed], frames[timed]
