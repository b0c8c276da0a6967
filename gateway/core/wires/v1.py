"""The wire `v1`, hiroba's own: ids, acknowledgements, gaps (docs/protocol.md)."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import get_args

import msgspec

from gateway.core import frames
from gateway.core.entry import Entry, EntryId, Gap, parse_id
from gateway.core.paging import Page
from gateway.core.user import Grant
from gateway.core.wires.wire import (
    REPLACEMENT,
    Asked,
    BadMessage,
    Ping,
    Ref,
    Request,
    Said,
    Types,
    bad_json,
    flattened,
    made_whole,
    named,
    pair,
)

# One string or integer of the client's choice, so long or with so many digits; longer ones would be an echo amplifier.
REF_CHARS_MAX = 64
# To flatten so much takes 3 ms at worst, and all rooms wait for it.
_FLATTENED_CHARS_MAX = 16_384


class _Typed(msgspec.Struct):
    """What every frame of a client has."""

    type: str
    ref: Ref = None


class _Frame(msgspec.Struct, tag_field="type"):
    ref: Ref = None


class _Say(_Frame, tag="message"):
    message: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    room: str | None = None

    def request(self) -> Request:
        if isinstance(self.message, msgspec.UnsetType):
            raise BadMessage("Object missing required field `message`", self.ref)
        return Said(bytes(self.message), self.ref, self.room)


class _Ping(_Frame, tag="ping"):
    def request(self) -> Request:
        return Ping(self.ref)


class _Type(_Frame, tag="typing", kw_only=True):
    room: str

    def request(self) -> Request:
        return Types(self.room, self.ref)


class _Question(Asked):
    """A frame that is asked as it is."""

    def request(self) -> Request:
        return self


class Join(_Question, tag="join", kw_only=True):
    """Be in a room too: behind `after`, or with the last `history` entries. `presence`: and hear who is there."""

    room: str
    after: str | None = None
    history: int = 0
    presence: bool = False


class Leave(_Question, tag="leave", kw_only=True):
    """Be in it no more."""

    room: str


class History(_Question, tag="history", kw_only=True):
    """A page of what the room has below an entry, or below where this connection's messages of it began."""

    room: str
    limit: int
    before: str | None = None

    def request(self) -> Request:
        if self.before is not None:
            try:
                parse_id(self.before)
            except ValueError as exc:
                raise BadMessage(f"`before` is {exc}", self.ref) from None
        return self


class Watch(_Question, tag="watch", kw_only=True):
    """Hear how far these rooms grow, and nothing else of them."""

    rooms: list[str]


class Unwatch(_Question, tag="unwatch", kw_only=True):
    """Hear it of these no more."""

    rooms: list[str]


class Read(_Question, tag="read", kw_only=True):
    """The user has read up to this entry."""

    room: str
    id: str

    def request(self) -> Request:
        try:
            parse_id(self.id)
        except ValueError as exc:
            raise BadMessage(f"`id` is {exc}", self.ref) from None
        return self


class Presence(_Question, tag="presence", kw_only=True):
    """Who is in it?"""

    room: str


class Refresh(_Question, tag="refresh", kw_only=True):
    """Go on by a newer token of the same user."""

    token: str


_Any = _Say | _Ping | _Type | Join | Leave | History | Watch | Unwatch | Read | Presence | Refresh
_TYPES = {kind.__struct_config__.tag for kind in get_args(_Any)}

_json = msgspec.json.encode
_decode = msgspec.json.Decoder(_Any).decode
_decode_typed = msgspec.json.Decoder(_Typed).decode


def _parse(text: str) -> Request:
    try:
        frame = _decode(text)
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise _bad_frame(text, exc) from None
    if len(str(frame.ref)) > REF_CHARS_MAX:
        raise _long_ref()
    request: Request = frame.request()
    return request


def _long_ref() -> BadMessage:
    return BadMessage(f"ref has more than {REF_CHARS_MAX} characters")


def _bad_frame(text: str, exc: Exception) -> BadMessage:
    """What is wrong with it, said to the request that it is, where that can be read."""
    try:
        typed = _decode_typed(text)
    except (msgspec.MsgspecError, RecursionError) as worse:
        bad = bad_json(text, worse)
        bad.ref = _ref_beside(text, worse)
        return bad
    if len(str(typed.ref)) > REF_CHARS_MAX:
        return _long_ref()
    if typed.type not in _TYPES:
        return BadMessage(f"this node knows no type {typed.type[:50]!r}", typed.ref)
    return BadMessage(str(exc), typed.ref)


