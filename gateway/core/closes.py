"""Why connections end: one table for the code on the wire, the words, the metric's label, and the docs."""

from enum import Enum


class Close(Enum):
    """`code` (RFC 6455 §7.4), `text` for the close frame, and whether coming back makes sense."""

    CLIENT = (1000, "the client closed", False)
    BINARY = (1003, "text frames only", False)
    LOST = (1006, "the connection broke", True)
    BAD_DATA = (1007, "send a JSON object with a key 'message'", False)
    RATE = (1008, "far above messages_per_s for longer than flood_s", True)
    TOO_LONG = (1009, "message too long: message_bytes_max", False)
    ERROR = (1011, "internal error, see the node's log", True)
    DRAIN = (1012, "this node is going away, connect again", True)
    BROKER = (1013, "the broker did not answer in time, try again later", True)
    PROTOCOL = (1002, "WebSocket protocol error", False)
    EXPIRED = (4001, "expired or revoked: come with a fresh token", True)
    KICKED = (4003, "this user is put out for a time", False)
    DELETED = (4004, "this room was deleted", True)
    SLOW = (4008, "no progress for stall_s: the client reads too slowly", True)
    GAP = (4009, "entries were lost for this reader", True)
    DEAD = (4010, "no answer to a ping", True)
    FORBIDDEN = (4403, "this user may not do that in this room", False)
    SITE = (4503, "the site can't be asked what may be said, try again later", True)

    def __init__(self, code: int, text: str, reconnect: bool) -> None:
        self.code = code
        self.text = text
        self.reconnect = reconnect

    @property
    def label(self) -> str:
        """The value of the metric label `reason` and of the log field."""
        return self.name.lower()
