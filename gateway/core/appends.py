"""What a request appends to a Durable Stream, and whose it is. Pure. Sections: as in `streams.py`."""

import re
from typing import NamedTuple

import msgspec

from gateway.core.entry import EntryId, entry_id
from gateway.core.streams import BadRequest
from gateway.core.wires.wire import BadMessage, bad_json

_NUMBER = re.compile(r"\d{1,16}\Z", re.ASCII)
# Section 5.2.1, for the sake of JavaScript.
_NUMBER_MAX = 2**53 - 1
# A UUID and a service's name: what the broker keeps of a writer.
WRITER_BYTES_MAX = 128

_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode = msgspec.json.Decoder(msgspec.Raw).decode


class Producer(NamedTuple):
    """Whose a bundle is, and which of theirs (section 5.2.1)."""

    id: bytes
    epoch: int
    seq: int


class Once(NamedTuple):
    """A request that may come again and is done once."""

    # Whose it is, and what they call it.
    key: str
    # What it was, in hexadecimal digits: another one with this key is refused.
    mark: str


class Condition(NamedTuple):
    """What a request must follow to be appended: its producer's last one, the room's last Stream-Seq; and that it was
    not appended before. None: nothing."""

    producer: Producer | None = None
    sequence: bytes | None = None
    once: Once | None = None


def sequence(text: str | None) -> bytes | None:
    """Of the header Stream-Seq (section 5.2): whatever bytes, compared one by one. Raises BadRequest."""
    if text is None:
        return None
    raw = text.encode(errors="surrogateescape")
    if not 0 < len(raw) <= WRITER_BYTES_MAX:
        raise BadRequest(f"Stream-Seq has 1 to {WRITER_BYTES_MAX} bytes")
    return raw


def producer(id: str | None, epoch: str | None, seq: str | None) -> Producer | None:
    """Of the headers Producer-Id, -Epoch, -Seq; None: they are not there. Raises BadRequest."""
    if id is None and epoch is None and seq is None:
        return None
    if not id or epoch is None or seq is None:
        raise BadRequest("Producer-Id, Producer-Epoch and Producer-Seq come together, and none is empty")
    name = id.encode(errors="surrogateescape")
    if len(name) > WRITER_BYTES_MAX:
        raise BadRequest(f"Producer-Id has at most {WRITER_BYTES_MAX} bytes")
    return Producer(name, _number("Producer-Epoch", epoch), _number("Producer-Seq", seq))


def _number(header: str, text: str) -> int:
    if not _NUMBER.match(text) or int(text) > _NUMBER_MAX:
        raise BadRequest(f"{header} is a number from 0 to 2^53 - 1")
    return int(text)


def messages(body: bytes) -> list[msgspec.Raw]:
    """What a body appends: the elements of an array, or the one value that it is (section 9.1.2). Raises BadMessage."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise BadMessage("text that is not UTF-8") from None
    try:
        if text.lstrip(" \t\r\n").startswith("["):
            return _decode_array(text)
        return [_decode(text)]
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise bad_json(text, exc) from None


class Told(NamedTuple):
    """What publish.lua tells somebody whose bundle does not follow what it must, or is there already."""

    word: str
    number: int
    # Of `repeated`: where its last bundle ended.
    id: EntryId | None


def told(line: bytes) -> Told:
    """`=` and a line as the script has it."""
    word, _, values = line[1:].partition(b" ")
    number, _, id = values.partition(b" ")
    return Told(word.decode(), int(number or b"0"), entry_id(id) if id else None)
