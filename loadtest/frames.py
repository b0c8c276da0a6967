"""RFC 6455 as a client needs it: frames as bytes and back, handshake lines. No sockets, no JSON."""

from __future__ import annotations

import base64
import hashlib
from random import getrandbits

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

# 16 MiB: a chat message is kilobytes; a longer announcement is a server that speaks something else.
PAYLOAD_BYTES_MAX = 16 * 1024 * 1024

_ACCEPT_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class BadFrame(Exception):
    """The bytes are no frame that a server may send (RFC 6455, 5.1 to 5.5)."""


def client_frame(opcode: int, payload: bytes) -> bytes:
    """One final frame, masked as a client must (RFC 6455, 5.3)."""
    mask = getrandbits(32).to_bytes(4, "big")
    length = len(payload)
    if length < 126:
        head = bytes((0x80 | opcode, 0x80 | length))
    elif length < 65_536:
        head = bytes((0x80 | opcode, 0xFE)) + length.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, 0xFF)) + length.to_bytes(8, "big")
    # One big integer XOR: 20 x faster than a loop over bytes.
    key = (mask * (length // 4 + 1))[:length]
    masked = (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(length, "little")
    return head + mask + masked


def split(data: bytes, at: int) -> tuple[int, int] | None:
    """Where the frame at `at` has its payload and its end; None while it is incomplete."""
    have = len(data) - at
    if have < 2:
        return None
    length = data[at + 1]
    payload = at + 2
    if length >= 126:
        if length & 0x80:
            raise BadFrame("the server masks its frames (RFC 6455, 5.1)")
        payload += 2 if length == 126 else 8
        if have < payload - at:
            return None
        length = int.from_bytes(data[at + 2 : payload], "big")
        if length > PAYLOAD_BYTES_MAX:
            raise BadFrame(f"the server announces a frame of {length:,} bytes")
    end = payload + length
    return (payload, end) if end <= len(data) else None


def close_payload(code: int) -> bytes:
    return code.to_bytes(2, "big")


def read_close(payload: bytes) -> tuple[int, str]:
    """Code and reason of a close frame; 1005 where it carries none (RFC 6455, 7.1.5)."""
    if len(payload) < 2:
        return 1005, ""
    return int.from_bytes(payload[:2], "big"), payload[2:].decode("utf-8", "replace")


def handshake_request(host: str, path: str, key: str, subprotocol: str | None, token: str | None = None) -> bytes:
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        "User-Agent: hiroba-loadtest",
    ]
    if subprotocol:
        lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
    if token:
        lines.append(f"Authorization: Bearer {token}")
    return "\r\n".join([*lines, "", ""]).encode()


def new_key() -> str:
    return base64.b64encode(getrandbits(128).to_bytes(16, "big")).decode()


def accept_of(key: str) -> str:
    """What an honest server answers to this key (RFC 6455, 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key.encode() + _ACCEPT_GUID).digest()).decode()


def read_response(head: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers (lower-case names) of an HTTP response; BadFrame if it is none."""
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    if not words[0].startswith("HTTP/") or len(words) < 2 or not words[1].isdigit():
        raise BadFrame("the answer to the handshake is not HTTP")
    pairs = (line.partition(":") for line in lines if line)
    return int(words[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}
