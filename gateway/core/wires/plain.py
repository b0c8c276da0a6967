"""The wire `plain`: what the tutorial's page speaks. A client of it is never sent anything but messages."""

import msgspec

from gateway.core.entry import Entry
from gateway.core.wires.wire import Said, bad_json, pair


class _Say(msgspec.Struct):
    message: msgspec.Raw


_decode = msgspec.json.Decoder(_Say).decode


def _parse(text: str) -> Said:
    try:
        return Said(bytes(_decode(text).message), None)
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise bad_json(text, exc) from None


def _payload(room: bytes, entry: Entry) -> bytes:
    return b'{"message":%b}' % entry.message if entry.message else b""


def _payload_of_user(room: bytes, entry: Entry) -> bytes:
    return b'{"message":%b,"user":%b}' % (entry.message, entry.user or b"null") if entry.message else b""


PLAIN, PLAIN_DEFLATE = pair("plain", None, _parse, _payload, None)
# The same for pages that show who speaks: `plain_users`. A node speaks one of the two.
PLAIN_USERS, PLAIN_USERS_DEFLATE = pair("plain", None, _parse, _payload_of_user, None)