def _ref_beside(text: str, exc: Exception) -> Ref:
    """Of a frame in which nothing is wrong but halves of surrogate pairs, or that it is nested too deep: who sent it
    has to know which one it was."""
    deep = isinstance(exc, RecursionError)
    if deep and len(text) > _FLATTENED_CHARS_MAX:
        return None
    try:
        ref = _decode_typed(flattened(text) if deep else made_whole(text)).ref
    except (msgspec.MsgspecError, RecursionError):
        return None
    return None if REPLACEMENT in str(ref) or len(str(ref)) > REF_CHARS_MAX else ref


# An entry as a message's frame and a page have it.
_ENTRY = b'"id":"%d-%d","from":%b,"user":%b,"message":%b,"at":%d}'
_MESSAGE = b'{"type":"message","room":%b,' + _ENTRY
_PAGED = b"{" + _ENTRY
# For clients that do not look for `deleted` it is a message that says nothing.
_PAGED_TOMBSTONE = b'{"id":"%d-%d","from":"","user":null,"message":null,"at":%d,"deleted":true}'


def payload(room: bytes, entry: Entry) -> bytes:
    """A `message` without its frame; of a tombstone a `deleted`."""
    if not entry.message:
        return deleted_payload(room, entry.id, False)
    return _MESSAGE % (room, *entry.id, _json(entry.sender), entry.user or b"null", entry.message, entry.at)


def _paged(entry: Entry) -> bytes:
    if not entry.message:
        return _PAGED_TOMBSTONE % (*entry.id, entry.at)
    return _PAGED % (*entry.id, _json(entry.sender), entry.user or b"null", entry.message, entry.at)


def deleted_payload(room: bytes, id: EntryId, all_up_to: bool) -> bytes:
    """A `deleted` without its frame."""
    return b'{"type":"deleted","room":%b,"%b":"%d-%d"}' % (room, b"up_to" if all_up_to else b"id", *id)


def _deleted(room: bytes, id: EntryId, all_up_to: bool) -> bytes:
    return frames.text(deleted_payload(room, id, all_up_to))


def gap_payload(room: bytes, gap: Gap) -> bytes:
    """A `gap` without its frame."""
    return json(type="gap", room=msgspec.Raw(room), **_hole(gap))


def _gap(room: bytes, gap: Gap) -> bytes:
    return frames.text(gap_payload(room, gap))


def _hole(gap: Gap) -> dict[str, object]:
    return {"after": str(gap.after), "before": str(gap.before), "lost": gap.lost}


def history(room: str, page: Page, ref: Ref, deflates: bool) -> bytes:
    """The answer to a `history`: entries as in `message` and gaps as in `gap`, but for type and room."""
    entries = msgspec.Raw(b"[%b]" % b",".join(map(_paged, page.entries)))
    gaps = [_hole(gap) for gap in page.gaps]
    answer = json(**_fields(ref, type="history", room=room, entries=entries, gaps=gaps, more=page.more))
    return frames.deflated(answer) if deflates else frames.text(answer)


def welcome_payload(
    session: str, node: str, room: str | None, last_id: EntryId | None, recovered: bool, ping_s: float, grant: Grant
) -> bytes:
    """What a connection hears first; `room`, `last_id`: None of one that is in no room yet. `recovered`: `after` was
    given and nothing since it is missing. `ping_s`: how long the node lets a quiet connection be; a client that hears
    nothing for longer may ask. `grant`: what it was let in with."""
    return json(
        type="welcome", session=session, node=node, room=room, user=msgspec.Raw(grant.user.json or b"null"),
        rights=None if room is None else grant.rights.of(room), expires_at=grant.expires_at,
        last_id=None if last_id is None else str(last_id), recovered=recovered,
        ping_s=ping_s,
    )  # fmt: skip


def welcome(
    session: str, node: str, room: str | None, last_id: EntryId | None, recovered: bool, ping_s: float, grant: Grant
) -> bytes:
    """The first frame of a connection."""
    return frames.text(welcome_payload(session, node, room, last_id, recovered, ping_s, grant))


@dataclass(frozen=True, slots=True)
class Here:
    """Who is in a room, as JSON each; None: they are too many. `follow`: they are told by `presence` frames."""

    members: Collection[bytes] | None
    count: int
    follow: bool = False


