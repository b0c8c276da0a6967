"""What coordinator and workers say to each other, and how: pickles over a socket pair, length first."""

from __future__ import annotations

import asyncio
import pickle
import socket
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from loadtest.histogram import Sparse
from loadtest.member import Record
from loadtest.returns import Returns
from loadtest.spec import Spec
from loadtest.stage import Stint


@dataclass
class Prepare:
    """Coordinator: load the scenario and raise your limits."""

    spec: Spec
    worker: int


@dataclass
class Ready:
    """Worker: prepared, or not; then `error` says why."""

    error: str | None = None


@dataclass
class Go:
    """Coordinator: the run's second 0 on the monotonic clock."""

    epoch_ns: int


@dataclass
class Stop:
    """Coordinator: end now, in order (Ctrl-C)."""


@dataclass
class LastSent:
    """Worker, when the run is over: the last message of each of its users, by room."""

    keys: dict[str, list[int]]


@dataclass
class Awaited:
    """Coordinator: everyone's LastSent. Whoever shares such a room waits until it has heard them."""

    keys: dict[str, list[int]]


@dataclass
class Tick:
    """Worker, every second: what happened since the last one, and what is."""

    number: int  # 1, 2, 3 ...: the second that it tells about
    second: float  # when it was made
    present: int
    planned_present: int
    delivered: int  # in all so far
    tally: Counter[str]  # in all so far
    latency: dict[str, Sparse]  # scenario -> samples of this second
    service: dict[str, Sparse]
    connect: Sparse
    slip: Sparse
    lag: Sparse
    cpu_share: float  # of one core
    suspects: int  # deliveries that were not simply the room's next: lost, doubled or out of order so far
    settling: bool = False
    final: bool = False  # what was left over; no second of its own


@dataclass
class RoomEvidence:
    """One room as one process heard it. Arrays of int64."""

    keys: Any
    sent_us: Any
    counts: Any
    records: list[Record]
    stints: list[Stint]


@dataclass
class Done:
    """Worker: all that is left to know."""

    rooms: dict[str, RoomEvidence]
    tally: Counter[str]
    refusals: Counter[str]
    closes: Counter[str]
    returns: Returns
    errors: Counter[str]
    scenarios: dict[str, int]  # user class -> users
    cpu_s: float = 0.0
    wall_s: float = 0.0
    notes: list[str] = field(default_factory=list)


class Channel:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, sock: socket.socket) -> Channel:
        return cls(*await asyncio.open_connection(sock=sock))

    def send(self, message: object) -> None:
        body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        self._writer.write(len(body).to_bytes(8, "big") + body)

    async def receive(self) -> object | None:
        """The next message; None when the other side is gone."""
        try:
            size = int.from_bytes(await self._reader.readexactly(8), "big")
            return pickle.loads(await self._reader.readexactly(size))  # type: ignore[no-any-return]
        except (asyncio.IncompleteReadError, OSError):
            return None

    async def flushed(self) -> None:
        await self._writer.drain()

    def close(self) -> None:
        self._writer.close()
