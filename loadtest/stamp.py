"""What each message of a run carries so that it can be judged wherever it turns up. Pure.

A stamp is a string, because a string survives every server of the plain wire unchanged:
`lt1|run|room|sender|number|intended_us|sent_us|text`, times in microseconds since the run began.
"""

from __future__ import annotations

from typing import NamedTuple

MARK = "lt1|"

# A key is sender and number in one integer: it sorts by sender, fits an array, hashes fast.
_NUMBER_BITS = 32


class Stamp(NamedTuple):
    run: str
    room: str
    sender: int
    number: int  # 1, 2, 3 ... per sender and room
    intended_us: int  # when the plan wanted it sent
    sent_us: int  # when it was written to the socket

    @property
    def key(self) -> int:
        return key_of(self.sender, self.number)


def key_of(sender: int, number: int) -> int:
    return sender << _NUMBER_BITS | number


def sender_and_number(key: int) -> tuple[int, int]:
    return key >> _NUMBER_BITS, key & (1 << _NUMBER_BITS) - 1


def write(stamp: Stamp, text: str, length: int) -> str:
    """The message's text, padded to `length` characters where it is shorter."""
    words = f"{MARK}{'|'.join(map(str, stamp))}|{text}"
    return words if len(words) >= length else words.ljust(length, ".")


def read(message: object) -> Stamp | None:
    """The stamp of a message, or None: then it is not of a load test."""
    if not isinstance(message, str) or not message.startswith(MARK):
        return None
    words = message.split("|", 7)
    if len(words) != 8:
        return None
    try:
        return Stamp(words[1], words[2], int(words[3]), int(words[4]), int(words[5]), int(words[6]))
    except ValueError:
        return None
