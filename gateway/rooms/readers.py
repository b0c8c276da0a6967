"""Who has read up to where, for the connections of this node: asked for as they join or watch, and told as it moves.

A user's markers are the broker's. What is here is which connections are whose, and who has to be told anew. Who never
asks for a room costs nothing here, nor does a connection whose user is nobody.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager

from gateway.broker import refusals
from gateway.broker.errors import BrokerRefused
from gateway.broker.markers import Marker, Markers, Owner
from gateway.core.entry import EntryId
from gateway.core.names import RoomName
from gateway.core.user import User
from gateway.core.wires import v1
from gateway.rooms.session import Connection
from gateway.rooms.watch import Watchers
from gateway.settings.model import Settings
from gateway.telemetry.metrics import Metrics

# Who could not be told is told after so long.
AGAIN_S = 1.0


class Known:
    """Up to where somebody has read in some rooms, while an answer is made of it: what moves meanwhile is in it."""

    __slots__ = ("loading", "markers", "rooms")

    def __init__(self, rooms: Collection[RoomName]) -> None:
        self.rooms = frozenset(rooms)
        self.markers: dict[RoomName, EntryId] = {}
        # None: there is nothing to ask for.
        self.loading: asyncio.Task[None] | None = None

    async def loaded(self) -> None:
        """Wait until the broker has said, at most `broker_timeout_s`. What it does not say is told later."""
        if self.loading is not None:
            await self.loading

    def move(self, markers: Iterable[tuple[RoomName, EntryId]]) -> None:
        """They are so far at least."""
        for room, id in markers:
            if room in self.rooms:
                self.markers[room] = max(id, self.markers.get(room, id))


class Readers:
    """The connections of this node whose users' markers it hears of."""

    def __init__(self, markers: Markers, watchers: Watchers, settings: Settings, metrics: Metrics) -> None:
        self._markers = markers
        self._watchers = watchers
        self._settings = settings
        self._metrics = metrics
        markers.on_moved, markers.on_missed = self._tell, self._missed
        self._owners: dict[Connection, Owner] = {}
        self._connections: dict[Owner, set[Connection]] = {}
        self._asking: dict[Owner, list[Known]] = {}
        # To be told anew, of all their rooms.
        self._owed: dict[Connection, None] = {}
        self._owes = asyncio.Event()

    def __len__(self) -> int:
        return len(self._connections)

    # ---- for one connection ----

    def meet(self, connection: Connection) -> Owner | None:
        """Whose a connection is, which has not ended; None: its user is nobody. From the first time on it hears what
        moves, beginning with what is."""
        owner = self._owners.get(connection)
        if owner is None and connection.user.id:
            owner = self._markers.owner(connection.user.id, self._stays_s(connection.user))
            self._owners[connection] = owner
            if owner not in self._connections:
                self._connections[owner] = set()
                self._markers.listen(owner)
            self._connections[owner].add(connection)
            self._owe(connection)
        return owner

    def forget(self, connection: Connection) -> None:
        """A connection ends. Idempotent."""
        owner = self._owners.pop(connection, None)
        self._owed.pop(connection, None)
        if owner is not None:
            self._connections[owner].remove(connection)
            if not self._connections[owner]:
                del self._connections[owner]
                self._markers.ignore(owner)

    @asynccontextmanager
    async def asking(self, connection: Connection, rooms: Collection[RoomName]) -> AsyncIterator[Known]:
        """What the user of a connection, which has not ended, has read in these. To be told before it is left."""
        known = Known(rooms)
        owner = self.meet(connection)
        if owner is None or not rooms:
            yield known
            return
        asking = self._asking.setdefault(owner, [])
        asking.append(known)
        known.loading = asyncio.create_task(self._load(connection, owner, known), name="markers")
        try:
            yield known
        finally:
            known.loading.cancel()
            asking.remove(known)
            if not asking:
                del self._asking[owner]

    async def _load(self, connection: Connection, owner: Owner, known: Known) -> None:
        try:
            async with asyncio.timeout(self._settings.broker_timeout_s):
                known.move((await self._markers.of(owner, known.rooms)).items())
        except TimeoutError:
            if connection in self._owners:
                self._owe(connection)
        except BrokerRefused as exc:  # it would refuse it again
            refusals.tell(str(exc))

    def concerns(self, connection: Connection, room: RoomName) -> bool:
        """Whether it is in that room, or watches it."""
        return room in connection.sessions or self._watchers.watches(connection, room)

    # ---- telling ----

    async def run(self) -> None:
        """Tell those who have to be told anew, until cancelled: one after the other."""
        while True:
            await self._owes.wait()
            self._owes.clear()
            for connection in list(self._owed):
                if connection in self._owed:  # it did not end while others were told
                    del self._owed[connection]
                    await self._tell_all(connection)
            if self._owed:
                await asyncio.sleep(AGAIN_S)
                self._owes.set()

    async def _tell_all(self, connection: Connection) -> None:
        if self._full(connection):
            self._owe(connection)
            return
        rooms = connection.sessions.keys() | self._watchers.rooms(connection)
        async with self.asking(connection, rooms) as known:
            await known.loaded()
            for room, id in known.markers.items():
                if self.concerns(connection, room):  # still
                    self._write(connection, v1.read(room, id))

    def _tell(self, owner: Owner, moved: list[Marker]) -> None:
        for known in self._asking.get(owner, ()):
            known.move((marker.room, marker.id) for marker in moved)
        frames = [(marker, v1.read(marker.room, marker.id)) for marker in moved]
        for connection in list(self._connections.get(owner, ())):
            if self._full(connection):
                self._owe(connection)
                continue
            for marker, frame in frames:
                if marker.session != connection.id and self.concerns(connection, marker.room):
                    self._write(connection, frame)

    def _write(self, connection: Connection, frame: bytes) -> None:
        connection.write(frame)
        self._metrics.markers_told += 1

    def _missed(self, owner: Owner) -> None:
        for connection in self._connections.get(owner, ()):
            self._owe(connection)

    def _owe(self, connection: Connection) -> None:
        self._owed[connection] = None
        self._owes.set()

    def _full(self, connection: Connection) -> bool:
        full = connection.transport.get_write_buffer_size() > self._settings.outgoing_bytes_max
        self._metrics.markers_put_off += full
        return full

    def _stays_s(self, user: User) -> float:
        settings = self._settings
        return min(settings.read_ttl_s, settings.room_idle_s) if user.guest else settings.read_ttl_s
