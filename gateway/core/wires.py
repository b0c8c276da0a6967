"""What clients say and hear: the wires `plain` and `v1` (docs/protocol.md). Bytes in, bytes out; no sockets."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from gateway.core import frames
from gateway.core.entry import Entry, EntryId, Gap

# One string or integer of the client's choice, so long or with so many digits; longer ones would be an echo amplifier.
REF_CHARS_MAX = 64

Ref = str | int | None


class BadMessage(ValueError):
    """The client's text is not what its wire speaks. `args[0]` says why; `ref` is the client's, if legible."""

    def __init__(self, text: str, ref: Ref = None) -> None:
        super().__init__(text)
        self.ref = ref


class Said(NamedTuple):
    """A message for the room: JSON bytes exactly as the client wrote them, and what it calls it."""

    message: bytes
    ref: Ref


class Asked(NamedTuple):
    """v1's `ping`: is anybody there? A browser's script can neither send nor see the WebSocket's own."""

    ref: Ref


@dataclass(frozen=True, eq=False)
class Wire:
    """One client-facing format. Frames are whole, ready for any number of sockets."""

    name: str
    # The connection negotiated permessage-deflate: long frames go out compressed (RFC 7692).
    deflates: bool
    # The WebSocket subprotocol that selects it (RFC 6455 §1.9); None: no subprotocol.
    subprotocol: str | None
    # What a client's text means. Raises BadMessage.
    parse: Callable[[str], Said | Asked]
    message: Callable[[Entry], bytes]
    # The same, and kept with the entry where it was costly to make: for who delivers to many and keeps the entry.
    shared: Callable[[Entry], bytes]
    # None: the wire has no word for a gap, so the connection has to be closed instead.
    gap: Callable[[Gap], bytes] | None

    @property
    def answers(self) -> bool:
        """Whether a client of this wire is told about its own requests: welcome, ack, error, reconnect."""
        return self.subprotocol is not None


class _PlainSay(msgspec.Struct):
    message: msgspec.Raw


class _V1Say(msgspec.Struct):
    type: str
    message: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    ref: Ref = None


_json = msgspec.json.encode
_decode_plain = msgspec.json.Decoder(_PlainSay).decode
_decode_v1 = msgspec.json.Decoder(_V1Say).decode


# Escapes that are whole characters, and what is then left of a surrogate pair (RFC 8259 §7).
_WHOLE = re.compile(r"\\\\|\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}", re.IGNORECASE)
_HALF = re.compile(r"\\ud[89a-f][0-9a-f]{2}", re.IGNORECASE)


def _bad_json(text: str, exc: Exception) -> BadMessage:
    if isinstance(exc, RecursionError):
        return BadMessage("JSON nested too deep")
    # msgspec calls this truncated, or says nothing of the half that is missing.
    if isinstance(exc, msgspec.DecodeError) and (half := _HALF.search(_WHOLE.sub(" ", text))):
        return BadMessage(f"{half[0]} is half of a surrogate pair: send both halves, or the character itself")
    return BadMessage(str(exc))


def _parse_plain(text: str) -> Said:
    try:
        return Said(bytes(_decode_plain(text).message), None)
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise _bad_json(text, exc) from None


def _plain_payload(entry: Entry) -> bytes:
    return b'{"message":%b}' % entry.message


def _parse_v1(text: str) -> Said | Asked:
    try:
        say = _decode_v1(text)
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise _bad_json(text, exc) from None
    if len(str(say.ref)) > REF_CHARS_MAX:
        raise BadMessage(f"ref has more than {REF_CHARS_MAX} characters")
    if say.type == "ping":
        return Asked(say.ref)
    if say.type != "message":
        raise BadMessage(f"this node knows no type {say.type[:50]!r}", say.ref)
    if isinstance(say.message, msgspec.UnsetType):
        raise BadMessage("Object missing required field `message`", say.ref)
    return Said(bytes(say.message), say.ref)


