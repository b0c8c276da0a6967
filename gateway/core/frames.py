"""Server-to-client WebSocket frames as bytes (RFC 6455 §5.2): unmasked, unfragmented, built once for all sockets."""

import struct

_FIN_TEXT = 0x81
_FIN_CLOSE = 0x88
_SMALL = [bytes((_FIN_TEXT, size)) for size in range(126)]

PING = b"\x89\x00"


def text(payload: bytes) -> bytes:
    """A text frame. `payload` is UTF-8; nobody checks it again."""
    size = len(payload)
    if size < 126:
        return _SMALL[size] + payload
    if size < 65_536:
        return struct.pack("!BBH", _FIN_TEXT, 126, size) + payload
    return struct.pack("!BBQ", _FIN_TEXT, 127, size) + payload


def close(code: int, reason: str) -> bytes:
    """A close frame (§5.5.1). A control frame holds 125 bytes: a longer reason is cut at a character."""
    words = reason.encode()[:123].decode(errors="ignore").encode()
    return bytes((_FIN_CLOSE, 2 + len(words))) + struct.pack("!H", code) + words


def pong(payload: bytes) -> bytes:
    """The answer to a ping (§5.5.3): the same payload, which the client kept to 125 bytes."""
    return bytes((0x8A, len(payload))) + payload
