"""What an operation of the API is, and what is handed to it: said once, for the router and for the OpenAPI."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec

from gateway.core.api_keys import Scope
from gateway.core.appends import Once
from gateway.core.names import BadRoomName, RoomName, room_name
from gateway.edge.api.gate import Caller
from gateway.edge.api.problems import bad_parameter, invalid
from gateway.edge.edge import Edge

A = TypeVar("A")


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """No parameters."""


@dataclass
class Call(Generic[A]):
    """One request, judged and read."""

    edge: Edge
    caller: Caller
    # The body; of an operation that has none, the query.
    asked: A
    # What stands in the path.
    path: dict[str, str]
    # It may come again, and is done once; None: its Idempotency-Key was not given.
    once: Once | None = None
    # For the audit line: what it was about.
    facts: dict[str, object] = field(default_factory=dict)
    # Not all of it was done, so that who asks again asks for the rest: its answer is not kept.
    unfinished: bool = False

    def room(self, text: str, pointer: str = "/room") -> RoomName:
        """The room that a field of the body names. Raises Problem."""
        try:
            return room_name(text, self.edge.settings.room_name_chars_max)
        except BadRoomName as exc:
            raise invalid(pointer, str(exc)) from None

    def room_of(self, text: str) -> RoomName:
        """The same of the path, or of the query."""
        try:
            return room_name(text, self.edge.settings.room_name_chars_max)
        except BadRoomName as exc:
            raise bad_parameter("room", str(exc)) from None


@dataclass(frozen=True)
class Operation:
    """One line of the API. `asked`: the body of POST, else the query; `answer`: what is told in JSON, with 200."""

    # In the OpenAPI and in metrics.
    name: str
    method: str
    # Behind /api/v1.
    path: str
    scope: Scope
    # A sentence.
    says: str
    asked: type[msgspec.Struct]
    answer: type[msgspec.Struct]
    do: Callable[[Call[Any]], Awaitable[msgspec.Struct]]
    # Codes of problems that others have not.
    problems: tuple[str, ...] = ()

    @property
    def writes(self) -> bool:
        """Whether it changes anything: then it may have an Idempotency-Key, and leaves an audit line."""
        return self.method != "GET"

    @property
    def has_body(self) -> bool:
        return self.method == "POST"
