"""What is said and told, as values. Fields that a later server adds are passed over."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

T = TypeVar("T")
Json = Mapping[str, Any]


def of(kind: type[T], told: Json, **parts: Any) -> T:
    """A dataclass of what the server told; `parts`: fields that are not told as they are."""
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{**{name: value for name, value in told.items() if name in known}, **parts})


@dataclass(frozen=True)
class User:
    """Who speaks, as others see them."""

    id: str
    name: str | None = None


@dataclass(frozen=True)
class Publish:
    """A message for a room; any JSON."""

    room: str
    message: Any
    user: User | None = None


@dataclass(frozen=True)
class Published:
    """It is in the room's log."""

    room: str
    id: str


@dataclass(frozen=True)
class Outcome:
    """Of one message of several: its id; or a code, and what it means."""

    room: str
    id: str | None = None
    code: str | None = None
    detail: str | None = None


@dataclass(frozen=True)
class Outcomes:
    """In the order of asking."""

    results: tuple[Outcome, ...]
    failed: int


@dataclass(frozen=True)
class Entry:
    """One message of a log."""

    id: str
    session: str
    user: User | None
    message: Any
    # Unix ms.
    at: int


@dataclass(frozen=True)
class Gap:
    """What the log has lost between two ids; `lost` None: nobody knows how much."""

    after: str
    before: str
    lost: int | None


@dataclass(frozen=True)
class History:
    """A page, the oldest first; `more`: whether there are older ones."""

    room: str
    entries: tuple[Entry, ...]
    gaps: tuple[Gap, ...]
    more: bool


@dataclass(frozen=True)
class Room:
    """A room in which somebody spoke."""

    room: str
    entries: int
    first_id: str
    last_id: str
    # Unix ms.
    last_at: int


@dataclass(frozen=True)
class Rooms:
    """A page; `next` None: the last one."""

    rooms: tuple[Room, ...]
    next: str | None


@dataclass(frozen=True)
class Connection:
    """One connection of a user."""

    node: str
    session: str
    wire: str
    peer: str
    opened_at: int
    rooms: tuple[str, ...]


@dataclass(frozen=True)
class UserState:
    """Where a user is connected; `silent`: nodes that did not say."""

    id: str
    rooms: tuple[str, ...]
    connections: tuple[Connection, ...]
    silent: tuple[str, ...]


@dataclass(frozen=True)
class Present:
    """Who is in a room, each as clients are told them; None: they are too many."""

    room: str
    members: tuple[Json, ...] | None
    count: int


@dataclass(frozen=True)
class Ordered:
    """It stands until then, Unix ms."""

    until: int
    heard: bool


@dataclass(frozen=True)
class Deletion:
    """It is done. `deleted`: how many messages by this request."""

    room: str
    deleted: int


@dataclass(frozen=True)
class Node:
    """A node, as it says itself."""

    id: str
    version: str
    pid: int
    started_at: int
    connections: int
    connections_max: int
    rooms: int
    published: int
    delivered: int
    draining: bool


@dataclass(frozen=True)
class Nodes:
    """`silent`: registered, and they did not answer."""

    nodes: tuple[Node, ...]
    silent: tuple[str, ...]


@dataclass(frozen=True)
class Fault:
    """What is wrong with one part of a request, and where it is."""

    detail: str
    pointer: str = ""
    parameter: str = ""
    header: str = ""
