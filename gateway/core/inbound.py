"""Client-to-server WebSocket frames (RFC 6455 §5, RFC 7692 §7.2.2): bytes in, one frame at a time out. No I/O.

One at a time, and only when asked, so that whoever serves a client can charge it for each, whatever it carries, and
stop behind any.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from gateway.core.closes import Close

# What a sync flush ends with, and a sender leaves out (RFC 7692 §7.2.1).
_FLUSHED = b"\0\0\xff\xff"
# A final deflate block may end before the message does (§7.2.3.5); nobody needs more than a few.
_FINAL_BLOCKS_MAX = 8


class Opcode(IntEnum):
    """RFC 6455 §5.2. `PART`: a frame that begins or continues a message, and does not end it."""

    PART = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


_OPCODES: dict[int, Opcode] = {opcode.value: opcode for opcode in Opcode}
# The first byte of a frame that is a whole message of text, and not compressed.
_WHOLE_TEXT = 0x80 | Opcode.TEXT.value
# Opcodes from here on are of control frames.
_CONTROL = Opcode.CLOSE.value


@dataclass(slots=True)
class Frame:
    """`payload`: of a text or binary frame the whole message, in as many frames as it came."""

    opcode: Opcode
    payload: bytes
    # What it costs: bytes on the way, or what they inflate to, whichever is more.
    size: int


class Broken(Exception):
    """The client broke the protocol: nothing more is to be read. `args[0]`: words for the close frame."""

    def __init__(self, close: Close, text: str = "") -> None:
        super().__init__(text or close.text)
        self.close = close


class Inbound:
    """What one client sent and nobody has looked at yet. Holds at most what it was fed and one message."""

    __slots__ = ("_buffer", "_bytes_max", "_deflates", "_message", "_opcode", "_packed", "_unmask")

    def __init__(
        self,
        message_bytes_max: int,
        deflates: bool,
        unmask: Callable[[bytes, bytearray], bytes] | None = None,
    ) -> None:
        """`unmask`: as `unmasked`, by other means."""
        self._unmask = unmask or unmasked
        self._bytes_max = message_bytes_max
        self._deflates = deflates
        self._buffer = bytearray()
        # The message that came in part: its opcode (None: there is none), whether it is compressed, its bytes.
        self._opcode: Opcode | None = None
        self._packed = False
        self._message = bytearray()

    @property
    def waits(self) -> bool:
        """Whether there are bytes that no frame was made of."""
        return bool(self._buffer)

    def feed(self, data: bytes | bytearray) -> None:
        """Append what was read. A bytearray is the caller's no more."""
        if self._buffer or not isinstance(data, bytearray):
            self._buffer += data
        else:
            self._buffer = data

    def next(self) -> Frame | None:
        """The next frame; None: not all of it is there. Raises Broken, and is not to be asked again then."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        first, second = buffer[0], buffer[1]
        # Nearly all that come; there is nothing to judge.
        usual = first == _WHOLE_TEXT and second & 0x80 and self._opcode is None
        opcode = Opcode.TEXT if usual else self._opcode_of(first, second)
        size, start = second & 0x7F, 2
        if size > 125:
            start = 4 if size == 126 else 10
            if len(buffer) < start:
                return None
            size = int.from_bytes(buffer[2:start])
        if opcode < _CONTROL and size > self._bytes_max - len(self._message):
            raise Broken(Close.TOO_LONG)  # before its payload is waited for
        end = start + 4 + size
        if len(buffer) < end:
            return None
        payload = self._unmask(bytes(buffer[start : start + 4]), buffer[start + 4 : end])
        del buffer[:end]
        if usual or opcode >= _CONTROL:
            return Frame(opcode, payload, end)
        return self._part(first, opcode, payload, end)

    def _opcode_of(self, first: int, second: int) -> Opcode:
        """Judge a frame's head, by what came before it. Where RSV1 means nothing, on control frames, clients set it."""
        opcode = _OPCODES.get(first & 0x0F)
        if opcode is None:
            raise Broken(Close.PROTOCOL, f"opcode {first & 0x0F} means nothing")
        if first & 0x30 or (first & 0x40 and not self._deflates):
            raise Broken(Close.PROTOCOL, "a reserved bit is set")
        if not second & 0x80:
            raise Broken(Close.PROTOCOL, "a client masks its frames")  # §5.1
        if opcode >= _CONTROL:
            if not first & 0x80 or second & 0x7F > 125:
                raise Broken(Close.PROTOCOL, "a control frame is whole and has at most 125 bytes")  # §5.5
        elif (opcode is Opcode.PART) == (self._opcode is None):
            raise Broken(Close.PROTOCOL, "a message goes on only where one began, and until it ends")  # §5.4
        elif opcode is Opcode.PART and first & 0x40:
            raise Broken(Close.PROTOCOL, "a message is compressed from its first frame on")  # RFC 7692 §6.1
        return opcode

    def _part(self, first: int, opcode: Opcode, payload: bytes, size: int) -> Frame:
        """A frame of a message; the whole message if it ends it."""
        if self._opcode is None:
            self._opcode, self._packed = opcode, bool(first & 0x40)
        if not first & 0x80:
            self._message += payload
            return Frame(Opcode.PART, b"", size)
        if self._message:
            payload = bytes(self._message) + payload
            self._message.clear()
        opcode, self._opcode = self._opcode, None
        if self._packed:
            payload = _inflated(payload, self._bytes_max)
        return Frame(opcode, payload, max(size, len(payload)))


def close_code(payload: bytes) -> tuple[int | None, str]:
    """What a client's close frame says: its code (None: none) and reason. Raises Broken (RFC 6455 §5.5.1, §7.4)."""
    if not payload:
        return None, ""
    code = int.from_bytes(payload[:2])
    # 1004 to 1006 and 1015 are never sent; 1012 to 1014 are registered since.
    if len(payload) == 1 or not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        raise Broken(Close.PROTOCOL, "a close frame has a code that may be sent, or none")
    return code, text(payload[2:])


def text(payload: bytes) -> str:
    """The payload of a text frame, or of a close frame behind its code. Raises Broken where it is not UTF-8 (§8.1)."""
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise Broken(Close.BAD_DATA, "text that is not UTF-8") from None


def unmasked(key: bytes, payload: bytearray) -> bytes:
    """§5.3: byte i xor key[i mod 4]; as one long number, because a loop over bytes would take 200 times as long."""
    size = len(payload)
    keys = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(keys, "little")).to_bytes(size, "little")


def _inflated(payload: bytes, bytes_max: int) -> bytes:
    """A message that was compressed without context. Never makes more than one byte too many of it."""
    message, left = b"", payload + _FLUSHED
    try:
        for _ in range(_FINAL_BLOCKS_MAX):
            inflate = zlib.decompressobj(-zlib.MAX_WBITS)
            message += inflate.decompress(left, bytes_max + 1 - len(message))
            if len(message) > bytes_max:
                raise Broken(Close.TOO_LONG)
            if not inflate.eof:
                return message
            left = inflate.unused_data
    except zlib.error:
        pass
    raise Broken(Close.BAD_DATA, "deflate data that is broken")
