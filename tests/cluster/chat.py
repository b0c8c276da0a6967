"""Members of a room who remember all they were told, talkers who never stop, and the account that must balance.

An account holds what a member was told against every entry that ever was in the log: nothing missing, nothing twice,
nothing out of order, and a gap told exactly where entries are missing, with their number.
"""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, NamedTuple

import aiohttp
from redis.asyncio import Redis

from gateway.broker.keys import Keys
from gateway.core.names import room_name
from tests.support.node import Node
from tests.support.until import until

GAP_CLOSE = 4009


class Id(NamedTuple):
    """An entry's id, ordered as the log is."""

    ms: int
    n: int

    @classmethod
    def of(cls, text: str) -> "Id":
        ms, _, n = text.partition("-")
        return cls(int(ms), int(n))

    def __str__(self) -> str:
        return f"{self.ms}-{self.n}"


class Heard(NamedTuple):
    """A message that a member was told."""

    id: Id
    message: Any


class Told(NamedTuple):
    """A gap that a member was told; `lost` is None where the node could not know."""

    after: Id
    before: Id
    lost: int | None


class Member:
    """A client that stays, by whatever node, from the entry behind `start`. Make it with `Chat.join`."""

    def __init__(self, http: aiohttp.ClientSession, room: str, wire: str) -> None:
        self.room = room
        self.wire = wire
        self.start = Id(0, 0)
        # In order; of a plain member the messages only.
        self.heard: list[Heard | Told] = []
        self.plain: list[Any] = []
        # When each message was said, Unix ms.
        self.ats: list[int] = []
        # ref -> id, ref -> error code, and ref -> its text.
        self.acks: dict[str, Id] = {}
        self.errors: dict[str, str] = {}
        self.texts: dict[str, str] = {}
        self.welcomes: list[dict[str, Any]] = []
        # Of the last connection's end; 1006: cut.
        self.close_code: int | None = None
        self._http = http
        self._ws: aiohttp.ClientWebSocketResponse | None = None
        self._listening: asyncio.Task[None] | None = None

    @property
    def last(self) -> Id:
        """Where a resume begins."""
        for item in reversed(self.heard):
            return item.id if isinstance(item, Heard) else Id(item.before.ms, item.before.n - 1)
        return self.start

    @property
    def messages(self) -> list[Any]:
        return [item.message for item in self.heard if isinstance(item, Heard)] + self.plain

    @property
    def gaps(self) -> list[Told]:
        return [item for item in self.heard if isinstance(item, Told)]

    @property
    def connected(self) -> bool:
        return self._listening is not None and not self._listening.done()

    async def connect(self, node: Node, **query: object) -> None:
        """The 101 and, on v1, the welcome came."""
        protocols = ("hiroba.v1",) if self.wire == "v1" else ()
        self.close_code = None
        self._ws = await self._http.ws_connect(node.ws_url(self.room, **query), protocols=protocols)
        if self.wire == "v1":
            self.welcomes.append(await self._ws.receive_json())
            assert self.welcomes[-1]["type"] == "welcome"
        self._listening = asyncio.create_task(self._listen(self._ws))

    async def resume(self, node: Node) -> None:
        """Come back with the last id, as a v1 client does."""
        await self.connect(node, after=self.last)

    async def leave(self) -> None:
        """Goes in order and hears no more."""
        if self._ws is not None:
            await self._ws.close()
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)

    async def say(self, message: str, ref: str | None = None) -> None:
        """On v1 the text is its own ref, if there is no other."""
        said = {"message": message}
        if self.wire == "v1":
            said |= {"type": "message", "ref": ref or message}
        assert self._ws is not None
        await self._ws.send_str(json.dumps(said))

    def answered(self, ref: str) -> bool:
        return ref in self.acks or ref in self.errors

    async def acked(self, ref: str) -> Id:
        """Waits for the id."""
        await until(lambda: self.answered(ref), f"{ref} is answered")
        assert ref in self.acks, f"{ref}: {self.errors[ref]}"
        return self.acks[ref]

    async def closed(self) -> int | None:
        """Waits for the end of the connection; its code."""
        await until(lambda: not self.connected, f"the {self.wire} member is closed")
        return self.close_code

    async def hears(self, *messages: str) -> None:
        """Waits until the last of these came."""
        await until(lambda: messages[-1] in self.messages[-len(messages) :], f"the {self.wire} member hears {messages}")
        assert tuple(self.messages[-len(messages) :]) == messages

    async def _listen(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        while (message := await ws.receive()).type is aiohttp.WSMsgType.TEXT:
            self._hear(json.loads(message.data))
        self.close_code = ws.close_code

    def _hear(self, frame: dict[str, Any]) -> None:
        if self.wire == "plain":
            assert list(frame) == ["message"], "a plain session is told nothing but messages"
            self.plain.append(frame["message"])
        elif frame["type"] == "message":
            self.heard.append(Heard(Id.of(frame["id"]), frame["message"]))
            self.ats.append(frame["at"])
        elif frame["type"] == "gap":
            self.heard.append(Told(Id.of(frame["after"]), Id.of(frame["before"]), frame["lost"]))
        elif frame["type"] == "ack":
            assert frame["ref"] not in self.acks, "acknowledged twice"
            self.acks[frame["ref"]] = Id.of(frame["id"])
        elif frame["type"] == "error":
            self.errors[frame["ref"]] = frame["code"]
            self.texts[frame["ref"]] = frame["text"]


async def say(member: Member, *messages: str) -> list[Heard]:
    """Says them one after the other; what the log has of them now."""
    entries = []
    for message in messages:
        await member.say(message)
        entries.append(Heard(await member.acked(message), message))
    return entries


class Talker:
    """Says `<name>-1`, `<name>-2`, … through one member, one at a time: the next when the last is answered."""

    def __init__(self, member: Member, name: str, pause_s: float) -> None:
        self.member = member
        self.name = name
        self.said: list[str] = []
        self._pause_s = pause_s
        self._enough = asyncio.Event()
        self._talking = asyncio.create_task(self._talk())

    @property
    def acked(self) -> int:
        return sum(ref in self.member.acks for ref in self.said)

    async def _talk(self) -> None:
        while not self._enough.is_set() and self.member.connected:
            self.said.append(f"{self.name}-{len(self.said) + 1}")
            with contextlib.suppress(ConnectionError):  # its node was killed
                await self.member.say(self.said[-1])
            while self.member.connected and not self.member.answered(self.said[-1]):  # noqa: ASYNC110
                await asyncio.sleep(self._pause_s)

    async def more(self, count: int) -> None:
        """Waits for so many more acknowledgements."""
        wanted = self.acked + count
        await until(lambda: self.acked >= wanted, f"{self.name} has {count} more acknowledged", within_s=30)

    async def stop(self, within_s: float = 20.0) -> None:
        """Says no more; waits for the last answer."""
        self._enough.set()
        async with asyncio.timeout(within_s):
            await self._talking

    async def cancel(self) -> None:
        self._talking.cancel()
        await asyncio.gather(self._talking, return_exceptions=True)


class Chat:
    """Everybody in a test, and the broker seen directly."""

    def __init__(self, http: aiohttp.ClientSession, broker: Redis) -> None:
        self.broker = broker
        self._http = http
        self._members: list[Member] = []
        self._talkers: list[Talker] = []

    async def join(self, node: Node, room: str, wire: str = "v1", **query: object) -> Member:
        member = Member(self._http, room, wire)
        await member.connect(node, **query)
        if wire == "v1" and "after" not in query:
            member.start = Id.of(member.welcomes[0]["last_id"])
        self._members.append(member)
        return member

    def talk(self, member: Member, name: str, pause_s: float = 0.004) -> Talker:
        talker = Talker(member, name, pause_s)
        self._talkers.append(talker)
        return talker

    async def quiet(self) -> None:
        """Nobody talks any more, and all that was said is answered."""
        for talker in self._talkers:
            await talker.stop()

    async def close(self) -> None:
        for talker in self._talkers:
            await talker.cancel()
        for member in self._members:
            await member.leave()

    async def log(self, room: str) -> list[Heard]:
        """The room's log as the broker has it."""
        entries = []
        for id, fields in await self.broker.xrange(key(room)):
            known = fields.get(b"v") == b"1"
            entries.append(Heard(Id.of(id.decode()), json.loads(fields[b"m"]) if known else None))
        return entries

    async def groups(self, room: str) -> set[bytes]:
        """Names of the consumer groups on the room's log."""
        if not await self.broker.exists(key(room)):
            return set()
        return {group["name"] for group in await self.broker.xinfo_groups(key(room))}

    async def answers_agree(self, room: str, *lost_logs: Iterable[Heard]) -> None:
        """The log holds what was acknowledged, at its id, and nothing twice; nothing of what was refused."""
        log = [entry for lost in lost_logs for entry in lost] + await self.log(room)
        places = {entry.id: entry.message for entry in log}
        times = Counter(entry.message for entry in log)
        for member in self._members:
            if member.room != room:
                continue
            for ref, id in member.acks.items():
                assert places.get(id) == ref, f"{ref} was acknowledged as {id}, where the log has {places.get(id)!r}"
                assert times[ref] == 1, f"{ref} is in the log {times[ref]} times"
            for ref, code in member.errors.items():
                assert times[ref] <= (code == "unknown"), f"{ref} was told {code} and is in the log {times[ref]} times"


@contextlib.asynccontextmanager
async def chat_on(broker: Redis) -> AsyncIterator[Chat]:
    """Everybody leaves at the end."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        chat = Chat(http, broker)
        try:
            yield chat
        finally:
            await chat.close()


def key(room: str) -> bytes:
    return Keys("hiroba", 0).log(room_name(room))


def check_account(member: Member, ever: Sequence[Heard]) -> None:
    """`ever`: all entries that were in the log since the member's start, in order. Raises AssertionError.

    A message of None was never readable: it must be told as a gap.
    """
    place = {entry.id: at for at, entry in enumerate(ever)}
    at, gaps = 0, list[Told]()
    for item in member.heard:
        if isinstance(item, Told):
            gaps.append(item)
            continue
        assert item.id in place, f"{item} was never in the log"
        assert place[item.id] >= at, f"{item} came twice or late, after {ever[at - 1]}"
        assert item.message == ever[place[item.id]].message
        _check_gaps(gaps, ever[at : place[item.id]], item)
        at, gaps = place[item.id] + 1, []
    _check_gaps(gaps, ever[at:], None)


def _check_gaps(gaps: list[Told], missing: Sequence[Heard], following: Heard | None) -> None:
    if not missing:
        assert not gaps, f"{gaps} told before {following}, but nothing is missing there"
        return
    assert gaps, f"{len(missing)} entries from {missing[0]} are missing before {following}, and no gap is told"
    if all(gap.lost is not None for gap in gaps):
        assert sum(gap.lost or 0 for gap in gaps) == len(missing), f"{gaps} told for {len(missing)} missing entries"


async def balanced(member: Member, ever: Sequence[Heard]) -> None:
    """Waits until the member has been told of the newest entry, then checks its account."""
    if ever:
        await until(lambda: member.last >= ever[-1].id, f"a member of {member.room} reaches {ever[-1].id}")
    check_account(member, [entry for entry in ever if entry.id > member.start])
