"""hiroba's HTTP API as a typed client: `Hiroba` waits, `AsyncHiroba` is awaited. Both try again where that is safe."""

from hiroba_client.asynchronous import AsyncHiroba
from hiroba_client.errors import HirobaError, Problem, Unreachable
from hiroba_client.models import (
    Connection,
    Deletion,
    Entry,
    Fault,
    Gap,
    History,
    Node,
    Nodes,
    Ordered,
    Outcome,
    Outcomes,
    Present,
    Publish,
    Published,
    Room,
    Rooms,
    User,
    UserState,
)
from hiroba_client.synchronous import Hiroba

__all__ = [
    "AsyncHiroba", "Connection", "Deletion", "Entry", "Fault", "Gap", "Hiroba", "HirobaError", "History", "Node",
    "Nodes", "Ordered", "Outcome", "Outcomes", "Present", "Problem", "Publish", "Published", "Room", "Rooms",
    "Unreachable", "User", "UserState",
]  # fmt: skip
