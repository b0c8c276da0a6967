"""What clients say and hear: the wires `plain` and `v1` (docs/protocol.md). Bytes in, bytes out; no sockets."""

from gateway.core.wires.plain import PLAIN, PLAIN_DEFLATE
from gateway.core.wires.v1 import V1, V1_DEFLATE
from gateway.core.wires.wire import Asked, BadMessage, Ping, Ref, Request, Said, Wire, named

WIRES = (PLAIN, V1)
DEFLATING = {PLAIN: PLAIN_DEFLATE, V1: V1_DEFLATE}

__all__ = [
    "DEFLATING",
    "PLAIN",
    "V1",
    "WIRES",
    "Asked",
    "BadMessage",
    "Ping",
    "Ref",
    "Request",
    "Said",
    "Wire",
    "named",
]
