"""How far logs grew, for who only watches them: bells say it, and where one may be missing the log is asked. Reads no
entry.

A bell that says more than was known is believed. Whatever else happens is asked about: one that says less, one that
nobody can read, a doorbell connected anew. What was lost or made up without a trace the sweep finds.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable
from itertools import islice

from gateway.broker import refusals
from gateway.broker.doorbell import Doorbell
from gateway.broker.errors import BrokerGone, BrokerRefused
from gateway.broker.keys import Keys
from gateway.broker.lane import Lane
from gateway.broker.script import Script
from gateway.core.entry import START, EntryId, decode_bell, entry_id
from gateway.core.names import RoomName
from gateway.settings.model import Settings
from gateway.telemetry.metrics import Metrics

# Logs in one call of newest.lua: half a millisecond of the broker.
LOGS_PER_CALL = 256
# Asking that was refused goes on after so long: it must not become a hot loop.
REFUSED_PAUSE_S = 0.5
SLICES = 10


class Top:
    """The newest id of one log, for all this node knows."""

    __slots__ = ("id", "key", "late", "piece", "rang", "room", "watchers")

    def __init__(self, room: RoomName, key: bytes) -> None:
        self.room = room
        self.key = key
        # None: nobody knows yet. 0-0: there is no log.
        self.id: EntryId | None = None
        # Whether a bell moved it since the log was last asked: the answer may be older.
        self.rang = False
        # Whether somebody waited for its first id in vain.
        self.late = False
        # How many watch it; without any it stays a while.
        self.watchers = 0
        # What somebody made of this id to tell it to many; None: nobody did.
        self.piece: bytes | None = None


class Tops:
    """The logs that this node watches. It hears their bells, and has no group on them."""

    def __init__(
        self,
        keys: Keys,
        doorbell: Doorbell,
        lane: Lane,
        followed: Callable[[bytes], bool],
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        self.rooms: dict[RoomName, Top] = {}
        self.logs: dict[bytes, Top] = {}
        self._keys = keys
        self._doorbell = doorbell
        self._lane = lane
        # Whether the reader follows this log, and needs its bells too.
        self._followed = followed
        self._settings = settings
        self._metrics = metrics
        self._script = Script("newest", lane)
        # To be asked about, in the order of asking.
        self._doubted: dict[Top, None] = {}
        self._doubts = asyncio.Event()
        # Set when some were answered, and made anew.
        self._answered = asyncio.Event()
        self._moved: set[Top] = set()
        # Watched by nobody, and since when: who reloads a page comes back at once.
        self._idle: dict[Top, float] = {}

    # ---- for who watches ----

    def watch(self, rooms: Iterable[RoomName]) -> list[Top]:
        """Watch these, as many as may be (`watched_rooms_max`). The caller owes each of them a `release`."""
        tops, new = list[Top](), list[bytes]()
        for room in rooms:
            top = self.rooms.get(room)
            if top is None:
                if len(self.rooms) >= self._settings.watched_rooms_max and not self._forget_idle(1):
                    continue
                top = Top(room, self._keys.log(room))
                self.rooms[room] = self.logs[top.key] = top
                channel = self._keys.channel(top.key)
                if self._doorbell.hears(channel):  # it is open here
                    self._doubt(top)
                new.append(channel)
            self._idle.pop(top, None)
            top.watchers += 1
            tops.append(top)
        self._doorbell.listen(new)
        return tops

    def release(self, tops: Iterable[Top]) -> None:
        """One watcher less."""
        now = time.monotonic()
        for top in tops:
            top.watchers -= 1
            if not top.watchers:
                self._idle[top] = now

    async def known(self, tops: Collection[Top]) -> None:
        """Wait until the log of each was asked; one that takes longer than `broker_timeout_s` will count as moved."""
        try:
            async with asyncio.timeout(self._settings.broker_timeout_s):
                while any(top.id is None for top in tops):
                    await self._answered.wait()
        except TimeoutError:
            for top in tops:
                top.late |= top.id is None

    def moved(self) -> set[Top]:
        """Whose id changed since this was last called. The first id is no change."""
        moved, self._moved = self._moved, set()
        return moved

    # ---- what the doorbell says ----

    def ring(self, key: bytes, bell: bytes) -> None:
        """A log grew, or somebody says so."""
        top = self.logs.get(key)
        if top is None:
            return
        heard = decode_bell(bell)
        if heard is None:
            if bell and not self._followed(key):  # else the reader tells
                self._metrics.nonsense["bell"] += 1
                refusals.puzzle("bell", key, bell)
            self._doubt(top)
        elif top.id is None or heard.id > top.id:
            top.rang = True
            self._move(top, heard.id)
        elif heard.id < top.id:  # a log that begins anew, a server whose clock is behind, or a stranger
            self._doubt(top)

    def listens(self, key: bytes) -> None:
        """The log's doorbell is connected (again). What was appended until now may have gone unheard."""
        top = self.logs.get(key)
        if top is not None:
            self._doubt(top)

    # ---- asking the log ----

    async def run(self) -> None:
        """Ask about what is doubted, until cancelled: one call at a time."""
        while True:
            if not self._doubted:
                self._doubts.clear()
                await self._doubts.wait()
            await self._lane.up()
            tops = list(islice(self._doubted, LOGS_PER_CALL))
            for top in tops:
                del self._doubted[top]
                top.rang = False
            try:
                newest = await self._newest([top.key for top in tops])
            except BrokerGone:
                self._doubted.update(dict.fromkeys(tops))
            except BrokerRefused as exc:
                refusals.tell(str(exc))
                self._doubted.update(dict.fromkeys(tops))
                await asyncio.sleep(REFUSED_PAUSE_S)
            else:
                self._take(tops, newest)

    async def sweep(self) -> None:
        """Go round until cancelled: every sweep_s each log is asked, whether it rang or not."""
        while True:
            tops = list(self.logs.values())
            for slice_ in range(SLICES):
                await asyncio.sleep(self._settings.sweep_s / SLICES)
                self._forget_idle(len(self._idle), time.monotonic() - self._settings.linger_s)
                part = [top for top in tops[slice_::SLICES] if self.logs.get(top.key) is top]
                # Of a channel that was refused the doorbell knows no more.
                self._doorbell.listen([self._keys.channel(top.key) for top in part])
                for top in part:
                    self._doubt(top)

    async def _newest(self, logs: list[bytes]) -> list[bytes]:
        newest: list[bytes] = await self._script.ask_master(logs)
        self._metrics.tops_asked += len(logs)
        return newest

    def _take(self, tops: list[Top], newest: list[bytes]) -> None:
        for top, raw in zip(tops, newest, strict=True):
            id = entry_id(raw) if raw else START
            # An answer that is behind a bell was under way when it rang.
            if id != top.id and not (top.rang and top.id is not None and id < top.id):
                self._move(top, id)
        self._answered.set()
        self._answered = asyncio.Event()

    def _move(self, top: Top, id: EntryId) -> None:
        if top.id is not None or top.late:
            self._moved.add(top)
        top.id = id
        top.piece = None

    def _doubt(self, top: Top) -> None:
        self._doubted[top] = None
        self._doubts.set()

    def _forget_idle(self, count: int, before: float = float("inf")) -> int:
        """Watch no more what nobody watched since `before`: at most `count`, the longest first. How many."""
        gone = [top for top, since in islice(self._idle.items(), count) if since <= before]
        for top in gone:
            del self._idle[top], self.logs[top.key], self.rooms[top.room]
            self._doubted.pop(top, None)
            self._moved.discard(top)
        self._doorbell.unsubscribe(self._keys.channel(top.key) for top in gone if not self._followed(top.key))
        return len(gone)
