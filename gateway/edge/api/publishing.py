"""`publish`, `broadcast`, `batch`: servers speak, by the publisher as everybody does.

What goes to one room in a row by one speaker is a bundle: all of it is in the log, or nothing. A key of the API has a
window in the publisher, as a socket has: whoever sends much waits behind himself.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from gateway.broker.publish import Refusal
from gateway.core import appends
from gateway.core.appends import Condition
from gateway.core.entry import EntryId, entry_id
from gateway.core.names import RoomName
from gateway.core.user import BadUser, User
from gateway.edge.api.operation import Call
from gateway.edge.api.problems import Problem, invalid, too_large
from gateway.edge.edge import Edge

# Messages of one key in the publisher at once: one call's worth. The rest waits in its requests.
WINDOW_ENTRIES = 1_024

Room = Annotated[str, Meta(min_length=1, description="A room's name")]
Message = Annotated[msgspec.Raw, Meta(description="Any JSON, byte for byte what clients will hear")]


class Speaker(msgspec.Struct, forbid_unknown_fields=True):
    """Who says it, as others see it."""

    id: Annotated[str, Meta(min_length=1, max_length=128)]
    name: Annotated[str, Meta(max_length=100)] | None = None


class Publish(msgspec.Struct, forbid_unknown_fields=True):
    """A message for a room."""

    room: Room
    message: Message
    user: Speaker | None = None


class Broadcast(msgspec.Struct, forbid_unknown_fields=True):
    """A message for several rooms."""

    rooms: Annotated[list[Room], Meta(min_length=1)]
    message: Message
    user: Speaker | None = None


class Batch(msgspec.Struct, forbid_unknown_fields=True):
    """Messages for rooms, in the order in which each room is to hear them."""

    publishes: Annotated[list[Publish], Meta(min_length=1)]


class Published(msgspec.Struct):
    """It is in the room's log."""

    room: str
    id: str


class Outcome(msgspec.Struct, omit_defaults=True):
    """Of one message: its id; or why it has none."""

    room: str
    id: str | None = None
    # A code of problems, and what it means.
    code: str | None = None
    detail: str | None = None


class Outcomes(msgspec.Struct):
    """Of each message, in the order of asking; and how many have no id."""

    results: list[Outcome]
    failed: int


class _Run(NamedTuple):
    """What one speaker says in a room in a row, and which messages of the request these are."""

    room: RoomName
    user: bytes
    messages: list[bytes]
    places: list[int]


class Publishing:
    """One per node."""

    def __init__(self) -> None:
        # By key: those that have anything in the publisher.
        self._windows: dict[str, Window] = {}

    async def publish(self, call: Call[Publish]) -> Published:
        asked = call.asked
        room, user, message = call.room(asked.room), _user(asked.user), _message(call, asked.message)
        call.facts["room"] = room
        (outcome,) = await self._said(call, [_Run(room, user, [message], [0])], 1)
        if isinstance(outcome, Refusal):
            raise _refused(outcome)
        call.facts["id"] = str(outcome)
        return Published(room, str(outcome))

    async def broadcast(self, call: Call[Broadcast]) -> Outcomes:
        asked = call.asked
        _check_count(call, "/rooms", len(asked.rooms))
        user, message = _user(asked.user), _message(call, asked.message)
        rooms = [call.room(text, f"/rooms/{at}") for at, text in enumerate(asked.rooms)]
        if len(set(rooms)) != len(rooms):
            raise invalid("/rooms", "a room is there twice")
        return await self._outcomes(call, [_Run(room, user, [message], [at]) for at, room in enumerate(rooms)])

    async def batch(self, call: Call[Batch]) -> Outcomes:
        asked = call.asked.publishes
        _check_count(call, "/publishes", len(asked))
        latest: dict[RoomName, _Run] = {}
        runs: list[_Run] = []
        for at, one in enumerate(asked):
            place = f"/publishes/{at}"
            room, user = call.room(one.room, f"{place}/room"), _user(one.user, place)
            message = _message(call, one.message, place)
            run = latest.get(room)
            if run is None or run.user != user:
                run = latest[room] = _Run(room, user, [], [])
                runs.append(run)
            run.messages.append(message)
            run.places.append(at)
        return await self._outcomes(call, runs)

    # ---- into the log ----

    async def _outcomes(self, call: Call[Any], runs: Sequence[_Run]) -> Outcomes:
        rooms: dict[int, RoomName] = {at: run.room for run in runs for at in run.places}
        said = await self._said(call, runs, len(rooms))
        failed = sum(isinstance(outcome, Refusal) for outcome in said)
        call.facts |= {"messages": len(said), "rooms": len(set(rooms.values())), "failed": failed}
        if failed == len(said):
            assert isinstance(said[0], Refusal)
            raise _refused(said[0])
        call.unfinished = bool(failed)
        return Outcomes([_outcome(rooms[at], outcome) for at, outcome in enumerate(said)], failed)

    async def _said(self, call: Call[Any], runs: Sequence[_Run], count: int) -> list[EntryId | Refusal]:
        """The ids, or why there is none, by place. Raises Problem: the key was another request's."""
        window = self._window(call.caller.id)
        loop, outcomes = asyncio.get_running_loop(), []
        sender = secrets.token_urlsafe(9)  # as a session's: who wrote these, and nobody else
        for run in runs:
            await window.space(len(run.messages))
            outcome: asyncio.Future[bytes | Refusal] = loop.create_future()
            outcomes.append(outcome)
            _offer(call.edge, run, sender, _condition(call, run), outcome, window)
        said: list[EntryId | Refusal] = [Refusal.TIMEOUT] * count
        for run, future in zip(runs, outcomes, strict=True):
            for at, id in zip(run.places, _ids(await future, len(run.messages)), strict=True):
                said[at] = id
        return said

    def _window(self, caller: str) -> "Window":
        for known in [known for known, window in self._windows.items() if not window.entries]:
            del self._windows[known]
        return self._windows.setdefault(caller, Window())


