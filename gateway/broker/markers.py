"""Read markers on the broker: moved forward there, asked for, and heard of where another node moved them.

A marker is written some time after it was said, together with all others of the node: of what one owner says of one
room meanwhile only the largest id goes out. While the broker is away they wait; a call that is sent twice moves nothing
twice (broker_config/mark.lua).
"""

import asyncio
from collections.abc import Callable, Collection, Iterable
from itertools import islice
from typing import NamedTuple

from gateway.broker import refusals
from gateway.broker.connection import Arg
from gateway.broker.doorbell import Doorbell
from gateway.broker.errors import BrokerGone, BrokerRefused
from gateway.broker.keys import Keys
from gateway.broker.lane import Lane
from gateway.broker.publish import PASSING
from gateway.broker.script import Script
from gateway.core.entry import EntryId, parse_id
from gateway.core.names import RoomName
from gateway.settings.model import Settings
from gateway.telemetry.metrics import Metrics

# Seconds between two calls. Who scrolls moves a marker many times in it, and who waits for it is a person.
GATHER_S = 0.25
# Markers in one call, half a millisecond of the broker; and owners asked about in one round trip.
MARKERS_PER_CALL = 256
# In how many calls a marker of the owner moved. No room has this name.
MOVES = b"#"
# As many as nobody ever sees.
UNSEEN = -1


class Owner:
    """Whose markers they are, as far as this node has to do with them."""

    __slots__ = ("channel", "heard", "key", "moves", "stays_s")

    def __init__(self, key: bytes, channel: bytes, stays_s: float) -> None:
        self.key = key
        self.channel = channel
        # Seconds that the broker keeps them from the last time on that one moved.
        self.stays_s = stays_s
        # The count of moves up to which who listens here was told all. None: nobody asked yet.
        self.moves: int | None = None
        # Whether what moves from now on is heard, or nobody listens any more.
        self.heard = asyncio.Event()


class Marker(NamedTuple):
    """Up to where somebody has read in a room, and by which session he said so."""

    owner: Owner
    room: RoomName
    id: EntryId
    session: str
    # Told why the broker does not take it, if it does not.
    refused: Callable[[str], None] = lambda reason: None


