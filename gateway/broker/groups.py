"""This node's consumer group on each log: made, proved, put back, swept. All commands travel on the reader's lane."""

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog

import broker_config
from gateway.broker import keys, refusals
from gateway.broker.errors import BrokerGone, BrokerRefused
from gateway.broker.feed import Feed
from gateway.broker.keys import Keys
from gateway.broker.lane import Lane
from gateway.core.entry import START, EntryId, entry_id
from gateway.metrics import Metrics

# Entries looked at per step while searching for where a rewound log and ours part.
REWIND_PAGE = 100

log = structlog.get_logger()


class Groups:
    """The server-side cursors of one node."""

    def __init__(self, node: str, names: Keys, lane: Lane, metrics: Metrics) -> None:
        self._group = keys.group(node)
        self._nodes = names.nodes
        self._lane = lane
        self._metrics = metrics
        self._script = broker_config.script("group")
        # Logs whose group was removed while the lane was down, or just before: the broker may not have heard of it.
        self._owed: set[bytes] = set()

    @property
    def name(self) -> bytes:
        return self._group

    async def prove(self, feeds: Sequence[Feed]) -> None:
        """Put the group of each feed at its cursor, where the log exists, and the cursor back into the log.

        Afterwards `feed.grouped` says whether the log can be read. A log that lost the cursor's own entry was
        rewound (failover, flush): the feed then continues at the newest entry that both have.
        """
        asked = [self._put(feed) for feed in feeds]
        compared = [self._newest_of(feed) for feed in feeds]
        errors = {
            feed: (await settled(made), await settled(moved))
            for feed, (made, moved, _) in zip(feeds, asked, strict=True)
        }
        errors |= await self._make_though_full([feed for feed in feeds if _for_want_of_memory(*errors[feed])])
        for feed, (_, _, found), newest in zip(feeds, asked, compared, strict=True):
            made_error, moved_error = errors[feed]
            in_log = await settled(found) if found is not None else [START]
            if newest:
                feed.compare({high: _first(await settled(answer)) for high, answer in newest.items()})
            if isinstance(moved_error, BrokerRefused):
                self._judge(feed, made_error)
                continue
            feed.grouped = True
            if not isinstance(made_error, BrokerRefused):
                self._metrics.groups_made += 1
            if not in_log:
                await self._rewind(feed)

    def _put(self, feed: Feed) -> tuple["asyncio.Future[Any]", "asyncio.Future[Any]", "asyncio.Future[Any] | None"]:
        # Never MKSTREAM: a joined name in which nobody spoke must leave nothing behind.
        at = str(feed.cursor)
        feed.maybe_group = True
        made = self._lane.ask("XGROUP", "CREATE", feed.key, self._group, at)
        moved = self._lane.ask("XGROUP", "SETID", feed.key, self._group, at)
        found = None if feed.cursor == START else self._lane.ask("XRANGE", feed.key, at, at)
        return made, moved, found

    async def _make_though_full(self, feeds: Sequence[Feed]) -> dict[Feed, tuple[Any, Any]]:
        """A full server refuses XGROUP CREATE. A group is a few hundred bytes, and without it nobody hears the room."""
        if not feeds:
            return {}
        sha = await self._lane.ask("SCRIPT", "LOAD", self._script)
        asked = [self._lane.ask("EVALSHA", sha, 1, feed.key, self._group, str(feed.cursor)) for feed in feeds]
        answers = [await settled(answer) for answer in asked]
        return {feed: (answer, answer) for feed, answer in zip(feeds, answers, strict=True)}

    def _newest_of(self, feed: Feed) -> dict[EntryId, "asyncio.Future[Any]"]:
        """Another server answers: what it has of what the one before is known to have had."""
        highs = feed.highs() if feed.doubted else ()
        return {high: self._lane.ask("XREVRANGE", feed.key, str(high), "-", "COUNT", 1) for high in highs}

    def _judge(self, feed: Feed, error: object) -> None:
        """No group could be made: usually there is no log yet (a plain ERR), else it is a bug or a foreign key."""
        feed.grouped = feed.maybe_group = False
        if isinstance(error, BrokerRefused) and error.code not in ("ERR", "NOPERM"):
            refusals.tell(str(error))

    async def _rewind(self, feed: Feed) -> None:
        """The cursor's entry is gone. Trimmed away, everything below it is too; otherwise the log was rewound.

        A log that began again is read from its start, wherever the broker's clock stands; the reader counts the loss.
        """
        if feed.ended:
            return await self._seek(feed, START)
        recent = set(feed.follower.recent())
        oldest = min(recent, default=feed.cursor)
        high = feed.cursor
        while True:
            page = await self._lane.ask("XREVRANGE", feed.key, str(high), "-", "COUNT", REWIND_PAGE)
            ids = [entry_id(raw) for raw, _ in page]
            common = next((id for id in ids if id in recent), None)
            if common is not None:
                return await self._move(feed, common)
            if not ids:
                # Nothing at or below the cursor: trimmed past it, or a new log. Read on; the ids tell which.
                return None if high == feed.cursor else await self._seek(feed, START)
            if ids[-1] < oldest:
                # Rewound further than we remember: what lies below all we remember was delivered before it.
                return await self._move(feed, next(id for id in ids if id < oldest))
            high = ids[-1].before()

    async def _move(self, feed: Feed, cursor: EntryId) -> None:
        log.warning("log rewound", key=feed.key.decode(), cursor=str(feed.cursor), to=str(cursor))
        self._metrics.logs_rewound += 1
        if feed.tear is not None and feed.cursor == feed.tear.high:
            feed.tear = feed.tear._replace(kept=cursor)
        feed.cursor = cursor
        await self._seek(feed, cursor)

    async def _seek(self, feed: Feed, cursor: EntryId) -> None:
        await self._lane.ask("XGROUP", "SETID", feed.key, self._group, str(cursor))

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


def _for_want_of_memory(made: object, moved: object) -> bool:
    """Whether there is no group because XGROUP CREATE was refused for that."""
    return isinstance(moved, BrokerRefused) and isinstance(made, BrokerRefused) and made.code == "OOM"


def _first(entries: Any) -> EntryId | None:
    """The id of the first of a reply's entries; None: there are none, or it was refused."""
    return entry_id(entries[0][0]) if entries and not isinstance(entries, BrokerRefused) else None


async def settled(future: "asyncio.Future[Any]") -> Any:
    """The reply, or BrokerRefused as a value: in a pipeline one refusal must not hide the other answers."""
    try:
        return await future
    except BrokerRefused as exc:
        return exc
