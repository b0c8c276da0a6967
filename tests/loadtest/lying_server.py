"""A chat server that lies now and then and keeps its own tally: plain, and v1 in many rooms. No loadtest in it.

Each member has its own outgoing queue, so that a lie told to one member is told to nobody else. A seed
decides where; a member is lied to only when it has been in the room for a moment, because before that
nobody could know what it should have heard. Of eight messages of a room at most one is lied about, to one
member: where two are lied to about the same two messages there is no truth to be found.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from random import Random

from aiohttp import WSMsgType, web

SETTLED_S = 0.3


@dataclass(eq=False)
class Seat:
    room: str
    ws: web.WebSocketResponse
    number: int
    since: float = field(default_factory=time.monotonic)
    outgoing: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    owed_later: list[tuple[int, str]] = field(default_factory=list)  # (messages to wait for, text)
    heard: int = 0


@dataclass
class Lies:
    """Probabilities per delivery; 0 is the truth."""

    drop: float = 0.0
    double: float = 0.0
    swap: float = 0.0  # with the next one
    delay: float = 0.0  # behind the next five
    foreign: float = 0.0  # once more, to a member of another room
    drop_for_all: float = 0.0  # per message
    stall_at_s: float | None = None  # say nothing to anybody for stall_s, from here on
    stall_s: float = 2.0
    drop_number: int | None = None  # the n-th message of the run does not reach one member
    until_s: float | None = None  # from then on the truth


class LyingServer:
    def __init__(self, lies: Lies, seed: int) -> None:
        self.lies = lies
        self.random = Random(seed)
        self.tally: Counter[str] = Counter()
        self.rooms: dict[str, list[Seat]] = {}
        self.began: float | None = None  # when the first message of a run came
        self.close_with: int | None = None
        self.refuse_with: int | None = None
        self.joined = 0
        self.refuses_first_joins = False  # v1: of each room one
        self.refused: set[str] = set()
        self.ends_at = 0  # v1: so many messages of a room end the session of who came first
        self.entries: Counter[str] = Counter()  # v1: the newest id's count, by room
        self.since_lie: Counter[str] = Counter()  # room -> messages since somebody was lied to

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if self.refuse_with is not None and "check" not in request.path:
            return web.Response(status=self.refuse_with)
        ws = web.WebSocketResponse(compress=False)
        self.joined += 1
        seat = Seat(request.match_info["room"], ws, self.joined)
        self.rooms.setdefault(seat.room, []).append(seat)
        await ws.prepare(request)
        writer = asyncio.create_task(self._write(seat))
        try:
            async for frame in ws:
                if frame.type is WSMsgType.TEXT:
                    if self.close_with and "check" not in seat.room:
                        await ws.close(code=self.close_with, message=b"too fast")
                        break
                    self._publish(seat.room, json.dumps({"message": json.loads(frame.data)["message"]}))
        finally:
            self.rooms[seat.room].remove(seat)
            # What was to come late and for which no later message came was never told.
            self.tally["lost"] += len(seat.owed_later)
            writer.cancel()
        return ws

    async def handle_many(self, request: web.Request) -> web.StreamResponse:
        """v1 at `/ws/`: of each room that a connection joins it has a seat."""
        ws = web.WebSocketResponse(protocols=("hiroba.v1",), compress=False)
        await ws.prepare(request)
        await ws.send_json({"type": "welcome", "last_id": None, "recovered": False})
        seats: list[Seat] = []
        writers: list[asyncio.Task[None]] = []
        try:
            async for frame in ws:
                asked = json.loads(frame.data)
                room, told = asked["room"], {"room": asked["room"], "ref": asked["ref"]}
                if asked["type"] == "join" and self._refuses(room):
                    await ws.send_json({"type": "error", "code": "busy", "text": "later", **told})
                elif asked["type"] == "join":
                    await ws.send_json({"type": "joined", "last_id": "0-0", "recovered": False, **told})
                    self.joined += 1
                    seats.append(Seat(room, ws, self.joined))
                    self.rooms.setdefault(room, []).append(seats[-1])
                    writers.append(asyncio.create_task(self._write(seats[-1])))
                else:
                    self.entries[room] += 1
                    id, message = f"1-{self.entries[room]}", asked["message"]
                    said = {"type": "message", "room": room, "id": id, "message": message}
                    # As hiroba writes it, and as it might.
                    self._publish(room, json.dumps(said, separators=self.random.choice(((",", ":"), None))))
                    await ws.send_json({"type": "ack", "id": id, **told})
                    if self.entries[room] == self.ends_at:
                        ended = self.rooms[room].pop(0)
                        ended.outgoing.put_nowait(json.dumps({"type": "left", "room": room, "reason": "error"}))
        finally:
            for seat, writer in zip(seats, writers, strict=True):
                with suppress(ValueError):  # it was ended
                    self.rooms[seat.room].remove(seat)
                self.tally["lost"] += len(seat.owed_later)
                writer.cancel()
        return ws

    def _refuses(self, room: str) -> bool:
        if not self.refuses_first_joins or room in self.refused or "check" in room:
            return False
        self.refused.add(room)
        return True

    def _publish(self, room: str, text: str) -> None:
        if "check" in room:
            self.rooms[room][0].outgoing.put_nowait(text)
            return
        self.began = self.began or time.monotonic()
        self.tally["messages"] += 1
        self.since_lie[room] += 1
        members = self.rooms[room]
        old = [seat for seat in members if time.monotonic() - seat.since > SETTLED_S]
        if len(old) == len(members) and self.random.random() < self.lies.drop_for_all:
            self.tally["lost"] += len(members)
            return
        for seat in members:
            if seat is members[-1] and self.tally["messages"] == self.lies.drop_number:
                self._drop(seat, text)
            elif seat in old and not self._is_reformed():
                self._deliver(seat, text)
            else:
                self._put(seat, text)

    def _is_reformed(self) -> bool:
        until_s = self.lies.until_s
        return until_s is not None and self.began is not None and time.monotonic() - self.began > until_s

    def _deliver(self, seat: Seat, text: str) -> None:
        lies, luck = self.lies, self.random.random()
        for lie, chance in (
            (self._drop, lies.drop),
            (self._double, lies.double),
            (self._swap, lies.swap),
            (self._delay, lies.delay),
            (self._foreign, lies.foreign),
        ):
            if luck < chance and self.since_lie[seat.room] >= 8 and not seat.owed_later:
                self.since_lie[seat.room] = 0
                lie(seat, text)
                return
            luck -= chance
        self._put(seat, text)

    def _put(self, seat: Seat, text: str) -> None:
        seat.outgoing.put_nowait(text)
        self.tally["delivered"] += 1
        due = [late for left, late in seat.owed_later if left == 1]
        seat.owed_later = [(left - 1, late) for left, late in seat.owed_later if left > 1]
        for late in due:
            seat.outgoing.put_nowait(late)
            self.tally["delivered"] += 1
            self.tally["reordered"] += 1

    def _drop(self, seat: Seat, text: str) -> None:
        self.tally["lost"] += 1

    def _double(self, seat: Seat, text: str) -> None:
        self._put(seat, text)
        seat.outgoing.put_nowait(text)
        self.tally["doubled"] += 1

    def _swap(self, seat: Seat, text: str) -> None:
        seat.owed_later.append((1, text))

    def _delay(self, seat: Seat, text: str) -> None:
        seat.owed_later.append((5, text))

    def _foreign(self, seat: Seat, text: str) -> None:
        self._put(seat, text)
        there = {s.ws for s in self.rooms[seat.room]}
        others = [s for room, seats in self.rooms.items() if room != seat.room for s in seats if s.ws not in there]
        if others:
            self.random.choice(others).outgoing.put_nowait(text)
            self.tally["foreign"] += 1

    async def _write(self, seat: Seat) -> None:
        while True:
            text = await seat.outgoing.get()
            await self._stalled()
            await seat.ws.send_str(text)

    async def _stalled(self) -> None:
        if self.lies.stall_at_s is None or self.began is None:
            return
        begin = self.began + self.lies.stall_at_s
        left = begin + self.lies.stall_s - time.monotonic()
        if time.monotonic() >= begin and left > 0:
            await asyncio.sleep(left)


@asynccontextmanager
async def lying_server(
    lies: Lies, seed: int = 1, prepare: Callable[[LyingServer], None] = lambda server: None
) -> AsyncIterator[tuple[LyingServer, str]]:
    """The server and its address."""
    server = LyingServer(lies, seed)
    prepare(server)
    app = web.Application()
    app.router.add_get("/ws/chat/{room}/", server.handle)
    app.router.add_get("/ws/", server.handle_many)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield server, f"ws://127.0.0.1:{port}"
    finally:
        await runner.cleanup()
