"""What one member of a room received, as ranges of the room's tape. No sockets, no judgement.

`feed` is the hot road of the harness: bytes that continue the tape cost one comparison. Only what differs
is parsed: frames for this member alone (ack, welcome, ping), and everything that a server got wrong.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field

from loadtest import frames, stamp
from loadtest.tape import Tape, Times
from loadtest.wires import EntryId, Heard, Wire


@dataclass(slots=True)
class Record:
    """A member's evidence: enough to rebuild every delivery in order. Frame numbers are the tape's."""

    user: int
    joined_us: int
    first: int = -1  # the first frame heard; -1: none
    end: int = 0  # the next frame on the tape
    jumps: list[tuple[int, int]] = field(default_factory=list)  # (from, to): frames between were not heard
    strays: list[tuple[int, int]] = field(default_factory=list)  # (end at that time, key): heard elsewhere
    # Owed is every frame below `owed_to`; -1: only up to the last one heard; OWED_ALL: all of the run.
    owed_to: int = -1
    foreign: int = 0  # messages of another room, another run, or no run at all
    gaps: list[tuple[int, int]] = field(default_factory=list)  # v1 told: counts between these are gone
    replayed: int = 0  # v1: got back after a resume


OWED_ALL = 1 << 60

# Stands on the tape for a message that came in fragments: bytes that no frame begins with (RFC 6455, 5.2).
FRAGMENTED = b"\xff\xff"


class Member:
    """Reads a socket's bytes on behalf of one member. `feed` raises frames.BadFrame on broken framing."""

    def __init__(
        self,
        tape: Tape,
        wire: Wire,
        record: Record,
        times: Times,
        on_told: Callable[[Heard], None],
        on_control: Callable[[int, bytes], None],
    ) -> None:
        self.tape = tape
        self.record = record
        self.waiting: dict[int, Callable[[], None]] = {}  # key of an own message -> called when it is heard
        self.newest: EntryId = (0, 0)  # v1: highest entry id known from the welcome or a stray
        self._wire = wire
        self._times = times
        self._on_told = on_told
        self._on_control = on_control
        self._held = b""  # the beginning of a frame whose rest has not come
        self._pieces = b""  # a fragmented message so far
        self._timed_from_us = record.joined_us
        self._resumed_below = 0
        self._strays: set[int] = set()

    def feed(self, chunk: bytes, now_us: int) -> None:
        if self._held:
            chunk = self._held + chunk
            self._held = b""
        tape = self.tape
        record = self.record
        here = record.end
        start = tape.ends[here - 1] if here else 0
        at = start - tape.cut
        if at < 0 or record.first < 0 or not tape.raw.startswith(chunk, at):
            self._read(chunk, now_us)
            return
        # Every byte is the tape's next: no need to look at any of them.
        goal = start + len(chunk)
        end = here + 1 if tape.ends[here] == goal else bisect_right(tape.ends, goal, here)
        if end == here or tape.ends[end - 1] != goal:
            self._held = chunk[tape.start_of(end) - start :]
        if end > here:
            self._advance(end, now_us)

    def rejoined(self, at_us: int, below: int) -> None:
        """The next bytes come from a new connection of the same membership (resume on v1).

        Entries up to the count `below` were missed while away and come again: they are not timed.
        """
        self._held = self._pieces = b""
        self._timed_from_us = at_us
        self._resumed_below = below

    def has(self, key: int) -> bool:
        """Did this member receive the message? (Not: did the room.)"""
        if key in self._strays:
            return True
        place = self.tape.find(key)
        record = self.record
        return 0 <= record.first <= place < record.end and not any(a <= place < b for a, b in record.jumps)

    @property
    def last_id(self) -> EntryId:
        """The entry id to resume after (v1)."""
        heard = self.tape.id_of(self.record.end - 1) if self.record.first >= 0 else (0, 0)
        return max(heard, self.newest)

    def _advance(self, end: int, now_us: int) -> None:
        record = self.record
        here, record.end = record.end, end
        self.tape.timed(self._times, now_us, here, end, self._timed_from_us)
        if self._resumed_below:
            record.replayed += sum(self.tape.id_of(f)[1] <= self._resumed_below for f in range(here, end))
        if self.waiting or self._strays:
            self._caught_up()

    def _read(self, data: bytes, now_us: int) -> None:
        """Frame by frame; those that are the tape's next are still not parsed."""
        at = 0
        while at < len(data):
            bounds = frames.split(data, at)
            if bounds is None:
                self._held = data[at:]
                return
            payload, end = bounds
            if self._is_next(data[at:end]):
                self._advance(self.record.end + 1, now_us)
            else:
                self._take(data[at], data[at:end], data[payload:end], now_us)
            at = end

    def _is_next(self, frame: bytes) -> bool:
        tape, here = self.tape, self.record.end
        if self.record.first < 0 or here >= len(tape):
            return False
        start = tape.start_of(here)
        in_raw = start - tape.cut
        return in_raw >= 0 and tape.ends[here] - start == len(frame) and tape.raw.startswith(frame, in_raw)

    def _take(self, head: int, frame: bytes, payload: bytes, now_us: int) -> None:
        opcode, final = head & 0x0F, head & 0x80
        if head & 0x70:
            raise frames.BadFrame("the server sets reserved bits that were not negotiated (RFC 6455, 5.2)")
        if opcode >= frames.CLOSE:
            self._on_control(opcode, payload)
        elif not final or opcode == frames.CONTINUATION:
            self._pieces += payload
            if final:
                whole, self._pieces = self._pieces, b""
                self._text(whole, FRAGMENTED, now_us)
        elif opcode == frames.TEXT:
            self._text(payload, frame, now_us)
        else:
            self.record.foreign += 1

    def _text(self, payload: bytes, frame: bytes, now_us: int) -> None:
        heard = self._wire.hear(payload)
        if heard.kind == "message":
            self.message(heard, frame, now_us)
        elif heard.kind == "nonsense":
            self.record.foreign += 1
        else:
            self._on_told(heard)

    def message(self, heard: Heard, frame: bytes, now_us: int) -> None:
        """One that is not the tape's next, byte for byte. `frame` goes on the tape if it is the first there."""
        mark = stamp.read(heard.message)
        tape, record = self.tape, self.record
        if mark is None or mark.run != tape.run or mark.room != tape.room:
            record.foreign += 1
            return
        key = mark.key
        place = tape.find(key)
        new_inside = place < 0 and record.first >= 0 and record.end < len(tape)
        if place < 0:
            place = tape.add(mark, frame, heard.entry_id)
        if record.first < 0:
            record.first = record.end = place
        if new_inside or place < record.end or key in self._strays:
            self._stray(key, place, now_us)
            return
        if place > record.end:
            record.jumps.append((record.end, place))
            record.end = place
        self._advance(place + 1, now_us)

    def _stray(self, key: int, place: int, now_us: int) -> None:
        """A message out of the tape's order, or once more. Which of the two is judged after the run."""
        record = self.record
        if not self.has(key):
            self.tape.timed(self._times, now_us, place, place + 1, self._timed_from_us)
        self.newest = max(self.newest, self.tape.id_of(place))
        record.strays.append((record.end, key))
        self._strays.add(key)
        self._caught_up()

    def _caught_up(self) -> None:
        tape, record = self.tape, self.record
        here = record.end
        while record.end < len(tape) and tape.keys[record.end] in self._strays:
            record.end += 1
        if record.end > here:
            record.jumps.append((here, record.end))
        for key in [key for key in self.waiting if self.has(key)]:
            self.waiting.pop(key)()