def _v1_payload(entry: Entry) -> bytes:
    user = _json(entry.user) if entry.user else b"null"
    return b'{"type":"message","id":"%d-%d","from":%b,"user":%b,"message":%b,"at":%d}' % (
        *entry.id,
        _json(entry.sender),
        user,
        entry.message,
        entry.at,
    )


def _v1_gap(gap: Gap) -> bytes:
    return _v1(type="gap", after=str(gap.after), before=str(gap.before), lost=gap.lost)


def welcome(session: str, node: str, room: str, last_id: EntryId, recovered: bool, ping_s: float) -> bytes:
    """v1: the first frame of a session. `recovered`: `after` was given and nothing since it is missing. `ping_s`: how
    long the node lets a quiet connection be; a client that hears nothing for longer may ask."""
    return _v1(
        type="welcome", session=session, node=node, room=room, user=None, last_id=str(last_id), recovered=recovered,
        ping_s=ping_s,
    )  # fmt: skip


def pong(ref: Ref) -> bytes:
    """v1: the answer to a `ping`."""
    return _v1(type="pong") if ref is None else _v1(type="pong", ref=ref)


def ack(ref: Ref, id: EntryId) -> bytes:
    """v1: the message that the client called `ref` is in the log as `id`."""
    return _v1(type="ack", ref=ref, id=str(id))


def error(code: str, text: str, ref: Ref) -> bytes:
    """v1: a request failed and the connection stays. Codes: docs/protocol.md."""
    return _v1(type="error", code=code, text=text, ref=ref)


def reconnect(after_s: float) -> bytes:
    """v1: this node goes away; come back after so many seconds, with the last id."""
    return _v1(type="reconnect", after_s=round(after_s, 3))


def _v1(**fields: object) -> bytes:
    return frames.text(_json(fields))


def _in_text(payload: Callable[[Entry], bytes]) -> Callable[[Entry], bytes]:
    return lambda entry: frames.text(payload(entry))


def _in_deflated(name: str, payload: Callable[[Entry], bytes]) -> Callable[[Entry], bytes]:
    """Compressed, unless it was once and kept."""

    def message(entry: Entry) -> bytes:
        kept = entry.deflated.get(name) if entry.deflated is not None else None
        return frames.deflated(payload(entry)) if kept is None else kept

    return message


def _kept(name: str, message: Callable[[Entry], bytes]) -> Callable[[Entry], bytes]:
    """Compress an entry once for all sockets of this wire, also for those that are walked to it later."""

    def shared(entry: Entry) -> bytes:
        frame = message(entry)
        if len(entry.message) >= frames.DEFLATE_BYTES_MIN:  # smaller ones cost nothing to make again
            if entry.deflated is None:
                entry.deflated = {}
            entry.deflated[name] = frame
        return frame

    return shared


def _wire(
    name: str,
    subprotocol: str | None,
    parse: Callable[[str], Said | Asked],
    payload: Callable[[Entry], bytes],
    gap: Callable[[Gap], bytes] | None,
) -> tuple[Wire, Wire]:
    """As it is, and compressed."""
    plain, deflated = _in_text(payload), _in_deflated(name, payload)
    return (
        Wire(name, False, subprotocol, parse, plain, plain, gap),
        Wire(name, True, subprotocol, parse, deflated, _kept(name, deflated), gap),
    )


# What the tutorial's page speaks. A plain session is never sent anything but messages.
PLAIN, PLAIN_DEFLATE = _wire("plain", None, _parse_plain, _plain_payload, None)
# hiroba's own: ids, acknowledgements, gaps.
V1, V1_DEFLATE = _wire("v1", "hiroba.v1", _parse_v1, _v1_payload, _v1_gap)
WIRES = (PLAIN, V1)
DEFLATING = {PLAIN: PLAIN_DEFLATE, V1: V1_DEFLATE}
