"""Which rooms there are: an index in each partition, which the calls keep that renew a log's expiry (publish.lua, the
sweep). So it costs a message nothing, and a room leaves it when its log is gone.

Reading it is bounded by the page that is asked for, and never looks at the server's keys. It is a snapshot: a room that
is renewed while somebody pages may come twice, and none that was there all the time is left out.
"""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from gateway.broker.connection import Arg
from gateway.broker.errors import BrokerGone, BrokerRefused
from gateway.broker.keys import PARTITIONS, Keys
from gateway.broker.lane import Lane
from gateway.core.entry import Entry, decode, entry_id
from gateway.core.names import RoomName
from gateway.settings.model import Settings

# Partitions asked in one round trip.
AT_ONCE = 32
# Rooms of one partition that were renewed in one ms: as many as one call of publish.lua may name.
TIES_MAX = 1_024


class Place(NamedTuple):
    """Where a page ended: the next one begins behind it."""

    partition: int
    # When the room was renewed, Unix ms.
    renewed: int
    room: str


START = Place(0, 0, "")


class Log(NamedTuple):
    """How a room's log is at present."""

    room: str
    entries: int
    first_id: str
    last_id: str
    # When the last one was appended, Unix ms.
    last_at: int


class Rooms:
    """Wait for the broker as long as it takes: the caller brings a deadline. Raise BrokerRefused."""

    def __init__(self, keys: Keys, lane: Lane, settings: Settings) -> None:
        self._keys = keys
        self._lane = lane
        self._idle_ms = settings.room_idle_s * 1000

    async def page(self, after: Place, count: int) -> tuple[list[Log], Place | None]:
        """At most `count` rooms behind a place, and where to go on; None: these were the last."""
        places = await self._places(after, count + 1)
        goes_on = places[count - 1] if len(places) > count else None
        found = await self.logs([place.room for place in places[:count]])
        return [log for log in found if log is not None], goes_on

    async def logs(self, rooms: Sequence[str]) -> list[Log | None]:
        """None: there is no log, or nothing in it."""
        keys = [self._keys.log(RoomName(room)) for room in rooms]
        commands: list[tuple[Arg, ...]] = []
        for key in keys:
            commands += (("XLEN", key), ("XRANGE", key, "-", "+", "COUNT", 1), ("XREVRANGE", key, "+", "-", "COUNT", 1))
        replies = await self._ask(commands)
        parts = (replies[at : at + 3] for at in range(0, len(replies), 3))
        return [_log(room, *part) for room, part in zip(rooms, parts, strict=True)]

    async def forget(self, room: RoomName) -> None:
        """It is no more: its log was deleted."""
        place = self._keys.index_of(self._keys.log(room))
        assert place is not None
        await self._ask([("ZREM", *place)])

    async def _places(self, after: Place, count: int) -> list[Place]:
        """Without those that have expired since."""
        oldest = time.time() * 1000 - self._idle_ms
        found = await self._within((after.partition,), [self._ties(after)], after)
        found += await self._within(
            (after.partition,), [self._from(after.partition, f"({after.renewed}", count)], after
        )
        begin = after.partition + 1
        while begin < PARTITIONS and len(found) < count:
            partitions = range(begin, min(begin + AT_ONCE, PARTITIONS))
            wanted = count - len(found)
            found += await self._within(partitions, [self._from(at, "-inf", wanted) for at in partitions], after)
            begin = partitions.stop
        return [place for place in found if place.renewed >= oldest][:count]

    def _ties(self, place: Place) -> tuple[Arg, ...]:
        """Those of the same ms: one call makes at most TIES_MAX."""
        key = self._keys.rooms(place.partition)
        return ("ZRANGE", key, place.renewed, place.renewed, "BYSCORE", "LIMIT", 0, TIES_MAX, "WITHSCORES")

    def _from(self, partition: int, score: str, count: int) -> tuple[Arg, ...]:
        return ("ZRANGE", self._keys.rooms(partition), score, "+inf", "BYSCORE", "LIMIT", 0, count, "WITHSCORES")

    async def _within(
        self, partitions: Sequence[int], commands: Sequence[tuple[Arg, ...]], after: Place
    ) -> list[Place]:
        replies = await self._ask(commands)
        places = [
            Place(at, int(score), room.decode(errors="replace"))
            for at, reply in zip(partitions, replies, strict=True)
            for room, score in reply
        ]
        return [place for place in places if place > after]

    async def _ask(self, commands: Sequence[tuple[Arg, ...]]) -> list[Any]:
        while True:
            await self._lane.up()
            try:
                replies = await self._lane.ask_master_all(commands)
            except BrokerGone:
                continue
            for reply in replies:
                if isinstance(reply, BrokerRefused):
                    raise reply
            return replies


def _log(room: str, entries: int, first: list[Any], last: list[Any]) -> Log | None:
    if not entries:
        return None
    first_id, last_id = entry_id(first[0][0]), entry_id(last[0][0])
    newest = decode(*last[0])
    at = newest.at if isinstance(newest, Entry) else last_id.ms
    return Log(room, entries, str(first_id), str(last_id), at)
