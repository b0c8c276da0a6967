"""The server's half of a WebSocket handshake (RFC 6455 §4.2, RFC 7692 §7.1) as values. Who may come is the edge's."""

import base64
import binascii
import hashlib

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# What we take up of an offer: the first two cost nothing, for no context is kept between messages on either side.
_TAKEN = {"server_no_context_takeover", "client_no_context_takeover", "client_max_window_bits"}
_DEFLATE = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"


def good_key(key: str) -> bool:
    """Whether Sec-WebSocket-Key is 16 bytes in base64 (§4.2.1)."""
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


def accept(key: str) -> str:
    """Sec-WebSocket-Accept (§4.2.2)."""
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()


def deflate_offered(extensions: str) -> bool:
    """Whether Sec-WebSocket-Extensions holds a permessage-deflate that we take up.

    An offer that limits our window is not taken up: frames are shared, and a smaller window would need its own.
    Nor is one with a parameter that RFC 7692 does not know (§5.1).
    """
    for offer in extensions.split(","):
        name, *parameters = (part.strip() for part in offer.split(";"))
        if name == "permessage-deflate" and all(part.split("=")[0].strip() in _TAKEN for part in parameters):
            return True
    return False


def switching(key: str, subprotocol: str | None, deflates: bool) -> bytes:
    """The 101, whole."""
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept(key)}",
    ]
    if subprotocol:
        lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
    if deflates:
        lines.append(f"Sec-WebSocket-Extensions: {_DEFLATE}")
    return "\r\n".join((*lines, "", "")).encode()
