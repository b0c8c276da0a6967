"""Into many rooms over one v1 connection: asked for in one burst, and again where the server refuses or ends one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from random import Random

from loadtest.connection import Connection
from loadtest.returns import STEP_FIRST_S
from loadtest.seat import Seat
from loadtest.sorter import Sorter
from loadtest.stage import Stage
from loadtest.wires import Heard

# How long a server may take until a connection is in all of its rooms.
JOIN_S = 30.0


class NotJoined(Exception):
    """The connection ended, or the time was over, before it was in all of its rooms."""


class Joins:
    """Of one connection, for as long as it lasts. `on_told` is given what is no message and no answer to a join."""

    def __init__(
        self,
        stage: Stage,
        connection: Connection,
        seats: Mapping[str, Seat],
        random: Random,
        on_told: Callable[[Heard], None],
    ) -> None:
        self.sorter = Sorter(stage.wire, self._told, connection.on_control)
        self._stage = stage
        self._connection = connection
        self._seats = seats
        self._random = random
        self._on_told = on_told
        self._outside = set(seats)
        self._all_in: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def join(self) -> None:
        """Returns once it is in all rooms. Raises NotJoined; the connection is gone then."""
        self._connection.adopt(self.sorter.feed, self._ended)
        for seat in self._seats.values():
            self._ask(seat)
        try:
            async with asyncio.timeout(JOIN_S):
                await self._all_in
        except BaseException as exc:
            self._connection.abort()
            for seat in self._seats.values():
                seat.lost()
            if isinstance(exc, TimeoutError):
                raise NotJoined(f"not in all of its rooms within {JOIN_S:.0f} s") from None
            raise

    def _ask(self, seat: Seat) -> None:
        self._connection.send(self._stage.wire.join(seat.name, seat.after))

    def _ask_later(self, seat: Seat) -> None:
        asyncio.get_running_loop().call_later(self._random.uniform(0, STEP_FIRST_S), self._ask, seat)

    def _told(self, heard: Heard) -> None:
        body = heard.body
        seat = self._seats.get(str(body.get("room")))
        if heard.kind == "joined" and seat is not None:
            self.sorter.members[seat.name.encode()] = seat.enter(self._stage.now_us(), heard)
            self._outside.discard(seat.name)
            if not self._outside and not self._all_in.done():
                self._all_in.set_result(None)
        elif heard.kind == "left" and seat is not None:
            self._stage.closes[f"a room was left: {body.get('reason')}"] += 1
            self.sorter.members.pop(seat.name.encode(), None)
            seat.lost()
            self._ask_later(seat)
        elif heard.kind == "error" and (asked := self._seats.get(str(body.get("ref")))) is not None:
            self._stage.refusals[f"a join was answered {body.get('code')}"] += 1
            self._ask_later(asked)
        else:
            self._on_told(heard)

    def _ended(self, code: int, reason: str) -> None:
        if not self._all_in.done():
            self._all_in.set_exception(NotJoined(f"closed before it was in all of its rooms: {code} {reason}".strip()))
