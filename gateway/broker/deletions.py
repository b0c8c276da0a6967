"""How messages are deleted: first in their log, where a tombstone takes the place of each, then said in the control
log, so that who hears of it finds it there. Used by nodes, and by commands that have no node.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from math import ceil
from typing import Any, NamedTuple

import msgspec

from gateway.broker.connection import Arg
from gateway.broker.errors import BrokerGone
from gateway.broker.keys import Keys
from gateway.broker.lane import Lane
from gateway.broker.publish import Refusal
from gateway.broker.script import Script
from gateway.core.deletions import BadDeletion, Deletion, News, decode, encode, is_deletion
from gateway.core.entry import Entry, EntryId, entry_id
from gateway.core.entry import decode as decode_entry
from gateway.core.names import RoomName
from gateway.settings.model import Settings

# Messages in one call, for each writes the log anew; and in one word about them.
IDS_PER_CALL = 4_096
IDS_PER_WORD = 256
# Entries that are looked at in one call for who said them: half a millisecond of the broker.
LOOKED_AT_PER_CALL = 1_000
# Of each log, where it is asked for its tombstones: the newest; and logs in one call.
TOMBSTONES_LOOKED_AT = "1000"
LOGS_PER_CALL = 16
# Entries of the control log that a node looks through when it starts.
RECENT_MAX = 1_000


class Deleted(NamedTuple):
    """What became of a wish. Where it is `unsaid` the log has it, and nodes have not heard it: say it again."""

    # Messages that became tombstones now.
    entries: int
    # Of those asked for by their ids: which the log has not got, or no more.
    missing: list[EntryId]
    unsaid: Refusal | None


class Deletions:
    """For any room. Errors: BrokerRefused. Over a lost connection a call is made again: bring a deadline."""

    def __init__(
        self,
        by: str,
        keys: Keys,
        lane: Lane,
        say: Callable[[bytes], Awaitable[Refusal | None]],
        settings: Settings,
    ) -> None:
        """`by`: who says it, in the log. `lane`: a master answers it. `say`: in the control log."""
        self._by = by
        self._keys = keys
        self._lane = lane
        self._say = say
        self._idle_s = ceil(settings.room_idle_s)
        self._delete = Script("delete", lane)
        self._tombstones = Script("tombstones", lane)
        self._said_by = Script("said_by", lane)

    @property
    def server(self) -> bytes:
        """Which one answers, in which history."""
        return self._lane.run_id + self._lane.server

    async def delete(self, room: RoomName, ids: Sequence[EntryId], by: str = "") -> Deleted:
        """These messages. What was deleted before is said again."""
        count, missing, unsaid = 0, list[EntryId](), None
        for at in range(0, len(ids), IDS_PER_CALL):
            part = ids[at : at + IDS_PER_CALL]
            _, now, at_ms, *states = await self._ask(room, "", part)
            count += now
            missing += [id for id, state in zip(part, states, strict=True) if state == b""]
            gone = tuple(str(id) for id, state in zip(part, states, strict=True) if state != b"")
            for first in range(0, len(gone), IDS_PER_WORD):
                word = Deletion(room, gone[first : first + IDS_PER_WORD], given=at_ms, by=by or self._by)
                unsaid = await self._say(encode(word)) or unsaid
        return Deleted(count, missing, unsaid)

    async def empty(self, room: RoomName, by: str = "") -> Deleted:
        """All that the room has."""
        newest, count, at_ms = await self._ask(room, "+")
        if not newest:
            return Deleted(0, [], None)
        word = Deletion(room, up_to=newest.decode(), given=at_ms, by=by or self._by)
        return Deleted(count, [], await self._say(encode(word)))

    async def remove(self, room: RoomName, by: str = "") -> Deleted:
        """The room itself, with all that it has: its counts begin anew when somebody speaks there."""
        log, newest, count = self._keys.log(room), "", 0
        while True:
            await self._lane.up()
            try:
                held = await self._lane.ask_master("XREVRANGE", log, "+", "-", "COUNT", 1)
                if held:  # else the connection broke behind the deletion, or there is nothing
                    newest, count = held[0][0].decode(), await self._lane.ask("XLEN", log)
                    await self._lane.ask("DEL", log)
                    await self._lane.ask("DEL", self._keys.sequence(room))
                break
            except BrokerGone:
                continue
        if not newest:
            return Deleted(0, [], None)
        seconds, micros = await self._lane.ask("TIME")
        at_ms = int(seconds) * 1000 + int(micros) // 1000
        word = Deletion(room, up_to=newest, gone=True, given=at_ms, by=by or self._by)
        return Deleted(count, [], await self._say(encode(word)))

    async def erase(self, room: RoomName, user: str, by: str = "") -> Deleted:
        """All that this user, by his id, said in the room, page by page: others get their turns in between."""
        count, unsaid = 0, None
        async for ids in self._pages(room, user):
            deleted = await self.delete(room, ids, by)
            count, unsaid = count + deleted.entries, deleted.unsaid or unsaid
        return Deleted(count, [], unsaid)

    async def again(self, news: News) -> int:
        """This was deleted, and a server may stand in that had not heard of it: there it is deleted again, and said to
        who may not have heard it. How many came back."""
        up_to = str(news.up_to) if news.up_to.ms else ""
        ids = [id for id in news.ids if id > news.up_to]
        _, count, at_ms, *_ = await self._ask(RoomName(news.room), up_to, ids)
        if count:
            await self._say(encode(Deletion(news.room, tuple(map(str, ids)), up_to, at_ms)))
        return int(count)

    async def recent(self, since_ms: float) -> list[News]:
        """What the control log has, of those since then the first. Raises BrokerGone too."""
        since = f"{max(0, int(since_ms))}"
        raw = await self._lane.ask_master("XRANGE", self._keys.orders, since, "+", "COUNT", RECENT_MAX)
        news = list[News]()
        for entry in (decode_entry(id, fields) for id, fields in raw):
            if isinstance(entry, Entry) and is_deletion(entry.message):
                with suppress(BadDeletion):  # whoever follows the log tells
                    news.append(decode(entry.message))
        return news

    async def tombstones(self, rooms: Sequence[RoomName]) -> list[list[EntryId]]:
        """Of each of these, at most LOGS_PER_CALL, what is deleted in it. Raises BrokerGone too."""
        keys = [self._keys.log(room) for room in rooms]
        found = await self._tombstones.ask_master(keys, TOMBSTONES_LOOKED_AT)
        return [list(map(entry_id, ids)) for ids in found]

    async def _pages(self, room: RoomName, user: str) -> AsyncIterator[list[EntryId]]:
        head = b'{"id":%b,' % msgspec.json.encode(user)
        low, page = b"-", list[EntryId]()
        while low:
            low, *ids = await self._insist(self._said_by, room, low, LOOKED_AT_PER_CALL, head)
            page += map(entry_id, ids)
            if page and (len(page) + LOOKED_AT_PER_CALL > IDS_PER_CALL or not low):
                yield page
                page = []

    async def _ask(self, room: RoomName, up_to: str, ids: Sequence[EntryId] = ()) -> list[Any]:
        return await self._insist(self._delete, room, self._idle_s, up_to, *map(str, ids))

    async def _insist(self, script: Script, room: RoomName, *arguments: Arg) -> list[Any]:
        while True:
            await self._lane.up()
            try:
                reply: list[Any] = await script.ask((self._keys.log(room),), *arguments)
                return reply
            except BrokerGone:  # whether it was done or not: done twice, it is the same
                continue
