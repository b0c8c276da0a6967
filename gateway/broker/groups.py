"""This node's consumer group on each log: made, proved, put back, swept. All commands travel on the reader's lane."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

import broker_config
from gateway.broker import keys, refusals
from gateway.broker.errors import BrokerGone, BrokerRefused, Fault, fault_of
from gateway.broker.feed import Feed
from gateway.broker.keys import Keys
from gateway.broker.lane import Lane
from gateway.core.entry import START, EntryId, entry_id, epoch_in
from gateway.core.history import NOWHERE, Event, Place, Question, may_be_one
from gateway.telemetry.metrics import Metrics

log = structlog.get_logger()

# What is asked of some logs, in one call.
Asked = Mapping[Feed, Sequence[Question]]


class Groups:
    """The server-side cursors of one node."""

    def __init__(self, node: str, names: Keys, lane: Lane, metrics: Metrics) -> None:
        self._group = keys.group(node)
        self._nodes = names.nodes
        self._lane = lane
        self._metrics = metrics
        self._grouping = broker_config.script("group")
        self._script = broker_config.script("places")
        self._sha = hashlib.sha1(self._script.encode(), usedforsecurity=False).hexdigest()
        # Logs whose group was removed while the lane was down, or just before: the broker may not have heard of it.
        self._owed: set[bytes] = set()

    @property
    def name(self) -> bytes:
        return self._group

    async def prove(self, feeds: Sequence[Feed]) -> None:
        """Put the group of each feed at its cursor, where the log exists, and the cursor back into the log.

        Afterwards `feed.grouped` says whether the log can be read. A log that has not got the cursor's own entry is
        another than the one that was read (failover, flush): it is then read on from the newest entry that both have.
        """
        put = [(feed, *self._put(feed)) for feed in feeds]
        announced = {feed: feed.bells.announced() for feed in feeds}
        asked = {feed: _look(feed, announced[feed]) for feed in feeds if feed.cursor != START or announced[feed]}
        looked = self._ask(asked) if asked else None
        errors = {feed: (await settled(made), await settled(moved)) for feed, made, moved in put}
        errors |= await self._make_though_full([feed for feed in feeds if _for_want_of_memory(*errors[feed])])
        server, places = await self._places(asked, looked)
        parted: list[Feed] = []
        for feed in feeds:
            made_error, moved_error = errors[feed]
            if isinstance(moved_error, BrokerRefused):
                self._judge(feed, made_error)
                continue
            if not isinstance(made_error, BrokerRefused):
                self._metrics.groups_made += 1
            own, *found = places.get(feed, [[]])
            there = dict(zip(announced[feed], map(bool, found), strict=True))
            if feed.cursor == START or any(may_be_one(place.epoch, feed.epoch) for place in own):
                feed.found(there)
            else:
                await self._part(feed, there, server)
                parted.append(feed)
            if feed.puzzled:
                await self._disbelieve(feed, there, server)
        if parted:
            self._metrics.logs_rewound += len(parted)
            log.warning("logs parted from what was read of them", logs=len(parted), one=parted[0].key.decode())

    def _put(self, feed: Feed) -> tuple["asyncio.Future[Any]", "asyncio.Future[Any]"]:
        # Never MKSTREAM: a joined name in which nobody spoke must leave nothing behind.
        at = str(feed.cursor)
        feed.maybe_group = True
        made = self._lane.ask("XGROUP", "CREATE", feed.key, self._group, at)
        return made, self._lane.ask("XGROUP", "SETID", feed.key, self._group, at)

    async def _make_though_full(self, feeds: Sequence[Feed]) -> dict[Feed, tuple[Any, Any]]:
        """A full server refuses XGROUP CREATE. A group is a few hundred bytes, and without it nobody hears the room."""
        if not feeds:
            return {}
        sha = await self._lane.ask("SCRIPT", "LOAD", self._grouping)
        asked = [self._lane.ask("EVALSHA", sha, 1, feed.key, self._group, str(feed.cursor)) for feed in feeds]
        answers = [await settled(answer) for answer in asked]
        return {feed: (answer, answer) for feed, answer in zip(feeds, answers, strict=True)}

    def _ask(self, asked: Asked) -> "asyncio.Future[Any]":
        flat: list[str | int] = []
        for questions in asked.values():
            flat.append(len(questions))
            flat += [part for question in questions for part in question]
        return self._lane.ask("EVALSHA", self._sha, len(asked), *(feed.key for feed in asked), *flat)

    async def _places(
        self, asked: Asked, future: "asyncio.Future[Any] | None"
    ) -> tuple[bytes, dict[Feed, list[list[Place]]]]:
        """Whose history the logs are in now, and each one's answers. Raises BrokerGone, BrokerRefused.

        `future`: of `_ask`; None: nothing was asked.
        """
        if future is None:
            return b"", {}
        answers = await settled(future)
        if isinstance(answers, BrokerRefused) and fault_of(answers.code) is Fault.LOAD:
            await self._lane.ask("SCRIPT", "LOAD", self._script)
            answers = await settled(self._ask(asked))
        if isinstance(answers, BrokerRefused):
            raise answers
        server, *lists = answers
        found = iter(lists)
        return server, {feed: [_places_in(next(found)) for _ in questions] for feed, questions in asked.items()}

    async def _one(self, feed: Feed, *questions: Question) -> list[list[Place]]:
        asked = {feed: questions}
        return (await self._places(asked, self._ask(asked)))[1][feed]

    def _judge(self, feed: Feed, error: object) -> None:
        """No group could be made: usually there is no log yet (a plain ERR), else it is a bug or a foreign key."""
        feed.on(Event.NO_LOG)
        feed.maybe_group = False
        if isinstance(error, BrokerRefused) and error.code not in ("ERR", "NOPERM"):
            refusals.tell(str(error))

    async def _disbelieve(self, feed: Feed, there: Mapping[EntryId, bool], server: bytes) -> None:
        """Somebody rings for another log of this name: pub/sub knows no database numbers."""
        ends = Question("-", "+", -1), Question("-", "+", 1)
        oldest, newest = await self._one(feed, *ends)
        for id in feed.disbelieve(there, server, (oldest or [NOWHERE])[0].id, (newest or [NOWHERE])[0].id):
            self._metrics.nonsense["stray bell"] += 1
            refusals.puzzle("stray bell", feed.key, str(id).encode())

    async def _part(self, feed: Feed, there: Mapping[EntryId, bool], server: bytes) -> None:
        """The cursor's entry is gone: put the group to where this log and the one that was read parted."""
        search = feed.part(there, frozenset(feed.follower.recent()), server)
        question = next(search)
        while True:
            (answer,) = await self._one(feed, question)
            try:
                question = search.send(answer)
            except StopIteration:
                break
        await self._lane.ask("XGROUP", "SETID", feed.key, self._group, str(feed.cursor))

    def remove(self, key: bytes) -> "asyncio.Future[Any] | None":
        """XGROUP DESTROY: the node follows the log no more; where the lane is down (None), once it is up."""
        try:
            asked = self._lane.ask("XGROUP", "DESTROY", key, self._group)
        except BrokerGone:
            self._owed.add(key)
            return None

        def answered(asked: "asyncio.Future[Any]") -> None:
            if not asked.cancelled() and isinstance(asked.exception(), BrokerGone):
                self._owed.add(key)

        asked.add_done_callback(answered)
        return asked

    def remove_owed(self) -> None:
        """The lane is up: remove the groups that are owed. Goes before any group that is made for who came back."""
        owed, self._owed = self._owed, set()
        for key in owed:
            self.remove(key)

    async def sweep(self, feeds: Sequence[Feed], alive: frozenset[str]) -> None:
        """Remove groups of nodes that the registry does not know. Others' groups (room workers) stay."""
        asked = [(feed, self._lane.ask("XINFO", "GROUPS", feed.key)) for feed in feeds if feed.grouped]
        for feed, answer in asked:
            groups = await settled(answer)
            if isinstance(groups, BrokerRefused):  # the log is gone meanwhile
                continue
            for group in groups:
                owner = keys.node_of(group[b"name"])
                # What we know of the living is a heartbeat old; a node registers before it makes a group.
                if owner is not None and owner not in alive and await self._dead(owner):
                    await settled(self._lane.ask("XGROUP", "DESTROY", feed.key, group[b"name"]))
                    self._metrics.groups_swept += 1

    async def _dead(self, node: str) -> bool:
        alive = await settled(self._lane.ask("ZRANGE", self._nodes, 0, -1))
        return not isinstance(alive, BrokerRefused) and node.encode() not in alive


def _look(feed: Feed, announced: Sequence[EntryId]) -> list[Question]:
    """Whether the cursor's entry is in the log, and what bells announced."""
    return [Question(str(id), str(id), 1) for id in (feed.cursor, *announced)]


def _places_in(answer: Sequence[bytes]) -> list[Place]:
    return [Place(entry_id(id), epoch_in(b)) for id, b in zip(answer[::2], answer[1::2], strict=True)]


def _for_want_of_memory(made: object, moved: object) -> bool:
    """Whether there is no group because XGROUP CREATE was refused for that."""
    return isinstance(moved, BrokerRefused) and isinstance(made, BrokerRefused) and made.code == "OOM"


async def settled(future: "asyncio.Future[Any]") -> Any:
    """The reply, or BrokerRefused as a value: in a pipeline one refusal must not hide the other answers."""
    try:
        return await future
    except BrokerRefused as exc:
        return exc
