"""The wire `v1`, hiroba's own: ids, acknowledgements, gaps (docs/protocol.md)."""

import msgspec

from gateway.core import frames
from gateway.core.entry import Entry, EntryId, Gap
from gateway.core.wires.wire import Asked, BadMessage, Ref, Said, bad_json, pair

# One string or integer of the client's choice, so long or with so many digits; longer ones would be an echo amplifier.
REF_CHARS_MAX = 64


class _Say(msgspec.Struct):
    type: str
    message: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    ref: Ref = None


_json = msgspec.json.encode
_decode = msgspec.json.Decoder(_Say).decode


def _parse(text: str) -> Said | Asked:
    try:
        say = _decode(text)
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise bad_json(text, exc) from None
    if len(str(say.ref)) > REF_CHARS_MAX:
        raise BadMessage(f"ref has more than {REF_CHARS_MAX} characters")
    if say.type == "ping":
        return Asked(say.ref)
    if say.type != "message":
        raise BadMessage(f"this node knows no type {say.type[:50]!r}", say.ref)
    if isinstance(say.message, msgspec.UnsetType):
        raise BadMessage("Object missing required field `message`", say.ref)
    return Said(bytes(say.message), say.ref)


def _payload(entry: Entry) -> bytes:
    user = _json(entry.user) if entry.user else b"null"
    return b'{"type":"message","id":"%d-%d","from":%b,"user":%b,"message":%b,"at":%d}' % (
        *entry.id,
        _json(entry.sender),
        user,
        entry.message,
        entry.at,
    )


def _gap(gap: Gap) -> bytes:
    return _frame(type="gap", after=str(gap.after), before=str(gap.before), lost=gap.lost)


def welcome(session: str, node: str, room: str, last_id: EntryId, recovered: bool, ping_s: float) -> bytes:
    """The first frame of a session. `recovered`: `after` was given and nothing since it is missing. `ping_s`: how
    long the node lets a quiet connection be; a client that hears nothing for longer may ask."""
    return _frame(
        type="welcome", session=session, node=node, room=room, user=None, last_id=str(last_id), recovered=recovered,
        ping_s=ping_s,
    )  # fmt: skip


def pong(ref: Ref) -> bytes:
    """The answer to a `ping`."""
    return _frame(type="pong") if ref is None else _frame(type="pong", ref=ref)


def ack(ref: Ref, id: EntryId) -> bytes:
    """The message that the client called `ref` is in the log as `id`."""
    return _frame(type="ack", ref=ref, id=str(id))


def error(code: str, text: str, ref: Ref) -> bytes:
    """A request failed and the connection stays. Codes: docs/protocol.md."""
    return _frame(type="error", code=code, text=text, ref=ref)


def reconnect(after_s: float) -> bytes:
    """This node goes away; come back after so many seconds, with the last id."""
    return _frame(type="reconnect", after_s=round(after_s, 3))


def _frame(**fields: object) -> bytes:
    return frames.text(_json(fields))


V1, V1_DEFLATE = pair("v1", "hiroba.v1", _parse, _payload, _gap)