# ---- what is said ----


def _check_count(call: Call[Any], pointer: str, count: int) -> None:
    if count > call.edge.settings.append_messages_max:
        raise too_large(
            pointer, f"one request has at most {call.edge.settings.append_messages_max}: append_messages_max"
        )


def _message(call: Call[Any], raw: msgspec.Raw, place: str = "") -> bytes:
    message = bytes(raw)
    if len(message) > call.edge.settings.message_bytes_max:
        bytes_max = call.edge.settings.message_bytes_max
        raise too_large(f"{place}/message", f"a message has at most {bytes_max} bytes: message_bytes_max")
    return message


def _user(speaker: Speaker | None, place: str = "") -> bytes:
    """As entries have it."""
    if speaker is None:
        return b""
    try:
        return User(speaker.id, speaker.name).json
    except BadUser as exc:
        raise invalid(f"{place}/user", str(exc)) from None


def _outcome(room: RoomName, outcome: EntryId | Refusal) -> Outcome:
    if isinstance(outcome, Refusal):
        problem = _refused(outcome)
        return Outcome(room, code=problem.code, detail=problem.args[0])
    return Outcome(room, str(outcome))


def _refused(refusal: Refusal) -> Problem:
    return Problem("unknown" if refusal is Refusal.UNKNOWN else "broker", refusal.value)


def _condition(call: Call[Any], run: _Run) -> Condition:
    if call.once is None:
        return Condition()
    # Of one request a room may have several bundles.
    key = call.once.key if not run.places[0] else f"{call.once.key} {run.places[0]}"
    return Condition(once=call.once._replace(key=key))


def _offer(
    edge: Edge,
    run: _Run,
    sender: str,
    condition: Condition,
    outcome: "asyncio.Future[bytes | Refusal]",
    window: "Window",
) -> None:
    def answer(told: bytes | Refusal, ref: object) -> None:
        window.give_back(len(run.messages))
        if not outcome.done():
            outcome.set_result(told)

    # Only its size counts.
    body = run.messages[0] if len(run.messages) == 1 else b"".join(run.messages)
    edge.context.broker.append(run.room, sender, run.user, body, run.messages, condition, answer)


def _ids(told: bytes | Refusal, count: int) -> list[EntryId | Refusal]:
    """Of a bundle of so many, by the last one's: they have one clock, and are counted without a hole."""
    if isinstance(told, Refusal):
        return [told] * count
    if told.startswith(b"="):
        before = appends.told(told)
        if before.id is None:
            raise Problem("key_taken", "another request came with this Idempotency-Key")
        last = before.id
    else:
        last = entry_id(told)
    return [EntryId(last.ms, last.n - count + 1 + at) for at in range(count)]


class Window:
    """What one key may have in the publisher; who waits for space has it in the order of asking."""

    def __init__(self) -> None:
        self.entries = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def space(self, entries: int) -> None:
        """Wait for it, and take it. More than the window has go alone."""
        if not self._waiting and self._fits(entries):
            self.entries += entries
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((entries, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back(entries)
            raise

    def give_back(self, entries: int) -> None:
        self.entries -= entries
        while self._waiting and (self._waiting[0][1].done() or self._fits(self._waiting[0][0])):
            wanted, turn = self._waiting.popleft()
            if not turn.done():
                self.entries += wanted
                turn.set_result(None)

    def _fits(self, entries: int) -> bool:
        return not self.entries or self.entries + entries <= WINDOW_ENTRIES
