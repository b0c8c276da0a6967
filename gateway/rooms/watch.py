"""Who watches which rooms, and is told once a second how far these grew: one timer and one pass for the whole node.

What moved is collected per second, not per message, and the piece that says so is made once for all who hear it. A
connection has a set of what it watches; it is told where that set meets the set of what moved.
"""

import asyncio
from collections.abc import Collection, Mapping, Set

from gateway.broker.tops import Top, Tops
from gateway.core.entry import EntryId
from gateway.core.names import RoomName
from gateway.core.wires import Ref, v1
from gateway.rooms.session import Connection
from gateway.settings.model import Settings
from gateway.telemetry.metrics import Metrics

# A connection is told at most once in so many seconds.
TOLD_EVERY_S = 1.0
# Bytes told in one turn of the loop, half a millisecond; then everybody else goes first. Not a time: where others take
# the core the turns would be of one connection each, and a round of many seconds.
TURN_BYTES = 131_072
# What a connection costs beside its frame, as so many bytes of one.
CONNECTION_BYTES = 1_024


class Watchers:
    """All of a node's connections that watch. Who does not costs nothing here."""

    def __init__(self, tops: Tops, settings: Settings, metrics: Metrics) -> None:
        self._tops = tops
        self._settings = settings
        self._metrics = metrics
        self._watching: dict[Connection, set[Top]] = {}
        # What moved while a socket was too full to be told of it.
        self._owed: dict[Connection, Set[Top]] = {}

    def __len__(self) -> int:
        return len(self._watching)

    def rooms(self, connection: Connection) -> set[RoomName]:
        """What it watches."""
        return {top.room for top in self._watching.get(connection, ())}

    def watches(self, connection: Connection, room: RoomName) -> bool:
        """Whether this is one of them."""
        return self._tops.rooms.get(room) in self._watching.get(connection, ())

    def space(self, connection: Connection) -> int:
        """How many rooms more it may watch."""
        return self._settings.watches_per_connection_max - len(self._watching.get(connection, ()))

    async def watch(self, connection: Connection, rooms: Collection[RoomName]) -> list[RoomName]:
        """From now on tell a connection, which has not ended, how far these grow. Returns those for which there was no
        space, its own (`watches_per_connection_max`) or the node's (`watched_rooms_max`).

        Waits for the broker, within bounds, so that `tops` has something to say.
        """
        watching = self._watching.setdefault(connection, set())
        new = [room for room in dict.fromkeys(rooms) if self._tops.rooms.get(room) not in watching]
        tops = self._tops.watch(new[: self.space(connection)])
        watching.update(tops)
        if not watching:
            del self._watching[connection]
        await self._tops.known([top for room in rooms if (top := self._tops.rooms.get(room)) in watching])
        taken = {top.room for top in tops}
        return [room for room in new if room not in taken]

    def unwatch(self, connection: Connection, rooms: Collection[RoomName]) -> None:
        """Tell it no more of these. Idempotent."""
        watching = self._watching.get(connection)
        if watching is None:
            return
        gone = watching.intersection(map(self._tops.rooms.get, rooms))
        watching -= gone
        if connection in self._owed:
            self._owed[connection] -= gone
        if not watching:
            del self._watching[connection]
        self._tops.release(gone)

    def forget(self, connection: Connection) -> None:
        """A connection ends. Idempotent."""
        self._owed.pop(connection, None)
        self._tops.release(self._watching.pop(connection, ()))

    def tops(
        self, connection: Connection, rooms: Collection[RoomName], ref: Ref, read: Mapping[RoomName, EntryId]
    ) -> bytes:
        """The frame that says how far these rooms are, those of them that the connection watches, and up to where its
        user has `read`."""
        watching = self._watching.get(connection, set())
        tops = [top for room in dict.fromkeys(rooms) if (top := self._tops.rooms.get(room)) in watching]
        markers = [v1.top(top.room, read[top.room]) for top in tops if top.room in read]
        return v1.tops([_piece(top) for top in tops if top.id is not None], ref, markers)

    async def run(self) -> None:
        """Tell, until cancelled."""
        while True:
            await asyncio.sleep(TOLD_EVERY_S)
            moved = self._tops.moved()
            if moved or self._owed:
                await self._tell(moved)

    async def _tell(self, moved: set[Top]) -> None:
        turn_bytes = 0
        space_bytes = self._settings.outgoing_bytes_max
        for connection in list(self._watching):
            watching = self._watching.get(connection)
            if watching is None:  # it left while others had their turn
                continue
            news: Set[Top] = moved & watching
            if connection in self._owed:
                news |= self._owed.pop(connection)
            if news and connection.transport.get_write_buffer_size() > space_bytes:
                self._owed[connection] = news
                self._metrics.tops_put_off += 1
            elif news:
                frame = v1.tops([top.piece or _piece(top) for top in news])
                connection.write(frame)
                self._metrics.tops_told += 1
                turn_bytes += len(frame)
            turn_bytes += CONNECTION_BYTES
            if turn_bytes > TURN_BYTES:
                await asyncio.sleep(0)
                turn_bytes = 0


def _piece(top: Top) -> bytes:
    """Made once for each id."""
    if top.piece is None:
        assert top.id is not None, "it has moved, so it is known"
        top.piece = v1.top(top.room, top.id)
    return top.piece
