"""What clients say and hear: the wires `plain` and `v1` (docs/protocol.md). Bytes in, bytes out; no sockets."""

from collections.abc import Callable

import msgspec

from gateway.core import frames
from gateway.core.entry import Entry, EntryId, Gap

# One string or integer of the client's choice; longer ones would be an echo amplifier.
REF_CHARS_MAX = 64

Ref = str | int | None


class BadMessage(ValueError):
    """The client's text is not what its wire speaks. `args[0]` says why in words; `ref` is the client's, if it was legible."""

    def __init__(self, text: str, ref: Ref = None) -> None:
        super().__init__(text)
        self.ref = ref


class _PlainSay(msgspec.Struct):
    message: msgspec.Raw


class _V1Say(msgspec.Struct):
    type: str
    message: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    ref: Ref = None


_json = msgspec.json.encode
_decode_plain = msgspec.json.Decoder(_PlainSay).decode
_decode_v1 = msgspec.json.Decoder(_V1Say).decode

# RecursionError: JSON nested deeper than the parser goes.
_BAD_JSON = (msgspec.MsgspecError, RecursionError)


def _reason(exc: Exception) -> str:
    return "JSON nested too deep" if isinstance(exc, RecursionError) else str(exc)


class Wire:
    """One client-facing format. Everything it returns is a whole frame, ready for any number of sockets."""

    name: str
    # The WebSocket subprotocol that selects it (RFC 6455 §1.9); None: no subprotocol.
    subprotocol: str | None

    @staticmethod
    def parse(text: str) -> tuple[bytes, Ref]:
        """The message as JSON bytes, exactly as the client wrote it, and its ref; BadMessage if it is none."""
        raise NotImplementedError  # pragma: no cover

    @staticmethod
    def message(entry: Entry) -> bytes:
        """The frame of one entry."""
        raise NotImplementedError  # pragma: no cover

    # What only a wire with frames of its own can tell; None: the connection has to be closed instead.
    gap: Callable[[Gap], bytes] | None = None


class Plain(Wire):
    """What the tutorial's page speaks. A plain session is never sent anything but messages."""

    name = "plain"
    subprotocol = None

    @staticmethod
    def parse(text: str) -> tuple[bytes, Ref]:
        try:
            return bytes(_decode_plain(text).message), None
        except _BAD_JSON as exc:
            raise BadMessage(_reason(exc)) from None

    @staticmethod
    def message(entry: Entry) -> bytes:
        return frames.text(b'{"message":%b}' % entry.message)


class V1(Wire):
    """hiroba's own wire: ids, acknowledgements, gaps."""

    name = "v1"
    subprotocol = "hiroba.v1"

    @staticmethod
    def parse(text: str) -> tuple[bytes, Ref]:
        try:
            say = _decode_v1(text)
        except _BAD_JSON as exc:
            raise BadMessage(_reason(exc)) from None
        ref = say.ref if not isinstance(say.ref, str) or len(say.ref) <= REF_CHARS_MAX else None
        if say.type != "message":
            raise BadMessage(f"this node knows no type {say.type[:50]!r}", ref)
        if say.message is msgspec.UNSET:
            raise BadMessage("no message", ref)
        if ref != say.ref:
            raise BadMessage(f"ref has more than {REF_CHARS_MAX} characters")
        return bytes(say.message), ref

    @staticmethod
    def message(entry: Entry) -> bytes:
        user = _json(entry.user) if entry.user else b"null"
        return frames.text(
            b'{"type":"message","id":"%d-%d","from":%b,"user":%b,"message":%b,"at":%d}'
            % (entry.id.ms, entry.id.n, _json(entry.sender), user, entry.message, entry.id.ms)
        )

    @staticmethod
    def welcome(session: str, node: str, room: str, last_id: EntryId, recovered: bool) -> bytes:
        """The first frame of a session. `recovered`: `after` was given and nothing since it is missing."""
        return _frame(
            type="welcome",
            session=session,
            node=node,
            room=room,
            user=None,
            last_id=str(last_id),
            recovered=recovered,
        )

    @staticmethod
    def ack(ref: Ref, id: EntryId) -> bytes:
        """The message that the client called `ref` is in the log as `id`."""
        return _frame(type="ack", ref=ref, id=str(id))

    @staticmethod
    def gap(gap: Gap) -> bytes:  # type: ignore[override]  # mypy reads the base's optional callable as a method
        return _frame(type="gap", after=str(gap.after), before=str(gap.before), lost=gap.lost)

    @staticmethod
    def error(code: str, text: str, ref: Ref) -> bytes:
        """A request failed and the connection stays. Codes: docs/protocol.md."""
        return _frame(type="error", code=code, text=text, ref=ref)

    @staticmethod
    def reconnect(after_s: float) -> bytes:
        """This node goes away; come back after so many seconds, with the last id."""
        return _frame(type="reconnect", after_s=round(after_s, 3))


def _frame(**fields: object) -> bytes:
    return frames.text(_json(fields))


PLAIN = Plain()
V1_WIRE = V1()
WIRES: tuple[Wire, ...] = (PLAIN, V1_WIRE)
SUBPROTOCOLS = {wire.subprotocol: wire for wire in WIRES if wire.subprotocol}
