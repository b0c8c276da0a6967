"""The rooms open on this node: opened once for all who come, kept a while when empty, closed without a trace."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from gateway.broker.broker import Broker
from gateway.broker.deletions import LOGS_PER_CALL
from gateway.broker.errors import BrokerGone, BrokerRefused
from gateway.broker.feed import Feed
from gateway.core.deletions import Deletion, News
from gateway.core.entry import EntryId, Gap
from gateway.core.names import RoomName
from gateway.core.wires import Ref
from gateway.rooms.here import Here
from gateway.rooms.paging import Paging
from gateway.rooms.room import Room, State
from gateway.rooms.session import Connection, Session
from gateway.rooms.tail import Tail, TailBudget
from gateway.rooms.typists import Typing
from gateway.rooms.walks import Walks
from gateway.settings.model import Settings
from gateway.telemetry.metrics import Metrics

# What walks may keep for each other, as a share of tail_bytes_max; the tails have the rest.
WALKS_SHARE = 1 / 8
# A joiner whose place could not be asked for tries again after this long.
PLACE_RETRY_S = 0.1

log = structlog.get_logger()

Keep = Callable[[str, Coroutine[Any, Any, None]], "asyncio.Task[None]"]


class HubFull(Exception):
    """rooms_max is reached."""


# Why a room could not be entered.
Unplaced = HubFull | BrokerRefused


@dataclass(frozen=True)
class Place:
    """Where a joiner begins. `recovered`: everything since the id it asked for will follow; None: it asked for none."""

    room: Room
    cursor: EntryId
    recovered: bool | None
    # The newest seam of the log that lies behind the cursor; 0: nobody knows.
    past: int = 0

    def session(self, connection: Connection) -> Session:
        """One that begins here. To be admitted in this turn of the loop."""
        session = Session(connection, self.room, self.cursor)
        session.past = self.past
        if self.recovered is None:
            session.came_at, session.came_behind = self.room.top, self.room.feed.numbered
        return session


class Hub:
    """Name -> room. A joiner goes enter() -> session() -> Room.admit(); whoever entered must be released once."""

    def __init__(self, broker: Broker, settings: Settings, metrics: Metrics, keep: Keep) -> None:
        self.rooms: dict[RoomName, Room] = {}
        # Those in which somebody asks who is there, open or not (rooms/presence.py).
        self.here: dict[RoomName, Here] = {}
        self._broker = broker
        self._settings = settings
        self._metrics = metrics
        self._keep = keep
        walks_bytes_max = int(settings.tail_bytes_max * WALKS_SHARE)
        self._tails = TailBudget(settings.tail_bytes_max - walks_bytes_max)
        self._walks = Walks(walks_bytes_max)
        self.typing = Typing(broker.whispers, self.rooms, settings, metrics)
        self.paging = Paging(broker, self._walks, settings.outgoing_bytes_max)
        self._opening: dict[RoomName, asyncio.Task[None]] = {}
        # Whether all logs are being asked for what is deleted in them, and have to be once more.
        self._asking = self._ask_again = False
        broker.control.on_deleted = self._deleted

    async def enter(self, name: RoomName, after: EntryId | None, history: int) -> Place:
        """Open the room if need be and find where the joiner begins; whatever is appended later will reach it.

        Waits for the broker: the caller brings a deadline. Raises HubFull, BrokerRefused.
        On return the caller owes `release(room)`, after admitting the session or giving up.
        """
        (place,) = (await self.enter_all({name: (after, history)})).values()
        if isinstance(place, Place):
            return place
        raise place

    async def enter_all(
        self, wanted: Mapping[RoomName, tuple[EntryId | None, int]]
    ) -> dict[RoomName, Place | Unplaced]:
        """Several at once, room -> (after, history), for as many round trips as one; what can't be entered has its
        reason for a place. The caller owes `release(room)` for each place."""
        rooms, outcomes = self._rooms(wanted)
        try:
            for opening in {self._opening[name]: None for name in rooms if name in self._opening}:
                await asyncio.shield(opening)
            await self._broker.proof()
            asked = [name for name, room in rooms.items() if self._place_at_hand(room, *wanted[name]) is None]
            placed = (self._placed(rooms[name], *wanted[name]) for name in asked)
            outcomes |= zip(asked, await asyncio.gather(*placed), strict=True)
            # Last: where a room stands now is where the joiner begins, if nobody waits in between.
            for name in rooms.keys() - outcomes.keys():
                place = self._place_at_hand(rooms[name], *wanted[name])
                outcomes[name] = await self._placed(rooms[name], *wanted[name]) if place is None else place
        except BaseException:
            for room in rooms.values():
                self.release(room)
            raise
        for name, room in rooms.items():
            if not isinstance(outcomes[name], Place):
                self.release(room)
        return outcomes

    def release(self, room: Room) -> None:
        """A handshake is over, well or not."""
        room.joining -= 1
        self._linger(room)

    def leave(self, session: Session) -> None:
        """A session ends. Idempotent."""
        session.room.leave(session)
        self._linger(session.room)

    def publish(self, session: Session, message: bytes, ref: Ref) -> None:
        """Append to the room's log; its connection is `answered` later. The only road from one client to another."""
        connection = session.connection
        key = session.room.feed.key
        self._broker.publisher.offer(key, connection.id, connection.user.json, message, ref, session.answered)

    def tail_bytes(self) -> int:
        return self._tails.used_bytes + self._walks.bytes

    # ---- what is deleted ----

    def _deleted(self, news: News | None) -> None:
        """As the control log says; None: this node missed some of it."""
        if news is not None:
            room = self.rooms.get(RoomName(news.room))
            if room is not None and room.state is not State.OPENING:
                room.delete(news)
            return
        for room in self.rooms.values():
            room.forget()
        self._ask_again = True
        if not self._asking:
            self._asking = True
            self._keep("deletions missed", self._ask_for_deletions())

    async def _ask_for_deletions(self) -> None:
        """Ask the logs, and tell all that is deleted in them: who was told before hears it again."""
        try:
            while self._ask_again:
                self._ask_again = False
                self._metrics.deletions_missed += 1
                names = [name for name, room in self.rooms.items() if room.state is not State.OPENING]
                for at in range(0, len(names), LOGS_PER_CALL):
                    await self._ask_for_deletions_of(names[at : at + LOGS_PER_CALL])
        finally:
            self._asking = False

    async def _ask_for_deletions_of(self, names: list[RoomName]) -> None:
        while True:
            await self._broker.proof()
            try:
                found = await self._broker.deletions.tombstones(names)
                break
            except BrokerGone:
                await asyncio.sleep(PLACE_RETRY_S)
            except BrokerRefused as exc:
                log.error("logs could not be asked for what is deleted in them", error=str(exc))
                return
        for name, ids in zip(names, found, strict=True):
            room = self.rooms.get(name)
            if ids and room is not None and room.state is not State.OPENING:
                room.delete(News(Deletion(name, tuple(map(str, ids)))))

    def _rooms(self, names: Iterable[RoomName]) -> tuple[dict[RoomName, Room], dict[RoomName, Place | Unplaced]]:
        """These rooms, joined by somebody from now on and opened where they have to be; and which ones can't be."""
        rooms: dict[RoomName, Room] = {}
        full: dict[RoomName, Place | Unplaced] = {}
        fresh: dict[RoomName, Room] = {}
        for name in names:
            room = self.rooms.get(name)
            if room is None:
                if len(self.rooms) >= self._settings.rooms_max:
                    full[name] = HubFull()
                    continue
                room = fresh[name] = self.rooms[name] = self._room(name)
            elif room.state is State.LINGERING:
                room.state = State.OPEN
            room.joining += 1
            rooms[name] = room
        if fresh:
            self._opening |= dict.fromkeys(fresh, self._keep(f"open {len(fresh)} rooms", self._open(fresh)))
        return rooms, full

    def _room(self, name: RoomName) -> Room:
        tail = Tail(self._settings.tail_entries_max, self._tails)
        outgoing_bytes_max = self._settings.outgoing_bytes_max
        room = Room(name, self._broker, tail, self._walks, self._metrics, outgoing_bytes_max, self._keep)
        room.here = self.here.get(name)
        return room

    async def _open(self, rooms: Mapping[RoomName, Room]) -> None:
        """The rooms' own task, not a joiner's: all who come meanwhile await it, and none can cancel it."""
        try:
            for name, feed in (await self._broker.follow(rooms)).items():
                if isinstance(feed, Feed):
                    rooms[name].feed = feed
                    rooms[name].state = State.OPEN
                else:
                    log.error("room could not be opened", room=name, error=str(feed))
        except BrokerRefused as exc:
            log.error("rooms could not be opened", rooms=len(rooms), one=next(iter(rooms)), error=str(exc))
        finally:
            for name, room in rooms.items():
                if room.state is State.OPENING:  # refused, or a bug: the next joiner tries anew
                    room.state = State.CLOSED
                    del self.rooms[name]
                del self._opening[name]
                self._linger(room)

    def _linger(self, room: Room) -> None:
        if room.state is State.OPEN and room.empty:
            room.state = State.LINGERING
            room.visits += 1
            asyncio.get_running_loop().call_later(self._settings.linger_s, self._close, room, room.visits)

    def _close(self, room: Room, visits: int) -> None:
        # Used and left again meanwhile, it has a later call on its way.
        if room.state is State.LINGERING and room.visits == visits:
            room.state = State.CLOSED
            del self.rooms[room.name]
            room.forget()
            self._broker.whispers.ignore(room.name)
            self._broker.unfollow(room.feed)

    def _place_at_hand(self, room: Room, after: EntryId | None, history: int) -> Place | Unplaced | None:
        """Where most begin: at the top, with nothing missed. None: the log has to be asked, or looked at closely."""
        if room.state is State.CLOSED:
            return BrokerRefused("ERR the room could not be opened, see the node's log")
        if after is None and not history:
            return Place(room, room.newest, None, room.feed.past)
        if after is not None and after == room.newest and not room.feed.lines:
            return Place(room, after, True)
        return None

    async def _placed(self, room: Room, after: EntryId | None, history: int) -> Place | Unplaced:
        """A connection that just broke is no reason to refuse anybody: it comes back."""
        while True:
            await self._broker.proof()
            try:
                return await self._place(room, after, history)
            except BrokerGone:
                await asyncio.sleep(PLACE_RETRY_S)
            except BrokerRefused as exc:
                return exc

    async def _place(self, room: Room, after: EntryId | None, history: int) -> Place:
        if after is not None:
            if await self._within_log(room, after):
                # Ids of what is gone may be above it: then the log says whether it stands in it.
                own = room.feed.astray(after) and await self._broker.has(room.feed, after)
                past = room.feed.past if own else 0
                return Place(room, after, await self._continues(room, after, past), past)
            recovered: bool | None = False
        else:
            recovered = None
        return Place(room, await self._start_of_last(room, history), recovered, room.feed.past)

    async def _within_log(self, room: Room, after: EntryId) -> bool:
        """Whether an id can be a cursor of this log. One that this node has not read up to makes it read."""
        if after <= room.newest_known:
            return True
        if not await self._broker.has(room.feed, after):
            return False
        self._broker.ring(room.feed)
        return True

    async def _continues(self, room: Room, after: EntryId, past: int) -> bool:
        """Whether everything since `after` is still there."""
        in_tail = bool(room.tail.after(after, 1))
        parting = room.feed.parting
        if in_tail and (parting is None or parting.lost(parting.read.n) == 0):
            return True  # what a seam took this node had read, and gives from memory
        if room.feed.owes(after, past):
            return False
        if after >= room.top and not room.feed.astray(after, past):
            return True
        async with self._broker.reads.pages:
            pieces = await self._broker.reads.after(room.feed, after, room.top, room.page_entries(after), past)
        return bool(pieces) and Gap not in map(type, pieces)

    async def _start_of_last(self, room: Room, count: int) -> EntryId:
        if not count:
            return room.newest
        return room.tail.start_of_last(count) or await self._broker.reads.start_of_last(room.feed, room.top, count)
