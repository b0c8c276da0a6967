"""The client that waits."""

import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from hiroba_client import asks
from hiroba_client.asks import Ask
from hiroba_client.models import (
    Deletion,
    History,
    Nodes,
    Ordered,
    Outcomes,
    Present,
    Publish,
    Published,
    Room,
    Rooms,
    User,
    UserState,
)  # fmt: skip
from hiroba_client.trying import Trying

T = TypeVar("T")


class Hiroba:
    """Asks the API at `urls`, the ops ports of nodes: where one does not answer, the next one is asked.

    `within_s` is for everything: tries, waits between them. Raises Problem, Unreachable. Close it, or use `with`.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        key: str | None = None,
        *,
        within_s: float = 30.0,
        timeout_s: float = 10.0,
        client: httpx.Client | None = None,
    ) -> None:
        """`urls`: one, or several with commas between. `timeout_s`: of one try. `client`: yours, which you close."""
        given = urls.split(",") if isinstance(urls, str) else urls
        self._urls = [url.strip() for url in given if url.strip()]
        if not self._urls:
            raise ValueError("no address of the API: http://127.0.0.1:9000")
        self._key = key
        self._within_s = within_s
        self._client = httpx.Client(timeout=timeout_s, trust_env=False) if client is None else client
        self._owns_client = client is None

    def publish(
        self, room: str, message: Any, user: User | None = None, *, idempotency_key: str | None = None
    ) -> Published:
        """Say something in a room; any JSON."""
        return self._do(asks.publish(room, message, user, idempotency_key))

    def broadcast(
        self, rooms: Iterable[str], message: Any, user: User | None = None, *, idempotency_key: str | None = None
    ) -> Outcomes:
        """Say one thing in several rooms."""
        return self._do(asks.broadcast(rooms, message, user, idempotency_key))

    def batch(self, publishes: Iterable[Publish], *, idempotency_key: str | None = None) -> Outcomes:
        """Say several things, each in its room. Look at `failed`: what has no id was not said."""
        return self._do(asks.batch(publishes, idempotency_key))

    def history(self, room: str, *, limit: int | None = None, before: str | None = None) -> History:
        """A page of a room: the newest, or what stands below an id."""
        return self._do(asks.history(room, limit, before))

    def rooms(self, *, limit: int | None = None, after: str | None = None) -> Rooms:
        """A page of the rooms that there are. `after`: `next` of the page before."""
        return self._do(asks.rooms(limit, after))

    def room(self, name: str) -> Room:
        """How a room is. Problem `no_room`: nobody spoke there."""
        return self._do(asks.room(name))

    def presence(self, room: str) -> Present:
        """Who is in a room."""
        return self._do(asks.presence(room))

    def user(self, id: str) -> UserState:
        """Where a user is connected."""
        return self._do(asks.user(id))

    def disconnect(
        self, user: str, *, room: str | None = None, for_s: float | None = None, idempotency_key: str | None = None
    ) -> Ordered:
        """Put a user out, of one room or of all, for a time."""
        return self._do(asks.disconnect(user, room, for_s, idempotency_key))

    def revoke(
        self,
        user: str | None = None,
        *,
        token: str | None = None,
        everybody: bool = False,
        issued_before: float | None = None,
        idempotency_key: str | None = None,
    ) -> Ordered:
        """Make tokens good no more: a user's, one by its id, or everybody's."""
        return self._do(asks.revoke(user, token, everybody, issued_before, idempotency_key))

    def delete_message(self, room: str, id: str, *, idempotency_key: str | None = None) -> Deletion:
        """Delete a message: its place stays. Problem `no_message`: the room has none of this id."""
        return self._do(asks.delete(room, id, False, idempotency_key))

    def empty_room(self, room: str, *, idempotency_key: str | None = None) -> Deletion:
        """Delete all that a room has; whoever is there stays."""
        return self._do(asks.delete(room, None, True, idempotency_key))

    def delete_room(self, room: str, *, idempotency_key: str | None = None) -> Deletion:
        """Delete a room with all that it has, and put all out of it."""
        return self._do(asks.delete(room, None, False, idempotency_key))

    def nodes(self) -> Nodes:
        """Which nodes there are, and how loaded."""
        return self._do(asks.nodes())

    def all_rooms(self) -> Iterator[Room]:
        """Every room, page by page. One that is spoken in meanwhile may come twice."""
        after = None
        while True:
            page = self.rooms(limit=200, after=after)
            yield from page.rooms
            after = page.next
            if after is None:
                return

    def _do(self, ask: Ask[T]) -> T:
        trying = Trying(ask, self._urls, self._key, time.monotonic(), self._within_s)
        while True:
            try:
                response = self._client.send(trying.request(self._client))
            except httpx.TransportError as exc:
                wait_s = trying.failed(exc, time.monotonic())
            else:
                told, wait_s = trying.answered(response, time.monotonic())
                if told is not None:
                    return told
            time.sleep(wait_s)

    def close(self) -> None:
        if self._owns_client:
            self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
