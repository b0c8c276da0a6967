"""The wire `sse`: a room as server-sent events, for who only listens (HTML standard, section 9.2; docs/protocol.md).

What is told is v1's, its JSON as it is: an event is a field of the stream around it. A reader comes back with the last
`id` that it saw, so every entry has one, and the welcome the one where the session begins.
"""

import re

from gateway.core.entry import Entry, EntryId, Gap
from gateway.core.wires import v1
from gateway.core.wires.wire import BadMessage, Request, Wire

# What nobody is told: a stream that was quiet for ping_s would be cut by who stands between.
COMMENT = b":\n\n"

# What ends a line of the stream. In JSON they stand between tokens only, wherever a client chose to write them.
_LINE_END = re.compile(rb"\r\n?|\n")


def _parse(text: str) -> Request:
    raise BadMessage("an event stream is not spoken to")


def _message(room: bytes, entry: Entry) -> bytes:
    if not entry.message:
        return b"id: %d-%d\n%b" % (*entry.id, _deleted(room, entry.id, False))
    return b"id: %d-%d\ndata: %b\n\n" % (*entry.id, lines(v1.payload(room, entry)))


def _gap(room: bytes, gap: Gap) -> bytes:
    return b"event: gap\ndata: %b\n\n" % v1.gap_payload(room, gap)


def _deleted(room: bytes, id: EntryId, all_up_to: bool) -> bytes:
    # Without an `id` of its own: who comes back would begin there.
    return b"event: deleted\ndata: %b\n\n" % v1.deleted_payload(room, id, all_up_to)


def lines(json: bytes) -> bytes:
    """JSON as data: each of its lines has a field of its own."""
    return _LINE_END.sub(b"\ndata: ", json)


def welcome(cursor: EntryId, retry_s: float, told: bytes) -> bytes:
    """The first event. `cursor`: where the session begins, for who comes back before it saw any entry. `retry_s`: how
    long to wait before that. `told`: v1's welcome."""
    return b"id: %d-%d\nretry: %d\nevent: welcome\ndata: %b\n\n" % (*cursor, _ms(retry_s), told)


def reconnect(after_s: float) -> bytes:
    """The last event of a node that goes away: come back after so many seconds."""
    return b"retry: %d\nevent: reconnect\ndata: %b\n\n" % (_ms(after_s), v1.reconnect_payload(after_s))


def refused(retry_s: float, reason: str, text: str) -> bytes:
    """The only event of a stream that did not come about: try again after so many seconds."""
    return b"retry: %d\nevent: refused\ndata: %b\n\n" % (
        _ms(retry_s),
        v1.json(type="refused", reason=reason, text=text),
    )


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


SSE = Wire("sse", False, None, _parse, _message, _message, _gap, _deleted)
