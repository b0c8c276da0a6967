"""What all users of one process share: clock, tapes, times, tallies, addresses. Knows no user by name."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from array import array
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from loadtest.histogram import Histogram
from loadtest.member import Record
from loadtest.returns import Returns
from loadtest.spec import Endpoint, Spec
from loadtest.stamp import key_of
from loadtest.tape import RAW_BYTES_MAX, RAW_BYTES_MIN, Tape, Times
from loadtest.tokens import Tokens
from loadtest.wires import WIRES


@dataclass(slots=True)
class Stint:
    """What one user sent over one connection: numbers `first_number`, +1, +2 ..."""

    user: int
    first_number: int
    sent_us: array[int] = field(default_factory=lambda: array("q"))
    broken: bool = False  # ended before everything was confirmed: unconfirmed messages may or may not exist
    refused: list[int] = field(default_factory=list)  # v1: the server said that these will never appear


@dataclass(slots=True)
class Room:
    """One room in this process: what was heard, who was in it, who said what."""

    tape: Tape
    records: list[Record] = field(default_factory=list)
    stints: list[Stint] = field(default_factory=list)
    numbers: Counter[int] = field(default_factory=Counter)  # user -> last number used here


class Stage:
    def __init__(self, spec: Spec, epoch_ns: int) -> None:
        self.spec = spec
        self.wire = WIRES[spec.wire]
        self.epoch_ns = epoch_ns
        self.rooms: dict[str, Room] = {}
        self.times: dict[str, Times] = {}
        self.connect = Histogram()  # TCP, TLS and handshake until the 101
        self.slip = Histogram()  # how much later than planned the harness acted
        self.slips_us = array("q")  # not yet in the histogram
        self.tally: Counter[str] = Counter()  # sent, planned, unsent, connected, acked, replayed ...
        self.refusals: Counter[str] = Counter()  # handshakes that failed, by answer
        self.closes: Counter[str] = Counter()  # connections that the server closed, by code and reason
        self.returns: Returns = {}
        self.errors: Counter[str] = Counter()  # exceptions of the scenario's own code
        self.present = 0  # users connected now
        self.stopping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._addresses: dict[str, str] = {}
        self._tokens = Tokens(spec.token_key, spec.token_claims, spec.run) if spec.token_key is not None else None
        self._tls = _tls_context(spec.insecure) if any(e.tls for e in spec.endpoints) else None

    def now_us(self) -> int:
        """Microseconds since the run began; the same clock in every process of this machine."""
        return (time.monotonic_ns() - self.epoch_ns) // 1000

    def room(self, name: str) -> Room:
        room = self.rooms.get(name)
        if room is None:
            raw_bytes_max = max(RAW_BYTES_MIN, RAW_BYTES_MAX // len(self.spec.rooms))
            room = self.rooms[name] = Room(Tape(self.spec.run, name, raw_bytes_max))
        return room

    def times_of(self, scenario: str) -> Times:
        if scenario not in self.times:
            self.times[scenario] = Times(scenario)
        return self.times[scenario]

    def tls_of(self, endpoint: Endpoint) -> ssl.SSLContext | None:
        return self._tls if endpoint.tls else None

    def token_of(self, user: int | str) -> str | None:
        """What says who a user is; None: nobody says."""
        return None if self._tokens is None else self._tokens.of(user)

    async def address_of(self, endpoint: Endpoint) -> str:
        """The IP address, looked up once per run. Raises OSError."""
        if endpoint.host not in self._addresses:
            loop = asyncio.get_running_loop()
            found = await loop.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
            self._addresses[endpoint.host] = str(found[0][4][0])
        return self._addresses[endpoint.host]

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """A task that the stage owns; `strike` ends those that are left."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def strike(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def failed(self, where: str, exc: Exception) -> None:
        """An exception of the scenario's code: counted, the user goes on."""
        self.errors[f"{where}: {type(exc).__name__}: {exc}"[:300]] += 1

    def last_sent(self) -> dict[str, list[int]]:
        """The newest message of each sender, by room; those of broken connections may never come."""
        return {
            name: [
                key_of(stint.user, stint.first_number + len(stint.sent_us) - 1)
                for stint in room.stints
                if stint.sent_us and not stint.broken
            ]
            for name, room in self.rooms.items()
        }

    def flush(self) -> None:
        for room in self.rooms.values():
            room.tape.flush()
        for times in self.times.values():
            times.flush()
        self.slip.record(self.slips_us)
        del self.slips_us[:]

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            self.errors[f"{task.get_name()}: {type(exc).__name__}: {exc}"[:300]] += 1


def _tls_context(insecure: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