class Markers:
    """The node's one road to them. Whoever puts one must look whether it is `full`."""

    def __init__(self, keys: Keys, doorbell: Doorbell, lane: Lane, settings: Settings, metrics: Metrics) -> None:
        self._keys = keys
        self._doorbell = doorbell
        self._lane = lane
        self._settings = settings
        self._metrics = metrics
        metrics.known("nonsense", ("marker",))
        self._script = Script("mark", lane)
        # By key: those for whom somebody listens.
        self._listening: dict[bytes, Owner] = {}
        # To be written, in the order in which they were first said: of one owner and room the largest.
        self._waiting: dict[tuple[bytes, RoomName], Marker] = {}
        self._put = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        # Readers of whose moves some may have gone unheard.
        self._doubted: dict[Owner, None] = {}
        self._doubts = asyncio.Event()
        # Told what moved, in the order in which it did; and of whom any marker may have moved.
        self.on_moved: Callable[[Owner, list[Marker]], None] = lambda owner, moved: None
        self.on_missed: Callable[[Owner], None] = lambda owner: None

    def owner(self, user: str, stays_s: float) -> Owner:
        """A user; the same one for all who listen."""
        key = self._keys.read(user)
        return self._listening.get(key) or Owner(key, self._keys.channel(key), stays_s)

    # ---- writing ----

    @property
    def full(self) -> bool:
        return len(self._waiting) >= self._settings.read_waiting_max

    def waiting(self) -> int:
        """How many are not written yet."""
        return len(self._waiting)

    def put(self, marker: Marker) -> None:
        """Write it soon, unless a later one of this owner and room is said before."""
        place = marker.owner.key, marker.room
        known = self._waiting.get(place)
        if known is None or marker.id > known.id:
            self._waiting[place] = marker
            self._idle.clear()
            self._put.set()

    async def flushed(self) -> None:
        """Wait until all are written or refused."""
        await self._idle.wait()

    async def run(self) -> None:
        """Write until cancelled: one call at a time."""
        while True:
            if not self._waiting:
                self._idle.set()
                self._put.clear()
                await self._put.wait()
            await self._lane.up()
            batch = list(islice(self._waiting.values(), MARKERS_PER_CALL))
            for marker in batch:
                del self._waiting[marker.owner.key, marker.room]
            try:
                await self._write(batch)
            except BrokerGone:
                for marker in batch:
                    self.put(marker)
            except BrokerRefused as exc:
                _refuse(batch, str(exc))
            await asyncio.sleep(GATHER_S)

    async def _write(self, batch: list[Marker]) -> None:
        owners: dict[Owner, list[Marker]] = {}
        for marker in batch:
            owners.setdefault(marker.owner, []).append(marker)
        arguments: list[Arg] = [self._settings.read_rooms_max, self._keys.channel_tail]
        for owner, markers in owners.items():
            arguments += (int(owner.stays_s) or 1, len(markers))
            for marker in markers:
                arguments += (marker.room, str(marker.id), marker.session)
        keys = [owner.key for owner in owners]
        outcomes: list[bytes] = await self._script.ask(keys, *arguments)
        if len(outcomes) > len(keys):
            refusals.tell(outcomes.pop().decode(errors="replace"))
        for markers, outcome in zip(owners.values(), outcomes, strict=True):
            if outcome:
                _refuse(markers, outcome.decode(errors="replace"))
            else:
                self._metrics.markers_written += len(markers)

    # ---- hearing of them ----

    def listen(self, owner: Owner) -> None:
        """Hear from now on what moves. The caller owes it `ignore`."""
        self._listening[owner.key] = owner
        self._doorbell.listen([owner.channel])

    def ignore(self, owner: Owner) -> None:
        """Hear it no more."""
        del self._listening[owner.key]
        self._doubted.pop(owner, None)
        self._doorbell.unsubscribe([owner.channel])
        owner.heard.set()

    async def of(self, owner: Owner, rooms: Collection[RoomName]) -> dict[RoomName, EntryId]:
        """The markers of somebody for whom we listen, of those rooms that have one. What moves later is heard of.

        Waits for the broker as long as it takes: the caller brings a deadline. Raises BrokerRefused.
        """
        self._doorbell.listen([owner.channel])  # of a channel that was refused the doorbell knows no more
        await owner.heard.wait()
        while True:
            await self._lane.up()
            try:
                moves, *ids = await self._lane.ask_master("HMGET", owner.key, MOVES, *rooms)
            except BrokerGone:
                continue
            self._metrics.markers_asked += len(ids)
            if owner.moves is None:
                owner.moves = _number(moves)
            known = ((room, _id(raw)) for room, raw in zip(rooms, ids, strict=True))
            return {room: id for room, id in known if id is not None}

    def ring(self, key: bytes, news: bytes) -> None:
        """Markers moved, or somebody says so."""
        owner = self._listening.get(key)
        if owner is None:
            return
        head, _, lines = news.partition(b"\n")
        try:
            moved = [_moved(owner, line) for line in lines.decode().split("\n")]
            moves = int(head)
        except ValueError:
            self._metrics.nonsense["marker"] += 1
            refusals.puzzle("marker", key, news)
            return
        missed = owner.moves is not None and moves not in (owner.moves, owner.moves + 1)
        owner.moves = moves
        self.on_moved(owner, moved)
        if missed:
            self.on_missed(owner)

    def listens(self, key: bytes) -> None:
        """The channel is connected (again). What moved until now may have gone unheard."""
        owner = self._listening.get(key)
        if owner is None:
            return
        owner.heard.set()
        if owner.moves is not None:
            self._doubted[owner] = None
            self._doubts.set()

    async def prove(self) -> None:
        """Ask, until cancelled, whether those who are doubted moved meanwhile; most did not."""
        while True:
            if not self._doubted:
                self._doubts.clear()
                await self._doubts.wait()
            await self._lane.up()
            owners = list(islice(self._doubted, MARKERS_PER_CALL))
            for owner in owners:
                del self._doubted[owner]
            try:
                counts = await self._lane.ask_master_all([("HGET", owner.key, MOVES) for owner in owners])
            except BrokerGone:
                self._doubted.update(dict.fromkeys(owners))
                continue
            for owner, count in zip(owners, counts, strict=True):
                if isinstance(count, BrokerRefused):
                    refusals.tell(str(count))
                elif _number(count) != owner.moves:
                    owner.moves = _number(count)
                    self.on_missed(owner)


def _refuse(markers: Iterable[Marker], error: str) -> None:
    refusals.tell(error)
    refusal = PASSING.get(BrokerRefused(error).code)
    reason = "the broker refused the marker" if refusal is None else refusal.reason
    for marker in markers:
        marker.refused(reason)


def _number(raw: bytes | None) -> int:
    """A count of moves; UNSEEN: a stranger's."""
    try:
        return int(raw or 0)
    except ValueError:
        return UNSEEN


def _id(raw: bytes | None) -> EntryId | None:
    """A marker; None: there is none, or none of ours."""
    try:
        return None if raw is None else parse_id(raw.decode())
    except ValueError:
        return None


def _moved(owner: Owner, line: str) -> Marker:
    """A line of mark.lua's news. Raises ValueError: it is none."""
    room, id, session = line.split(" ")
    return Marker(owner, RoomName(room), parse_id(id), session)
