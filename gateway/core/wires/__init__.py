"""What clients say and hear: `plain`, `v1`, `sse` and `durable` (docs/protocol.md). Bytes in, bytes out; no sockets."""

from gateway.core.wires.durable import DURABLE
from gateway.core.wires.plain import PLAIN, PLAIN_DEFLATE, PLAIN_USERS, PLAIN_USERS_DEFLATE
from gateway.core.wires.sse import SSE
from gateway.core.wires.v1 import V1, V1_DEFLATE
from gateway.core.wires.wire import Asked, BadMessage, Ping, Ref, Request, Said, Types, Wire, named

# A WebSocket chooses among these.
WIRES = (PLAIN, V1)
DEFLATING = {PLAIN: PLAIN_DEFLATE, PLAIN_USERS: PLAIN_USERS_DEFLATE, V1: V1_DEFLATE}

__all__ = [
    "DEFLATING",
    "DURABLE",
    "PLAIN",
    "PLAIN_USERS",
    "SSE",
    "V1",
    "WIRES",
    "Asked",
    "BadMessage",
    "Ping",
    "Ref",
    "Request",
    "Said",
    "Types",
    "Wire",
    "named",
]
