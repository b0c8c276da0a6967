"""Who is in rooms, on the broker: claimed there for this node's users, and followed where somebody here asks.

A node's claim on a room counts for so long from each call of members.lua on, and its calls are its heartbeats: what a
node says ends with it. Whoever came or went by a call is an entry of a log beside the set; a bell says that there is
one. A log that does not continue where it was read is left for the set itself. Costs nothing for rooms in which nobody
asks.
"""

import asyncio
from collections.abc import Callable
from itertools import count, islice
from typing import Any

from gateway.broker import refusals
from gateway.broker.connection import Arg
from gateway.broker.doorbell import Doorbell
from gateway.broker.errors import BrokerGone, BrokerRefused
from gateway.broker.keys import Keys
from gateway.broker.lane import Lane
from gateway.broker.roll import BadRoll, Roll
from gateway.broker.script import Script
from gateway.core.entry import entry_id
from gateway.core.names import RoomName
from gateway.settings.model import Settings
from gateway.telemetry.clock import Clock
from gateway.telemetry.metrics import Metrics

# Seconds for which news gather before they are written, or read.
GATHER_S = 0.05
# Rooms in one round trip, half a millisecond of the broker; and what is said of one of them.
ROLLS_PER_CALL = 64
USERS_PER_CALL = 256
# Entries of a room's log in one read: as many as it keeps.
LOG_ENTRIES = 64
# Heartbeats in presence_grace_s, of which a node may miss nearly all; and calls in it to those who open a room, that
# somebody asks there who is in it.
BEATS = 10
CALLS = 5
# How a node calls out on a room's doorbell that somebody asks; the room's name follows.
ASKS = b"who "


