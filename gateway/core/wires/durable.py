"""The wire `durable`: a room as a Durable Stream's server-sent events (PROTOCOL.md section 5.8; docs/protocol.md).

Only messages are told, as their clients wrote them, and after each how far the reader has come. There is no word for a
gap: a stream ends there, and who comes back with its offset hears by the answer what is gone.
"""

from collections.abc import Sequence

from gateway.core.entry import Entry, EntryId
from gateway.core.streams import cursor_at, offset_of
from gateway.core.wires.sse import lines
from gateway.core.wires.wire import BadMessage, Request, Wire


def _parse(text: str) -> Request:
    raise BadMessage("an event stream is not spoken to")


def array(entries: Sequence[Entry]) -> bytes:
    """Messages as a stream of JSON is read (section 9.1.5). What was deleted is passed."""
    return b"[%b]" % b",".join([entry.message for entry in entries if entry.message])


def data(entries: Sequence[Entry]) -> bytes:
    """The event of some messages, if any of them is left. The caller owes the reader `control`."""
    if not any(entry.message for entry in entries):
        return b""
    return b"event: data\ndata: %b\n\n" % lines(array(entries))


def control(reached: EntryId, cursor: int, up_to_date: bool) -> bytes:
    """How far a reader has come who got all before this."""
    more = b',"upToDate":true' if up_to_date else b""
    told = b'{"streamNextOffset":"%b","streamCursor":"%d"%b}' % (offset_of(reached).encode(), cursor, more)
    return b"event: control\ndata:%b\n\n" % told


def _walked(room: bytes, entry: Entry) -> bytes:
    return data((entry,)) + control(entry.id, cursor_at(entry.at), False)


def _live(room: bytes, entry: Entry) -> bytes:
    return data((entry,)) + control(entry.id, cursor_at(entry.at), True)


DURABLE = Wire("durable", False, None, _parse, _walked, _live, None)
