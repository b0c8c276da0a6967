"""What a wire is: how a client's text is parsed and what it is told; and how a frame is shared by all who speak it."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from gateway.core import frames
from gateway.core.entry import Entry, EntryId, Gap

# What a client calls its request, given back in the answer.
Ref = str | int | None


class BadMessage(ValueError):
    """The client's text is not what its wire speaks. `args[0]` says why; `ref` is the client's, if legible."""

    def __init__(self, text: str, ref: Ref = None) -> None:
        super().__init__(text)
        self.ref = ref


class Said(NamedTuple):
    """A message: JSON bytes exactly as the client wrote them, what it calls it, and for which room; None: the one that
    it is in."""

    message: bytes
    ref: Ref
    room: str | None = None


class Ping(NamedTuple):
    """Is anybody there? A browser's script can neither send nor see the WebSocket's own."""

    ref: Ref


class Types(NamedTuple):
    """Somebody types in a room."""

    room: str
    ref: Ref


class Asked(msgspec.Struct, tag_field="type"):
    """What else a client of v1 asks: answered in the order of asking. Its fields stand with its type."""

    ref: Ref = None


# What a client's text may mean. Plain only says.
Request = Said | Ping | Types | Asked


def named(room: str) -> bytes:
    """A room's name as frames have it, in JSON."""
    return msgspec.json.encode(room)


@dataclass(frozen=True, eq=False)
class Wire:
    """One client-facing format. Frames are whole, ready for any number of sockets."""

    name: str
    # The connection negotiated permessage-deflate: long frames go out compressed (RFC 7692).
    deflates: bool
    # The WebSocket subprotocol that selects it (RFC 6455 §1.9); None: no subprotocol.
    subprotocol: str | None
    # What a client's text means. Raises BadMessage.
    parse: Callable[[str], Request]
    # Of a room, `named`.
    message: Callable[[bytes, Entry], bytes]
    # The same, and kept with the entry where it was costly to make: for who delivers to many and keeps the entry.
    shared: Callable[[bytes, Entry], bytes]
    # None: the wire has no word for a gap, so the connection has to be closed instead.
    gap: Callable[[bytes, Gap], bytes] | None
    # That an entry which was told before is deleted, or, where the flag is set, all up to it. None: the wire has no
    # word for it. What is walked to when it is deleted already is told as a `message`: a tombstone in its place.
    deleted: Callable[[bytes, EntryId, bool], bytes] | None = None

    @property
    def answers(self) -> bool:
        """Whether a client of this wire is told about its own requests: welcome, ack, error, reconnect."""
        return self.subprotocol is not None


# Escapes that are whole characters, or else half of a surrogate pair (RFC 8259 §7).
_ESCAPED = re.compile(r"\\\\|\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|(?P<half>\\ud[89a-f][0-9a-f]{2})", re.IGNORECASE)
REPLACEMENT = "\ufffd"


def bad_json(text: str, exc: Exception) -> BadMessage:
    """Why this text, which raised that, is not what a wire speaks."""
    if isinstance(exc, RecursionError):
        return BadMessage("JSON nested too deep")
    # msgspec calls this truncated, or says nothing of the half that is missing.
    if isinstance(exc, msgspec.DecodeError):
        for escaped in _ESCAPED.finditer(text):
            if half := escaped["half"]:
                return BadMessage(f"{half} is half of a surrogate pair: send both halves, or the character itself")
    return BadMessage(str(exc))


def made_whole(text: str) -> str:
    """With a replacement character for each half of a surrogate pair."""
    return _ESCAPED.sub(lambda escaped: REPLACEMENT if escaped["half"] else escaped[0], text)


# A string, to the end of the text if need be, so that nothing is looked at twice; or what opens and closes a value.
_NESTING = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\Z)|[\[\]{}]', re.DOTALL)


def flattened(text: str) -> str:
    """The JSON object that it is, without what is nested in it: null stands there."""
    kept, depth, start = list[str](), 0, 0
    for found in _NESTING.finditer(text):
        if found[0] in ("{", "["):
            if depth == 1:
                kept += (text[start : found.start()], "null")
            depth += 1
        elif found[0] in ("}", "]"):
            depth -= 1
            if depth == 1:
                start = found.end()
    return "".join((*kept, text[start:]))


# Of a room and an entry of it, `message` and `shared` of Wire.
Message = Callable[[bytes, Entry], bytes]


def _in_text(payload: Message) -> Message:
    def message(room: bytes, entry: Entry) -> bytes:
        told = payload(room, entry)
        return frames.text(told) if told else told  # a wire has no word for tombstones

    return message


def _in_deflated(name: str, payload: Message) -> Message:
    """Compressed, unless it was once and kept."""

    def message(room: bytes, entry: Entry) -> bytes:
        kept = entry.deflated.get(name) if entry.deflated is not None else None
        if kept is not None:
            return kept
        told = payload(room, entry)
        return frames.deflated(told) if told else told

    return message


def _kept(name: str, message: Message) -> Message:
    """Compress an entry once for all sockets of this wire, also for those that are walked to it later."""

    def shared(room: bytes, entry: Entry) -> bytes:
        frame = message(room, entry)
        if len(entry.message) >= frames.DEFLATE_BYTES_MIN:  # smaller ones cost nothing to make again
            if entry.deflated is None:
                entry.deflated = {}
            entry.deflated[name] = frame
        return frame

    return shared


def pair(
    name: str,
    subprotocol: str | None,
    parse: Callable[[str], Request],
    payload: Message,
    gap: Callable[[bytes, Gap], bytes] | None,
    deleted: Callable[[bytes, EntryId, bool], bytes] | None = None,
) -> tuple[Wire, Wire]:
    """A wire as it is, and with its long frames compressed."""
    plain, deflated = _in_text(payload), _in_deflated(name, payload)
    return (
        Wire(name, False, subprotocol, parse, plain, plain, gap, deleted),
        Wire(name, True, subprotocol, parse, deflated, _kept(name, deflated), gap, deleted),
    )