class Members:
    """The node's one road to them. A roll is of who `open`s it, until it is released."""

    def __init__(
        self, node: str, keys: Keys, doorbell: Doorbell, lane: Lane, clock: Clock, settings: Settings, metrics: Metrics
    ) -> None:
        self._node = node
        self._keys = keys
        self._doorbell = doorbell
        self._lane = lane
        self._clock = clock
        self._settings = settings
        self._metrics = metrics
        metrics.known("nonsense", ("presence",))
        self._script = Script("members", lane)
        self._beat_s = settings.presence_grace_s / BEATS
        # Seconds between two calls, of all nodes together.
        self.called_s = settings.presence_grace_s / CALLS
        # A node's own last beat may be so old when it dies: nobody is taken for gone too early.
        self._lasts_s = settings.presence_grace_s + self._beat_s
        self.rolls: dict[RoomName, Roll] = {}
        self._opened = count(1)
        # Those that are followed, by their log.
        self._followed: dict[bytes, Roll] = {}
        # To be told to the broker, and to be read.
        self._unsaid: dict[Roll, None] = {}
        self._unread: dict[Roll, None] = {}
        self._says, self._reads = asyncio.Event(), asyncio.Event()
        # What is known of who is where.
        self.bytes = 0
        # Told that somebody, anywhere, asks who is in a room; and that it may be others than before.
        self.on_asked: Callable[[RoomName], None] = lambda room: None
        self.on_changed: Callable[[Roll], None] = lambda roll: None

    # ---- for who claims, and who asks ----

    def open(self, room: RoomName) -> Roll:
        """Say from now on who is in a room. The caller owes it a `release`."""
        claim = f"{self._node}-{next(self._opened)}"
        roll = self.rolls[room] = Roll(room, claim, self._keys.members(room))
        self.say(roll)
        return roll

    def release(self, roll: Roll) -> None:
        """Say it no more: what was said ends by itself."""
        self.ignore(roll)
        self._unsaid.pop(roll, None)
        del self.rolls[roll.room]

    def say(self, roll: Roll) -> None:
        """Tell the broker soon what changed."""
        if self.rolls.get(roll.room) is roll:
            self._unsaid[roll] = None
            self._says.set()

    def follow(self, roll: Roll) -> None:
        """Hear from now on who comes and goes. Idempotent. The caller owes it an `ignore`, or the roll a release."""
        if not self._follows(roll):
            self._followed[roll.keys[2]] = roll
            self._doorbell.listen([self._channel(roll)])
            self.say(roll)  # by which others hear that somebody asks

    def ignore(self, roll: Roll) -> None:
        """Hear it no more. Idempotent."""
        if self._followed.pop(roll.keys[2], None) is not None:
            self._unread.pop(roll, None)
            self._doorbell.unsubscribe([self._channel(roll)])
            self.bytes -= roll.bytes
            roll.forget()

    # ---- what the doorbell says ----

    def called(self, bell: bytes) -> None:
        """A node calls out that somebody asks who is in a room, or somebody says so."""
        self.on_asked(RoomName(bell[len(ASKS) :].decode(errors="replace")))

    def ring(self, key: bytes, bell: bytes) -> None:
        """Somebody came or went, or somebody says so."""
        roll = self._followed.get(key)
        if roll is None:
            return
        try:
            stamp = entry_id(bell)
        except ValueError:
            self._puzzle(roll, bell)
            return
        if not roll.counts and roll.hear(stamp):  # else the next beat says how many
            self._read_soon(roll)

    def listens(self, key: bytes) -> None:
        """The log's doorbell is connected (again). Who came or went until now may have gone unheard."""
        roll = self._followed.get(key)
        if roll is not None and not roll.counts:
            self._read_soon(roll)

    # ---- saying ----

    async def beat(self) -> None:
        """Renew all claims, until cancelled."""
        while True:
            await asyncio.sleep(self._beat_s)
            for roll in self.rolls.values():
                if roll.let_go(self._clock.now()):
                    self.on_changed(roll)
                self.say(roll)

    async def run(self) -> None:
        """Say what is to be said, until cancelled: one round trip at a time."""
        while True:
            if not self._unsaid:
                self._says.clear()
                await self._says.wait()
            if len(self._unsaid) < ROLLS_PER_CALL:
                await asyncio.sleep(GATHER_S)
            await self._lane.up()
            await asyncio.gather(*map(self._say, _taken(self._unsaid)))

    async def _say(self, roll: Roll) -> None:
        users = roll.take_unsaid(USERS_PER_CALL)
        try:
            stamp, members, unknown = await self._script.ask(roll.keys, *self._arguments(roll, users))
        except BrokerGone:
            roll.put_back(users)
            self.say(roll)
        except BrokerRefused as exc:  # the next beat tries again
            refusals.tell(str(exc))
            roll.put_back(users)
            self._know(roll)
        else:
            if unknown:
                roll.begin_anew()
            else:
                roll.new = False
                self._metrics.members_said += len(users)
            if roll.new or roll.unsaid:
                self.say(roll)
            if not unknown and self._follows(roll):
                self._heard(roll, stamp, members)

    def _arguments(self, roll: Roll, users: "dict[str, bytes | None]") -> list[Arg]:
        asks = self._follows(roll)
        arguments: list[Arg] = [
            roll.claim, "1" if roll.new else "", self._lane.run_id, int(self._lasts_s * 1000), self._channel(roll),
            self._keys.channel(self._keys.log(roll.room)) if asks else "",
            ASKS + roll.room.encode(), int(self.called_s * 1000),
        ]  # fmt: skip
        for user, member in users.items():
            arguments += (user, member or "")
        return arguments

    def _heard(self, roll: Roll, stamp: bytes, members: int) -> None:
        """How the broker has it as it answers."""
        if self._too_many(roll, members):
            self._learn(roll, lambda: roll.take_count(entry_id(stamp), members, self._hold_until()))
        elif roll.hear(entry_id(stamp)) or roll.lost:
            self._read_soon(roll)

    def _too_many(self, roll: Roll, members: int) -> bool:
        settings = self._settings
        need_bytes = max(roll.bytes, members * roll.member_bytes)
        return (
            members > settings.presence_members_max
            or self.bytes - roll.bytes + need_bytes > settings.presence_bytes_max
        )

    # ---- reading ----

    async def read(self) -> None:
        """Read what is to be read, until cancelled: one round trip at a time."""
        while True:
            if not self._unread:
                self._reads.clear()
                await self._reads.wait()
            if len(self._unread) < ROLLS_PER_CALL:
                await asyncio.sleep(GATHER_S)
            await self._lane.up()
            rolls = _taken(self._unread)
            try:
                replies = await self._lane.ask_master_all([self._question(roll) for roll in rolls])
            except BrokerGone:
                self._unread |= dict.fromkeys(rolls)
                continue
            for roll, reply in zip(rolls, replies, strict=True):
                self._take(roll, reply)

    def _question(self, roll: Roll) -> tuple[Arg, ...]:
        if roll.lost:
            return "HGETALL", roll.keys[0]
        return "XRANGE", roll.keys[2], f"({roll.stamp}", "+", "COUNT", LOG_ENTRIES

    def _take(self, roll: Roll, reply: Any) -> None:
        if not self._follows(roll):
            return
        if isinstance(reply, BrokerRefused):
            refusals.tell(str(reply))
            self._know(roll)
            return
        try:
            if isinstance(reply, dict):
                self._metrics.rolls_read += 1
                self._learn(roll, lambda: roll.load(reply, self._hold_until()))
            elif not roll.lost:
                self._learn(roll, lambda: roll.read(reply))
                roll.lost |= roll.behind and len(reply) < LOG_ENTRIES
        except BadRoll as exc:  # the next beat tries again
            self._puzzle(roll, exc.args[0].encode())
            roll.lost = True
            self._know(roll)
            return
        if self._too_many(roll, roll.count):
            self._learn(roll, lambda: roll.take_count(roll.stamp, roll.count, self._hold_until()))
        elif roll.lost or roll.behind:
            self._read_soon(roll)

    def _learn(self, roll: Roll, take: Callable[[], None]) -> None:
        self.bytes -= roll.bytes
        try:
            take()
        finally:
            self.bytes += roll.bytes
        self.on_changed(roll)

    def _know(self, roll: Roll) -> None:
        """The broker says nothing: what this node knows is all there is."""
        if not roll.known:
            roll.known = True
            self.on_changed(roll)

    def _read_soon(self, roll: Roll) -> None:
        self._unread[roll] = None
        self._reads.set()

    def _follows(self, roll: Roll) -> bool:
        return self._followed.get(roll.keys[2]) is roll

    def _hold_until(self) -> float:
        return self._clock.now() + self._settings.presence_grace_s

    def _channel(self, roll: Roll) -> bytes:
        return self._keys.channel(roll.keys[2])

    def _puzzle(self, roll: Roll, found: bytes) -> None:
        self._metrics.nonsense["presence"] += 1
        refusals.puzzle("presence", roll.keys[2], found)


def _taken(rolls: dict[Roll, None]) -> list[Roll]:
    """The first of these, which are not among them any more."""
    taken = list(islice(rolls, ROLLS_PER_CALL))
    for roll in taken:
        del rolls[roll]
    return taken