def joined(
    room: str,
    last_id: EntryId,
    recovered: bool,
    rights: str,
    ref: Ref,
    read: EntryId | None,
    here: Here | None = None,
) -> bytes:
    """The answer to a `join`: from here on the connection hears the room. As in the welcome; `read`: up to where the
    user has read; `here`: who is in it, to who asked."""
    marker = None if read is None else str(read)
    fields: dict[str, object] = {"last_id": str(last_id), "recovered": recovered, "rights": rights, "read": marker}
    if here is not None:
        fields["count"] = here.count
        if not here.follow:
            fields["members"] = None if here.members is None else _listed(here.members)
    return _answer(ref, type="joined", room=room, **fields)


def members_payload(room: str, joined: Iterable[bytes], left: Iterable[bytes], count: int) -> bytes:
    """Who came and went, and how many are here now; without its frame."""
    return json(type="members", room=room, joined=_listed(joined), left=_listed(left), count=count)


def count_payload(room: str, count: int) -> bytes:
    """How many are here, and no more: they are too many. Without its frame."""
    return json(type="members", room=room, count=count)


def presence(room: str, members: Iterable[bytes] | None, count: int, more: bool, ref: Ref = None) -> bytes:
    """A page of all who are here; None: they are too many."""
    listed = None if members is None else _listed(members)
    return _answer(ref, type="presence", room=room, members=listed, count=count, more=more)


def _listed(members: Iterable[bytes]) -> msgspec.Raw:
    return msgspec.Raw(b"[%b]" % b",".join(members))


def read(room: str, id: EntryId) -> bytes:
    """The user has read up to here, on another connection."""
    return _frame(type="read", room=room, id=str(id))


def typing(room: bytes, users: Iterable[bytes], for_s: float) -> bytes:
    """Who types in a room, `named`: users in JSON. It counts until the next one, for so many seconds at most. Without
    its frame."""
    return json(type="typing", room=msgspec.Raw(room), users=[*map(msgspec.Raw, users)], for_s=for_s)


def refreshed(expires_at: float | None, ref: Ref) -> bytes:
    """The answer to a `refresh`: until when the connection may go on, Unix seconds."""
    return _answer(ref, type="refreshed", expires_at=expires_at)


def left(room: str, ref: Ref = None, reason: str | None = None) -> bytes:
    """The last frame of a session; `reason`: the server ended it, a label of Close."""
    if reason is None:
        return _answer(ref, type="left", room=room)
    return _frame(type="left", room=room, reason=reason)


def top(room: str, id: EntryId) -> bytes:
    """How far a room is, or its reader in it: a piece of `tops`."""
    return b'%b:"%d-%d"' % (named(room), *id)


def tops(pieces: Iterable[bytes], ref: Ref = None, read: Sequence[bytes] = ()) -> bytes:
    """How far rooms are: the answer to a `watch` or `unwatch`, or those that grew since. `read`: up to where the
    user has read, in pieces too."""
    answer = b"" if ref is None else b',"ref":%b' % _json(ref)
    if read:
        answer += b',"read":{%b}' % b",".join(read)
    return frames.text(b'{"type":"tops","rooms":{%b}%b}' % (b",".join(pieces), answer))


def pong(ref: Ref) -> bytes:
    """The answer to a `ping`."""
    return _answer(ref, type="pong")


def ack(ref: Ref, room: str, id: EntryId) -> bytes:
    """The message that the client called `ref` is in the room's log as `id`."""
    return _frame(type="ack", ref=ref, room=room, id=str(id))


def error(code: str, text: str, ref: Ref, room: str | None = None) -> bytes:
    """A request, of a room or of none, failed and the connection stays. Codes: docs/protocol.md."""
    if room is None:
        return _frame(type="error", code=code, text=text, ref=ref)
    return _frame(type="error", code=code, text=text, ref=ref, room=room)


def reconnect_payload(after_s: float) -> bytes:
    """A `reconnect` without its frame."""
    return json(type="reconnect", after_s=round(after_s, 3))


def reconnect(after_s: float) -> bytes:
    """This node goes away; come back after so many seconds, with the last id."""
    return frames.text(reconnect_payload(after_s))


def json(**fields: object) -> bytes:
    """An object without its frame."""
    return _json(fields)


def _answer(ref: Ref, **fields: object) -> bytes:
    return _frame(**_fields(ref, **fields))


def _fields(ref: Ref, **fields: object) -> dict[str, object]:
    return fields if ref is None else {**fields, "ref": ref}


def _frame(**fields: object) -> bytes:
    return frames.text(_json(fields))


V1, V1_DEFLATE = pair("v1", "hiroba.v1", _parse, payload, _gap, _deleted)
