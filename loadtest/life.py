"""One user's time in the run: its room, its connections, what it owes. The machinery behind users.User."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Any

from loadtest import stamp
from loadtest.connection import Connection, NotThisWire, Refused
from loadtest.member import OWED_ALL, Member, Record
from loadtest.returns import WayBack
from loadtest.stage import Room, Stage, Stint
from loadtest.users import Action, NotAcknowledged, NotConnected, User
from loadtest.wires import Heard, read_id, write_id

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
        self.room: Room | None = None
        self.member: Member | None = None
        self.stint: Stint | None = None
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
        """Enter a room; returns once in. Gives up only when the run stops."""
        if self._connection is not None:
            if self.room is self.stage.room(room):
                return
            await self.leave()
        self._stop_coming_back()
        self.away, self.wants_in = False, True
        await self._enter(self.stage.room(room))

    async def leave(self) -> None:
        """Mark what is owed now, wait until it is here, close."""
        self._stop_coming_back()
        self.wants_in, self.away = False, True
        self._way_back.left()
        connection, member, stint = self._connection, self.member, self.stint
        if connection is None or member is None or stint is None:
            self._end_membership()
            return
        connection.read_freely()
        member.record.owed_to = len(member.tape)
        await self._until(lambda: self._connection is not connection or self._has_everything(member, stint))
        if self._connection is connection:
            stint.broken = not self._confirmed(member, stint)
            self._forget_connection()
            self._end_membership(owed=True)
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
        """The run is over: this membership is owed everything."""
        if self._connection is not None and self.member is not None:
            self._connection.read_freely()
            self.member.record.owed_to = OWED_ALL

    def finish_coming(self) -> None:
        """The run ended while this user was on its way back: let it arrive, say what it held, hear the rest."""
        if self.wants_in and self.was_in and self._connection is None and self._coming_back is None:
            room = self.room or self.stage.room(self.home)
            self._coming_back = self.stage.spawn(self._enter(room), f"user {self.number} arrives")

    def is_complete(self) -> bool:
        """Nothing is on its way to this user that its process knows of."""
        member, stint = self.member, self.stint
        if self._connection is None or member is None or stint is None:
            return self._coming_back is None or self._coming_back.done()
        return member.record.end >= len(member.tape) and self._confirmed(member, stint)

    def hang_up(self) -> Connection | None:
        """The run is judged: give up the connection; the caller closes it."""
        connection = self._connection
        if connection is not None:
            self._forget_connection()
        return connection

    async def _enter(self, room: Room) -> None:
        stage = self.stage
        while not stage.stopping:
            if (pause_s := self._way_back.pause_s(stage.now_us(), self.random)) > 0:
                await asyncio.sleep(pause_s)
            retry_after_s = 0.0
            try:
                await self._connect(room)
                return
            except Refused as exc:
                retry_after_s = exc.retry_after_s
                stage.refusals[str(exc) if exc.status else f"no handshake: {exc}"] += 1
                if isinstance(exc, NotThisWire):
                    stage.tally["not_this_wire"] += 1
            except TimeoutError:
                stage.refusals["no answer to the handshake in time"] += 1
            except OSError as exc:
                stage.refusals[f"no TCP connection: {exc.strerror or exc}"] += 1
            self._way_back.failed(stage.now_us(), retry_after_s)

    async def _connect(self, room: Room) -> None:
        stage = self.stage
        endpoints = stage.spec.endpoints
        endpoint = endpoints[(self.number + self._attempts) % len(endpoints)]
        self._attempts += 1
        address = await stage.address_of(endpoint)
        resuming = self.member if self.member is not None and self.room is room else None
        after = write_id(resuming.last_id) if resuming is not None else None
        connection = Connection(stage.wire, stage.now_us, self.user.read_bytes_s)
        began_us = stage.now_us()
        path = endpoint.path_of(room.tape.room, after)
        opened = await connection.open(endpoint, address, path, stage.tls_of(endpoint))
        stage.connect.record([opened.joined_us - began_us])
        stage.tally["connected"] += 1
        # The node was the wrong one only if it failed: stay with it from now on.
        self._attempts -= 1
        self._settle_in(room, connection, opened.joined_us, opened.welcome, resuming)

    def _settle_in(
        self,
        room: Room,
        connection: Connection,
        joined_us: int,
        welcome: Heard | None,
        resuming: Member | None,
    ) -> None:
        stage = self.stage
        self._way_back.arrived(joined_us, stage.returns)
        newest = read_id(welcome.body.get("last_id")) if welcome is not None else (0, 0)
        if resuming is not None and welcome is not None and welcome.body.get("recovered") is True:
            resuming.rejoined(joined_us, newest[1])
            member = resuming
            stage.tally["resumed"] += 1
        else:
            if resuming is not None:
                stage.tally["not_recovered"] += 1
            self._end_membership()
            record = Record(self.number, joined_us)
            times = stage.times_of(type(self.user).__name__)
            member = Member(room.tape, stage.wire, record, times, self._told, self._control)
            member.newest = newest
            room.records.append(record)
        self.was_in = True
        self.room, self.member, self._connection = room, member, connection
        self.stint = Stint(self.number, room.numbers[self.number] + 1)
        room.stints.append(self.stint)
        stage.present += 1
        connection.on_writable = self._send_held
        connection.adopt(member.feed, self._closed)
        self._send_held()

    def _control(self, opcode: int, payload: bytes) -> None:
        if self._connection is not None:
            self._connection.on_control(opcode, payload)

    def _told(self, heard: Heard) -> None:
        """v1 speaks to this user alone."""
        stage, member, body = self.stage, self.member, heard.body
        if member is None:
            return
        if heard.kind == "ack":
            stage.tally["acked"] += 1
            self._settle_ref(body.get("ref"))
        elif heard.kind == "gap":
            record = member.record
            record.gaps.append((read_id(body.get("after"))[1], read_id(body.get("before"))[1]))
        elif heard.kind == "error":
            stage.errors[f"the server answered: {body.get('code')}: {body.get('text')}"[:300]] += 1
            ref = body.get("ref")
            if self.stint is not None and isinstance(ref, int) and body.get("code") != "unknown":
                self.stint.refused.append(ref)
        elif heard.kind == "reconnect":
            self._way_back.asked(body.get("after_s"), stage.now_us())
            stage.tally["reconnects_asked"] += 1

    def _settle_ref(self, ref: Any) -> None:
        if self.member is not None and isinstance(ref, int):
            waiter = self.member.waiting.pop(stamp.key_of(self.number, ref), None)
            if waiter is not None:
                waiter()

    def _closed(self, code: int, reason: str) -> None:
        """The connection ended without our doing."""
        if self._connection is None:
            return
        self.stage.closes[f"{code} {reason}".strip()] += 1
        self._lost()
        if self.user.rejoin and self.wants_in and not self.stage.stopping and self.room is not None:
            self._way_back.lost(code, self.stage.now_us())
            self._coming_back = self.stage.spawn(self._enter(self.room), f"user {self.number} comes back")

    def _lost(self) -> None:
        member, stint = self.member, self.stint
        if member is not None and stint is not None:
            stint.broken = not self._confirmed(member, stint)
        self._forget_connection()
        if not self.stage.wire.resumes:
            self.stage.tally["not_resumable"] += 1
            self._end_membership()

    def _forget_connection(self) -> None:
        self._connection = self.stint = None
        self.stage.present -= 1

    def _end_membership(self, owed: bool = False) -> None:
        if self.member is not None and not owed:
            self.member.record.owed_to = -1
        self.member = None

    def _stop_coming_back(self) -> None:
        task, self._coming_back = self._coming_back, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    def _has_everything(self, member: Member, stint: Stint) -> bool:
        return member.record.end >= member.record.owed_to and self._confirmed(member, stint)

    def _confirmed(self, member: Member, stint: Stint) -> bool:
        """Is the newest of the stint's messages known to be in the room? (Then so are those before it.)"""
        last = stint.first_number + len(stint.sent_us) - 1
        return not stint.sent_us or last in stint.refused or member.tape.find(stamp.key_of(self.number, last)) >= 0

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
        if self._connection is None or self.member is None:
            raise NotConnected("the user is in no room")
        member = self.member
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        key = self._send(text, intended_us)
        member.waiting[key] = partial(done.set_result, None)
        try:
            async with asyncio.timeout(ACKNOWLEDGE_S):
                await done
        except TimeoutError:
            raise NotAcknowledged(f"not acknowledged within {ACKNOWLEDGE_S:.0f} s") from None
        finally:
            member.waiting.pop(key, None)

    def _send_or_hold(self, text: str, intended_us: int) -> None:
        if self._connection is not None and not self._connection.congested and not self._held:
            self._send(text, intended_us)
        elif self.away or len(self._held) >= HELD_MAX:
            self.stage.tally["unsent_away" if self.away else "unsent"] += 1
        else:
            self._held.append((text, intended_us))

    def _send_held(self) -> None:
        while self._held and self._connection is not None and not self._connection.congested:
            self._send(*self._held.popleft())

    def _send(self, text: str, intended_us: int) -> int:
        stage, room, stint, connection = self.stage, self.room, self.stint, self._connection
        assert room is not None and stint is not None and connection is not None
        number = room.numbers[self.number] = room.numbers[self.number] + 1
        sent_us = stage.now_us()
        mark = stamp.Stamp(stage.spec.run, room.tape.room, self.number, number, intended_us, sent_us)
        stint.sent_us.append(sent_us)
        stage.tally["sent"] += 1
        connection.send(stage.wire.say(stamp.write(mark, text, stage.spec.message_bytes), number))
        return mark.key

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
