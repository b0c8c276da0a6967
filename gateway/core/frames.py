"""Server-to-client WebSocket frames as bytes (RFC 6455 §5.2): unmasked, unfragmented, built once for all sockets."""

import struct
import zlib

_FIN_TEXT = 0x81
_FIN_CLOSE = 0x88
_SMALL = [bytes((_FIN_TEXT, size)) for size in range(126)]

# Below this a compressed frame saves less on the way than it costs at both ends.
DEFLATE_BYTES_MIN = 256
# Raw deflate with the full window (RFC 7692 §7.2.1). Level 1: chat text gets 4 times smaller, 9 would give 5 % more.
_DEFLATE = (1, zlib.DEFLATED, -zlib.MAX_WBITS)
_RSV1 = 0x40

PING = b"\x89\x00"


def text(payload: bytes) -> bytes:
    """A text frame. `payload` is UTF-8; nobody checks it again."""
    size = len(payload)
    if size < 126:
        return _SMALL[size] + payload
    return _long(_FIN_TEXT, payload)


def deflated(payload: bytes) -> bytes:
    """A text frame compressed without context (RFC 7692 §7.2.1), so that any number of sockets can share it.

    Plain where compressing would not pay: a receiver takes either.
    """
    if len(payload) < DEFLATE_BYTES_MIN:
        return text(payload)
    compressor = zlib.compressobj(*_DEFLATE)
    # The empty block that a sync flush ends with is not sent.
    packed = (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
    if len(packed) >= len(payload):
        return text(payload)
    head = _FIN_TEXT | _RSV1
    return bytes((head, len(packed))) + packed if len(packed) < 126 else _long(head, packed)


def _long(head: int, payload: bytes) -> bytes:
    """Extended payload length: 16 bits, above that 64."""
    size = len(payload)
    if size < 65_536:
        return struct.pack("!BBH", head, 126, size) + payload
    return struct.pack("!BBQ", head, 127, size) + payload


def close(code: int, reason: str) -> bytes:
    """A close frame (§5.5.1). A control frame holds 125 bytes: a longer reason is cut at a character."""
    words = reason.encode()[:123].decode(errors="ignore").encode()
    return bytes((_FIN_CLOSE, 2 + len(words))) + struct.pack("!H", code) + words


def pong(payload: bytes) -> bytes:
    """The answer to a ping (§5.5.3): the same payload, which the client kept to 125 bytes."""
    return bytes((0x8A, len(payload))) + payload
