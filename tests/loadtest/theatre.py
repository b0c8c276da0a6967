"""A room without sockets: members, lies told to some of them, bytes cut anywhere, and the judge's answer."""

from __future__ import annotations

import json
from collections import Counter
from random import Random

import numpy as np

from loadtest import stamp
from loadtest.channel import RoomEvidence
from loadtest.judge import Counts, judge_room
from loadtest.member import OWED_ALL, Member, Record
from loadtest.stage import Stint
from loadtest.tape import Tape, Times
from loadtest.wires import PLAIN

LIES = ("drop", "double", "swap", "delay", "foreign")


def server_frame(payload: bytes) -> bytes:
    """A server's text frame (RFC 6455, 5.2), written without the harness's help."""
    length = len(payload)
    assert length < 65_536
    head = bytes((0x81, length)) if length < 126 else bytes((0x81, 126)) + length.to_bytes(2, "big")
    return head + payload


def message_frame(room: str, sender: int, number: int, sent_us: int, text: str = "") -> bytes:
    mark = stamp.Stamp("run", room, sender, number, sent_us, sent_us)
    return server_frame(json.dumps({"message": stamp.write(mark, text, 90)}).encode())


class Theatre:
    """`members` members in `processes` processes hear `messages` messages; a lie costs at most one tally."""

    def __init__(self, random: Random, members: int, messages: int, chance: float, processes: int = 1) -> None:
        self.random = random
        self.tally: Counter[str] = Counter()
        self.tapes = [Tape("run", "room", 4_000) for _ in range(processes)]
        self.times = Times("theatre")
        self.stints = [Stint(n, 1) for n in range(members)]
        self.members = [self._member(n, self.tapes[n % processes]) for n in range(members)]
        log = self._log(messages)
        self._play(self._told(log, chance))

    def judge(self) -> Counts:
        return judge_room(
            [
                RoomEvidence(
                    np.array(tape.keys, np.int64),
                    np.array(tape.sent_us, np.int64),
                    np.array(tape.ids, np.int64)[1::2],
                    [m.record for m in self.members if m.tape is tape],
                    self.stints[n :: len(self.tapes)],
                )
                for n, tape in enumerate(self.tapes)
            ]
        )

    def _member(self, number: int, tape: Tape) -> Member:
        record = Record(number, joined_us=0, owed_to=OWED_ALL)
        return Member(tape, PLAIN, record, self.times, lambda heard: None, lambda opcode, payload: None)

    def _log(self, messages: int) -> list[bytes]:
        """The room's true order: each sender's numbers are dense."""
        log = []
        for n in range(messages):
            sender = self.random.randrange(len(self.members))
            sent = self.stints[sender].sent_us
            sent.append(n + 1)
            log.append(message_frame("room", sender, len(sent), n + 1))
        return log

    def _told(self, log: list[bytes], chance: float) -> list[list[bytes]]:
        """What each member is told. Of eight messages at most one is lied about, to one member:
        where two lie about the same two messages there is no truth to be found."""
        streams: list[list[bytes]] = [[] for _ in self.members]
        for at in range(0, len(log), 8):
            part = log[at : at + 8]
            victim = self.random.randrange(len(streams)) if self.random.random() < chance else -1
            for n, stream in enumerate(streams):
                stream.extend(self._lied(part) if n == victim else part)
        return streams

    def _lied(self, part: list[bytes]) -> list[bytes]:
        lie, at = self.random.choice(LIES), self.random.randrange(len(part))
        before, it, behind = part[:at], part[at], part[at + 1 :]
        if lie == "foreign":
            self.tally["foreign"] += 1
            return [*before, it, message_frame("elsewhere", 0, 1, 1), *behind]
        if lie == "double":
            self.tally["doubled"] += 1
            return [*before, it, it, *behind]
        if lie == "drop" or not behind:
            self.tally["lost"] += 1
            return before + behind
        self.tally["reordered"] += 1
        late = 1 if lie == "swap" else len(behind)
        return [*before, *behind[:late], it, *behind[late:]]

    def _play(self, streams: list[list[bytes]]) -> None:
        """Give every member its bytes in pieces of any size, members in any order, none far ahead."""
        rest = [b"".join(stream) for stream in streams]
        now_us = 0
        while any(rest):
            n = max(self.random.sample(range(len(rest)), 2), key=lambda n: len(rest[n]))
            size = self.random.choice((1, 50, 130, 400, 2_000))
            now_us += 100
            if rest[n]:
                self.members[n].feed(rest[n][:size], now_us)
                rest[n] = rest[n][size:]
