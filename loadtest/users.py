"""What a scenario is written with: `User`, `@task`, `@tag`, wait times. Locust's names, on asyncio.

A scenario author reads this file and needs no other. How a user is run is life.py.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, overload

if TYPE_CHECKING:
    from loadtest.life import Life

Function = TypeVar("Function", bound=Callable[..., Any])
WaitTime = Callable[[Any], float]


class User:
    """One person with a browser. Subclass it, give it tasks, name the file with `-f`.

    Before `on_start` the user is in its room; after `on_stop` it leaves in good order. With `--rate` the
    plan says when it acts and `wait_time` is ignored; without it the user acts, waits, acts again.
    """

    weight: ClassVar[int] = 1  # share of the users, against other classes of the scenario
    seats: ClassVar[int | None] = None  # exactly so many in every room, before weights count
    room_size: ClassVar[int | None] = 10  # users per room when --rooms is not given; None: one room for all
    rejoin: ClassVar[bool] = True  # come back after a connection that the server closed or lost
    read_bytes_s: ClassVar[float | None] = None  # read no faster than this: a slow reader
    wait_time: ClassVar[WaitTime | None] = None  # between(), constant(), constant_pacing()

    number: int  # 0, 1, 2 ... in the whole run
    room: str  # the room it is in, or was in last
    rooms: Sequence[str]  # every room of the run
    random: Random  # seeded from --seed and the number: two runs choose alike

    def __init__(self, life: Life) -> None:
        self._life = life
        self.number, self.rooms, self.random = life.number, life.rooms, life.random
        self.room = life.home

    async def on_start(self) -> None:
        """Once, when the user has entered its room."""

    async def on_stop(self) -> None:
        """Once, before the user leaves for good."""

    async def meanwhile(self) -> None:
        """Runs beside the tasks; cancelled when the user stops. For joins, leaves, cuts."""

    async def say(self, text: str = "") -> None:
        """Send a message to the room. Without `--rate` this waits until the message is acknowledged.

        Raises NotAcknowledged after 30 s, and NotConnected when the user is in no room (closed model only:
        with a plan the message waits for the connection and its latency counts from the planned time).
        """
        await self._life.say(text)

    async def join(self, room: str | None = None) -> None:
        """Enter a room (its own, if none is named); tries again while the server refuses."""
        await self._life.join(room or self.room)
        self.room = room or self.room

    async def leave(self) -> None:
        """Leave in good order: stay until everything the room has heard so far has arrived, then close."""
        await self._life.leave()

    def cut(self) -> None:
        """Drop the connection without a word, as a tunnel does. `join` comes back (v1: resumes)."""
        self._life.cut()

    @property
    def connected(self) -> bool:
        return self._life.connected

    @property
    def run_time_s(self) -> float:
        """Seconds since the run began."""
        return self._life.run_time_s


class NotAcknowledged(Exception):
    """The room did not confirm a message in time."""


class NotConnected(Exception):
    """The user is in no room."""


@overload
def task(weight: Function) -> Function: ...
@overload
def task(weight: int = 1) -> Callable[[Function], Function]: ...
def task(weight: Any = 1) -> Any:
    """Mark a method as one of the user's actions: `@task` or `@task(3)` (three times as often)."""
    if callable(weight):
        return task(1)(weight)

    def mark(function: Function) -> Function:
        function.task_weight = weight  # type: ignore[attr-defined]
        return function

    return mark


def tag(*names: str) -> Callable[[Function], Function]:
    """Name a task, so that `--tags` and `--exclude-tags` can choose it."""

    def mark(function: Function) -> Function:
        function.task_tags = getattr(function, "task_tags", frozenset()) | set(names)  # type: ignore[attr-defined]
        return function

    return mark


Action = Callable[[Any], Awaitable[None] | None]


def tasks_of(user: type[User], tags: Sequence[str] = (), without: Sequence[str] = ()) -> tuple[list[Action], list[int]]:
    """The class's tasks and their weights, base classes included, in a fixed order."""
    names = dict.fromkeys(name for base in reversed(user.__mro__) for name in vars(base))
    functions = [f for name in names if hasattr(f := getattr(user, name), "task_weight")]
    chosen = [f for f in functions if _is_chosen(getattr(f, "task_tags", frozenset()), tags, without)]
    return chosen, [f.task_weight for f in chosen]


def _is_chosen(names: frozenset[str], tags: Sequence[str], without: Sequence[str]) -> bool:
    return (not tags or not names.isdisjoint(tags)) and names.isdisjoint(without)


def between(low_s: float, high_s: float) -> WaitTime:
    """Wait a random time between the two."""
    return lambda user: float(user.random.uniform(low_s, high_s))


def constant(wait_s: float) -> WaitTime:
    """Wait the same time after every task."""
    return lambda user: wait_s


def constant_pacing(pace_s: float) -> WaitTime:
    """Start a task every `pace_s`, however long it takes; latency counts from the intended start."""

    def wait(user: User) -> float:
        return pace_s

    wait.pace_s = pace_s  # type: ignore[attr-defined]
    return wait
