"""Each operation of the API: what is sent, and what its answer means. No I/O, so that both clients share it."""

import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from hiroba_client import models
from hiroba_client.models import (
    Connection,
    Deletion,
    Entry,
    Gap,
    History,
    Json,
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
    of,
)

T = TypeVar("T")


@dataclass(frozen=True)
class Ask(Generic[T]):
    """One request, the same however often it is sent."""

    method: str
    path: str
    means: Callable[[Json], T]
    query: Mapping[str, str]
    body: bytes | None = None
    idempotency_key: str | None = None


def _read(path: str, means: Callable[[Json], T], **query: str | int | None) -> Ask[T]:
    return Ask("GET", path, means, {name: str(value) for name, value in query.items() if value is not None})


def _write(path: str, means: Callable[[Json], T], key: str | None, **body: Any) -> Ask[T]:
    said = {name: value for name, value in body.items() if value is not None}
    if "message" in body:
        said["message"] = body["message"]  # null is a message
    # The same bytes each time: the server knows a request by them.
    return Ask("POST", path, means, {}, json.dumps(said).encode(), key or str(uuid.uuid4()))


def _speaker(user: User | None) -> dict[str, str] | None:
    return None if user is None else {"id": user.id} | ({} if user.name is None else {"name": user.name})


def publish(room: str, message: Any, user: User | None, key: str | None) -> Ask[Published]:
    return _write("/publish", lambda told: of(Published, told), key, room=room, message=message, user=_speaker(user))


def broadcast(rooms: Iterable[str], message: Any, user: User | None, key: str | None) -> Ask[Outcomes]:
    return _write("/broadcast", _outcomes, key, rooms=list(rooms), message=message, user=_speaker(user))


def batch(publishes: Iterable[Publish], key: str | None) -> Ask[Outcomes]:
    items = []
    for one in publishes:
        user = _speaker(one.user)
        items.append({"room": one.room, "message": one.message} | ({} if user is None else {"user": user}))
    return _write("/batch", _outcomes, key, publishes=items)


def _outcomes(told: Json) -> Outcomes:
    return Outcomes(tuple(of(Outcome, one) for one in told["results"]), told["failed"])


def history(room: str, limit: int | None, before: str | None) -> Ask[History]:
    return _read("/history", _history, room=room, limit=limit, before=before)


def _history(told: Json) -> History:
    entries = tuple(
        of(Entry, one, session=one["from"], user=None if one["user"] is None else of(User, one["user"]))
        for one in told["entries"]
    )
    return History(told["room"], entries, tuple(of(Gap, one) for one in told["gaps"]), told["more"])


def rooms(limit: int | None, after: str | None) -> Ask[Rooms]:
    return _read("/rooms", _rooms, limit=limit, after=after)


def _rooms(told: Json) -> Rooms:
    return Rooms(tuple(of(Room, one) for one in told["rooms"]), told["next"])


def room(name: str) -> Ask[Room]:
    return _read(f"/rooms/{quote(name, safe='')}", lambda told: of(Room, told))


def presence(room: str) -> Ask[Present]:
    return _read("/presence", _present, room=room)


def _present(told: Json) -> Present:
    return of(Present, told, members=None if told["members"] is None else tuple(told["members"]))


def user(id: str) -> Ask[UserState]:
    return _read(f"/users/{quote(id, safe='')}", _user)


def _user(told: Json) -> UserState:
    connections = tuple(of(Connection, one, rooms=tuple(one["rooms"])) for one in told["connections"])
    return UserState(told["id"], tuple(told["rooms"]), connections, tuple(told["silent"]))


def disconnect(user: str, room: str | None, for_s: float | None, key: str | None) -> Ask[Ordered]:
    return _write("/disconnect", lambda told: of(Ordered, told), key, user=user, room=room, for_s=for_s)


def revoke(
    user: str | None, token: str | None, everybody: bool, issued_before: float | None, key: str | None
) -> Ask[Ordered]:
    whose = {"user": user, "token": token, "everybody": everybody or None, "issued_before": issued_before}
    return _write("/revoke", lambda told: of(Ordered, told), key, **whose)


def delete(room: str, message: str | None, messages: bool, key: str | None) -> Ask[Deletion]:
    """One message, all of them, or the room itself."""
    path = f"/rooms/{quote(room, safe='')}"
    if message is not None:
        path += f"/messages/{quote(message, safe='')}"
    elif messages:
        path += "/messages"
    return Ask("DELETE", path, lambda told: of(Deletion, told), {}, None, key or str(uuid.uuid4()))


def nodes() -> Ask[Nodes]:
    return _read("/nodes", _nodes)


def _nodes(told: Json) -> Nodes:
    return Nodes(tuple(of(Node, one) for one in told["nodes"]), tuple(told["silent"]))


def fault(told: Json) -> models.Fault:
    return of(models.Fault, told)
