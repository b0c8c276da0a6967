"""A load test for WebSocket chat rooms. It knows the published wires and imports nothing of the gateway.

A scenario file needs what is named here and nothing else.
"""

from loadtest.shapes import LoadTestShape
from loadtest.users import (
    NotAcknowledged,
    NotConnected,
    User,
    between,
    constant,
    constant_pacing,
    tag,
    task,
)

__all__ = [
    "LoadTestShape",
    "NotAcknowledged",
    "NotConnected",
    "User",
    "between",
    "constant",
    "constant_pacing",
    "tag",
    "task",
]
