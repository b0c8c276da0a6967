"""One user's time in the run: its rooms, its connections, what it owes. The machinery behind users.User."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from random import Random
from typing import Any

from loadtest.connection import Connection, NotThisWire, Refused
from loadtest.joins import Joins, NotJoined
from loadtest.returns import WayBack
from loadtest.seat import Seat
from loadtest.stage import Stage
from loadtest.users import Action, NotAcknowledged, NotConnected, User
from loadtest.wires import Heard

ACKNOWLEDGE_S = 30.0
# Messages whose time has come while the connection is away or congested; more of them are not sent.
HELD_MAX = 1_000
POLL_S = 0.005


class Life:
    """Everything that `User` asks for and `worker` drives."""

    def __init__(self, stage: Stage, number: int, home: str, kind: type[User], actions: Sequence[Action]) -> None:
        self.stage = stage
        self.number = number
        self.home = home
        self.rooms = stage.spec.rooms
        self.random = Random(f"{stage.spec.seed}:user:{number}")
        self.open_model = stage.spec.rate is not None
        self.actions = actions
        self.user = kind(self)
        # The rooms that its connection is in, or wants to be in again.
        self.seats: dict[str, Seat] = {}
        self.away = False  # absent on purpose: before joining, after leave or cut
        self.due: deque[int] = deque()  # open model: intended times not acted on yet
        self.wants_in = False
        self.was_in = False
        self._connection: Connection | None = None
        self._due_us: int | None = None  # intended time of the action that is running
        self._held: deque[tuple[str, int]] = deque()
        self._way_back = WayBack()
        self._attempts = 0
        self._coming_back: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        return self._connection is not None

    @property
    def run_time_s(self) -> float:
        return self.stage.now_us() / 1e6

    # Rooms

    async def join(self, room: str) -> None:
        """Enter a room, and those behind it that go with it; returns once in. Gives up only when the run stops."""
        wanted = self.stage.spec.rooms_from(room)
        if self._connection is not None:
            if [*self.seats] == wanted:
                return
            await self.leave()
        self._stop_coming_back()
        self.away, self.wants_in = False, True
        self._take_seats(wanted)
        await self._enter()

    async def leave(self) -> None:
        """Mark what is owed now, wait until it is here, close."""
        self._stop_coming_back()
        self.wants_in, self.away = False, True
        self._way_back.left()
        connection = self._connection
        if connection is None:
            self._take_seats(())
            return
        connection.read_freely()
        for seat in self.seats.values():
            seat.leave()
        await self._until(
            lambda: self._connection is not connection or all(s.has_what_it_is_owed() for s in self.seats.values())
        )
        if self._connection is connection:
            for seat in self.seats.values():
                seat.left()
            self._forget_connection()
            await connection.close()

    def cut(self) -> None:
        self._stop_coming_back()
        self.wants_in, self.away = False, True
        self._way_back.left()
        connection = self._connection
        if connection is not None:
            self._lost()
            connection.abort()

    def stay_to_the_end(self) -> None:
        """The run is over: what this user hears is owed to it until the end."""
        if self._connection is not None:
            self._connection.read_freely()
            for seat in self.seats.values():
                seat.stay_to_the_end()

    def finish_coming(self) -> None:
        """The run ended while this user was on its way back: let it arrive, say what it held, hear the rest."""
        if self.wants_in and self.was_in and self._connection is None and self._coming_back is None:
            self._coming_back = self.stage.spawn(self._enter(), f"user {self.number} arrives")

    def is_complete(self) -> bool:
        """Nothing is on its way to this user that its process knows of."""
        if self._connection is None:
            return self._coming_back is None or self._coming_back.done()
        return all(seat.is_complete() for seat in self.seats.values())

    def hang_up(self) -> Connection | None:
        """The run is judged: give up the connection; the caller closes it."""
        connection = self._connection
        if connection is not None:
            self._forget_connection()
        return connection

    def _take_seats(self, rooms: Sequence[str]) -> None:
        """Those that it has in these rooms stay, and may be resumed."""
        for name, seat in self.seats.items():
            if name not in rooms:
                seat.given_up()
        stage, times = self.stage, self.stage.times_of(type(self.user).__name__)
        self.seats = {
            name: self.seats.get(name) or Seat(stage, stage.room(name), self.number, times, self._told, self._control)
            for name in rooms
        }

    async def _enter(self) -> None:
        stage = self.stage
        while not stage.stopping:
            if (pause_s := self._way_back.pause_s(stage.now_us(), self.random)) > 0:
                await asyncio.sleep(pause_s)
            retry_after_s = 0.0
            try:
                await self._connect()
                return
            except Refused as exc:
                retry_after_s = exc.retry_after_s
                stage.refusals[str(exc) if exc.status else f"no handshake: {exc}"] += 1
                if isinstance(exc, NotThisWire):
                    stage.tally["not_this_wire"] += 1
            except NotJoined as exc:
                stage.refusals[str(exc)] += 1
            except TimeoutError:
                stage.refusals["no answer to the handshake in time"] += 1
            except OSError as exc:
                stage.refusals[f"no TCP connection: {exc.strerror or exc}"] += 1
            self._way_back.failed(stage.now_us(), retry_after_s)

    async def _connect(self) -> None:
        stage = self.stage
        endpoints = stage.spec.endpoints
        endpoint = endpoints[(self.number + self._attempts) % len(endpoints)]
        self._attempts += 1
        address = await stage.address_of(endpoint)
        connection = Connection(stage.wire, stage.now_us, self.user.read_bytes_s)
        began_us = stage.now_us()
        name, seat = next(iter(self.seats.items()))
        many = stage.spec.rooms_per_connection is not None
        path = endpoint.path if many else endpoint.path_of(name, seat.after)
        opened = await connection.open(endpoint, address, path, stage.tls_of(endpoint), stage.token_of(self.number))
        if many:
            joins = Joins(stage, connection, self.seats, self.random, self._told)
            await joins.join()
            feed, in_us = joins.sorter.feed, stage.now_us()
        else:
            feed, in_us = seat.enter(opened.joined_us, opened.welcome).feed, opened.joined_us
        stage.connect.record([in_us - began_us])
        stage.tally["connected"] += 1
        # The node was the wrong one only if it failed: stay with it from now on.
        self._attempts -= 1
        self._way_back.arrived(in_us, stage.returns)
        self.was_in = True
        self._connection = connection
        stage.present += 1
        connection.on_writable = self._send_held
        connection.adopt(feed, self._closed)
        self._send_held()

    def _control(self, opcode: int, payload: bytes) -> None:
        if self._connection is not None:
            self._connection.on_control(opcode, payload)

    def _told(self, heard: Heard) -> None:
        """v1 speaks to this user alone."""
        stage, body = self.stage, heard.body
        if heard.kind == "reconnect":
            self._way_back.asked(body.get("after_s"), stage.now_us())
            stage.tally["reconnects_asked"] += 1
            return
        if heard.kind == "ack":
            stage.tally["acked"] += 1
        elif heard.kind in ("message", "nonsense"):
            self._foreign()
        elif heard.kind == "error":
            stage.errors[f"the server answered: {body.get('code')}: {body.get('text')}"[:300]] += 1
        seat = self._seat_of(body)
        if seat is not None:
            seat.told(heard)

    def _seat_of(self, body: Mapping[str, Any]) -> Seat | None:
        """Which room a frame is about. Who is in one by its address need not be told its name."""
        if self.stage.spec.rooms_per_connection is None:
            return next(iter(self.seats.values()), None)
        return self.seats.get(str(body.get("room")))

    def _foreign(self) -> None:
        """Of no room of its own. Evidence is kept by rooms, so it stands with any of them."""
        for seat in self.seats.values():
            if seat.member is not None:
                seat.member.record.foreign += 1
                return

    def _closed(self, code: int, reason: str) -> None:
        """The connection ended without our doing."""
        if self._connection is None:
            return
        self.stage.closes[f"{code} {reason}".strip()] += 1
        self._lost()
        if self.user.rejoin and self.wants_in and not self.stage.stopping:
            self._way_back.lost(code, self.stage.now_us())
            self._coming_back = self.stage.spawn(self._enter(), f"user {self.number} comes back")

    def _lost(self) -> None:
        for seat in self.seats.values():
            seat.lost()
        self._forget_connection()
        if not self.stage.wire.resumes:
            self.stage.tally["not_resumable"] += 1

    def _forget_connection(self) -> None:
        self._connection = None
        self.stage.present -= 1

    def _stop_coming_back(self) -> None:
        task, self._coming_back = self._coming_back, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    async def _until(self, condition: Callable[[], bool]) -> None:
        deadline_us = self.stage.now_us() + self.stage.spec.settle_s * 1e6
        # A poll: an event would have to be set on the road of every delivery.
        while not condition() and self.stage.now_us() < deadline_us:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)

    # Messages

    async def say(self, text: str) -> None:
        due_us, self._due_us = self._due_us, None
        intended_us = self.stage.now_us() if due_us is None else due_us
        if self.open_model:
            self._send_or_hold(text, intended_us)
            return
        seat = self._seat_to_speak()
        if seat is None or seat.member is None:
            raise NotConnected("the user is in no room")
        waiting = seat.member.waiting
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        key = self._send(seat, text, intended_us)
        waiting[key] = partial(done.set_result, None)
        try:
            async with asyncio.timeout(ACKNOWLEDGE_S):
                await done
        except TimeoutError:
            raise NotAcknowledged(f"not acknowledged within {ACKNOWLEDGE_S:.0f} s") from None
        finally:
            waiting.pop(key, None)

    def _seat_to_speak(self) -> Seat | None:
        """Any of its rooms; None: it is in none."""
        taken = [seat for seat in self.seats.values() if seat.stint is not None]
        return self.random.choice(taken) if len(taken) > 1 else next(iter(taken), None)

    def _send_or_hold(self, text: str, intended_us: int) -> None:
        if self.away and self._connection is None:
            self.stage.tally["unsent_away"] += 1
        elif len(self._held) >= HELD_MAX:
            self.stage.tally["unsent"] += 1
        else:
            self._held.append((text, intended_us))
            self._send_held()

    def _send_held(self) -> None:
        while self._held and self._connection is not None and not self._connection.congested:
            seat = self._seat_to_speak()
            if seat is None:
                return
            self._send(seat, *self._held.popleft())

    def _send(self, seat: Seat, text: str, intended_us: int) -> int:
        assert self._connection is not None
        key, said = seat.write(text, intended_us)
        self._connection.send(said)
        return key

    # Acting

    async def act(self, action: Action, intended_us: int) -> None:
        """One task of the user. Its first message counts from `intended_us`."""
        self._due_us = intended_us
        try:
            outcome = action(self.user)
            if inspect.isawaitable(outcome):
                await outcome
        except Exception as exc:
            self.stage.failed(f"{type(self.user).__name__}.{getattr(action, '__name__', 'task')}", exc)
        finally:
            self._due_us = None

    def not_sent(self) -> int:
        """Messages whose time came and that found no connection until the end; not of users away on purpose."""
        return 0 if self.away else len(self._held)
