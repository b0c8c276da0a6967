"""The broker as the rooms see it: publish, follow a log, read a page of it, and whether the road is proven.

Composes the lanes with their owners: publisher, reader (and whoever keeps its groups), doorbell, pages.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any

from gateway.broker import refusals
from gateway.broker.answers import Answers
from gateway.broker.api_keys import ApiKeys
from gateway.broker.control import Control
from gateway.broker.deletions import Deletions
from gateway.broker.doorbell import Doorbell
from gateway.broker.endpoint import Endpoint
from gateway.broker.erasures import Erasures
from gateway.broker.errors import BrokerGone, BrokerRefused
from gateway.broker.feed import NOBODY, Feed, Follower
from gateway.broker.groups import Groups, settled
from gateway.broker.keys import Keys
from gateway.broker.lanes import Lanes
from gateway.broker.markers import Markers
from gateway.broker.members import ASKS, Members
from gateway.broker.orders import Orders
from gateway.broker.pace import Pace
from gateway.broker.probe import Probe
from gateway.broker.publish import PASSING, Answer, KeyedCondition, Refusal
from gateway.broker.publisher import Publisher
from gateway.broker.questions import Questions
from gateway.broker.reader import Reader
from gateway.broker.reads import Reads
from gateway.broker.registry import Registry
from gateway.broker.rooms import Rooms
from gateway.broker.sweep import Sweep
from gateway.broker.tops import Tops
from gateway.broker.whispers import Whispers
from gateway.core.appends import Condition
from gateway.core.entry import START, EntryId, entry_id, epoch_of
from gateway.core.names import RoomName
from gateway.core.paging import Page
from gateway.settings.model import Settings
from gateway.telemetry.clock import Clock
from gateway.telemetry.metrics import Metrics


class Broker:
    """One node's road to Redis. `run` keeps it; `withdraw` ends it in order."""

    def __init__(self, node: str, url: str, settings: Settings, clock: Clock, metrics: Metrics) -> None:
        self.endpoint = Endpoint(url, settings.broker_timeout_s)
        self._keys = keys = Keys(settings.key_prefix, self.endpoint.db)
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._heartbeat: asyncio.Task[None] | None = None
        self._lanes = lanes = Lanes(node, self.endpoint, settings, metrics)
        self._groups = Groups(node, keys, lanes.read, metrics)
        self._reader = Reader(
            lanes.read,
            lanes.doorbell,
            self._groups,
            # Half as long: bells come as publishes were gathered, and what waited once need not wait again.
            Pace(settings.gather_s / 2, settings.gather_max_s),
            metrics,
            entry_bytes_max=settings.message_bytes_max,
        )
        self._doorbell = Doorbell(lanes.doorbell, self._ring, self._listens, metrics, settings.broker_timeout_s)
        self.publisher = Publisher(node, keys, lanes.publish, clock, settings, metrics)
        self._registry = Registry(
            node, keys, lanes.read, clock, settings.node_ttl_s, on_forgotten=self._reader.distrust
        )
        lanes.read.on_up = self._read_lane_up
        self._probe = Probe(
            node,
            keys.probe(node),
            self.publisher,
            clock,
            settings.probe_s,
            settings.message_bytes_max,
            whole=lambda: lanes.whole,
            reconnect=lanes.drop,
        )
        # A connection is back, or hears the probe's bells again: nobody need wait for the next turn to know.
        self._mended = asyncio.Event()
        lanes.on_up, lanes.on_down = self._mended.set, self._probe.doubt
        # Whether probes go out: nobody reads them before the node follows their log, or after it withdrew.
        self._probing = False
        self._withdrawing = False
        orders = Orders(node, keys, lanes.page, self.publisher, settings)
        self.deletions = Deletions(node, keys, lanes.page, orders.say, settings)
        self.control = Control(keys.orders, orders, self.deletions, self.clock_offset_s, settings, metrics)
        self.reads = Reads(lanes.page, settings.pages_max, metrics)
        followed = self._reader.feeds.__contains__
        self.tops = Tops(keys, self._doorbell, lanes.page, followed, settings, metrics)
        self.markers = Markers(keys, self._doorbell, lanes.page, settings, metrics)
        self.api_keys = ApiKeys(keys, lanes.page)
        self.rooms = Rooms(keys, lanes.page, settings)
        self.erasures = Erasures(keys, lanes.page, self.rooms, self.deletions)
        self.questions = Questions(node, keys, self._doorbell, lanes.page)
        self.answers = Answers(keys, lanes.page, settings)
        self.whispers = Whispers(keys, self._doorbell, lanes.publish, settings, metrics)
        self.members = Members(node, keys, self._doorbell, lanes.page, clock, settings, metrics)
        self._sweep = Sweep(
            self._reader,
            self._groups,
            self._registry,
            lanes.read,
            metrics,
            settings,
            index_of=keys.index_of,
            full=lambda: self._probe.refused is Refusal.FULL,
            trim=self.publisher.trim,
        )
        clock.on_pause.append(lambda paused_s: self._reader.distrust())

    @property
    def proven(self) -> bool:
        """The whole road, publish to delivery, worked within probe_s."""
        return self._probe.proven

    @property
    def away(self) -> str | None:
        """Why there is no connection, the latest reasons; None: there is."""
        return self._lanes.away

    @property
    def refusing(self) -> Refusal | None:
        """Why the broker takes no publish at present though it is well; None: it does."""
        return self._probe.refused

    async def proof(self) -> None:
        """Wait until the road is proven, and all is known that stands; at once while it is so."""
        await self._probe.proof()
        await self.control.known()

    def probe_age_s(self) -> float | None:
        """Seconds since the road was last proven; None: never yet."""
        return self._probe.age_s()

    def clock_offset_s(self) -> float:
        """The broker's clock less this machine's."""
        return self._probe.offset_s

    async def follow(self, rooms: Mapping[RoomName, Follower]) -> dict[RoomName, Feed | BrokerRefused]:
        """Follow these logs from their ends, or say why one can't be. On return nothing appended later can be missed.

        Waits for the broker as long as it takes: the caller brings a deadline. Raises BrokerRefused for all of them.
        """
        entry_bytes_max = self._settings.message_bytes_max
        feeds = {name: Feed(self._keys.log(name), follower, entry_bytes_max) for name, follower in rooms.items()}
        refused = await self._start(list(feeds.values()))
        started = [feed for feed in feeds.values() if feed not in refused]
        if started:
            await self._attach(started)
        return {name: refused.get(feed, feed) for name, feed in feeds.items()}

    async def _attach(self, feeds: Sequence[Feed]) -> None:
        channels = [self._keys.channel(feed.key) for feed in feeds]
        for feed, channel in zip(feeds, channels, strict=True):
            self._reader.add(feed)
            if self._doorbell.hears(channel):  # somebody watches it
                self._reader.listens(feed.key)
        try:
            await self._doorbell.subscribe(channels)
        except BaseException:
            for feed in feeds:
                self._detach(feed)
            raise
        self._reader.mark(feeds)
        for feed in feeds:
            self._sweep.soon(feed)

    def _detach(self, feed: Feed) -> None:
        self._reader.remove(feed)
        if feed.key not in self.tops.logs:
            self._doorbell.unsubscribe((self._keys.channel(feed.key),))

    def _ring(self, channel: bytes, bell: bytes) -> None:
        if bell.startswith(ASKS):
            self.members.called(bell)
            return
        key = self._keys.rung(channel)
        self._reader.ring(key, bell)
        self.tops.ring(key, bell)
        self.markers.ring(key, bell)
        self.whispers.ring(key, bell)
        self.questions.ring(key, bell)
        self.members.ring(key, bell)

    def _listens(self, channel: bytes) -> None:
        key = self._keys.rung(channel)
        self._reader.listens(key)
        self.tops.listens(key)
        self.markers.listens(key)
        self.members.listens(key)
        if key == self.control.feed.key:
            self.control.doubt()
        elif key == self._probe.feed.key:
            self._mended.set()

    async def _start(self, feeds: Sequence[Feed]) -> dict[Feed, BrokerRefused]:
        """Put the cursors at the logs' ends; at 0-0 where there is no log. What is no log is refused."""
        commands = [("XREVRANGE", feed.key, "+", "-", "COUNT", 1) for feed in feeds]
        while True:
            await self._lanes.read.up()
            with suppress(BrokerGone):
                replies = await self._lanes.read.ask_master_all(commands)
                break
        refused: dict[Feed, BrokerRefused] = {}
        for feed, newest in zip(feeds, replies, strict=True):
            if isinstance(newest, BrokerRefused):
                refused[feed] = newest
                continue
            for id, fields in newest:
                feed.start(entry_id(id), epoch_of(fields))
        return refused

    def append(
        self,
        room: RoomName,
        sender: str,
        user: bytes,
        body: bytes,
        messages: Sequence[bytes],
        condition: Condition,
        answer: Answer,
    ) -> None:
        """Queue several messages for a room's log, all or none, as `Publisher.offer_bundle` has it."""
        kept_s = self._settings.producer_ttl_s
        if condition.producer is not None and not condition.producer.id:
            kept_s = min(kept_s, self._settings.room_idle_s)  # behind its log's end a room may be created again
        keyed = KeyedCondition(math.ceil(kept_s))
        if condition.producer is not None:
            id, epoch, seq = condition.producer
            keyed = keyed._replace(producer=self._keys.producer(room, id), epoch=epoch, seq=seq)
        elif condition.once is not None:
            key, mark = condition.once
            kept_s = self._settings.idempotency_s
            keyed = KeyedCondition(math.ceil(kept_s), self._keys.appended(room, key), mark, "-")
        if condition.sequence:
            keyed = keyed._replace(sequences=self._keys.sequence(room), sequence=condition.sequence)
        self.publisher.offer_bundle(self._keys.log(room), sender, user, body, messages, keyed, answer)

    async def page(self, room: RoomName, before: EntryId | None, entries_max: int, bytes_max: int) -> Page:
        """What a room's log has below `before`; None: its newest entries. Nobody need be in the room.

        Waits for the broker as long as it takes: the caller brings a deadline. Raises BrokerRefused.
        """
        feed = Feed(self._keys.log(room), NOBODY, self._settings.message_bytes_max)
        while True:
            await self._lanes.page.up()
            try:
                async with self.reads.pages:
                    known = before or await self._newest(feed)
                    end = before or EntryId(known.ms, known.n + 1)
                    return await self.reads.before(feed, end, known, entries_max, bytes_max)
            except BrokerGone:
                continue

    async def _newest(self, feed: Feed) -> EntryId:
        """START: there is no log."""
        newest = await self._lanes.page.ask_master("XREVRANGE", feed.key, "+", "-", "COUNT", 1)
        return entry_id(newest[0][0]) if newest else START

    async def has(self, feed: Feed, id: EntryId) -> bool:
        """Whether the log has an entry of this id. Raises BrokerGone, BrokerRefused."""
        return bool(await self._lanes.read.ask_master("XRANGE", feed.key, str(id), str(id)))

    async def end(self, feed: Feed) -> EntryId:
        """The newest id of the log as it is now; START: it has none. Raises BrokerGone, BrokerRefused."""
        newest = await self._lanes.read.ask_master("XREVRANGE", feed.key, "+", "-", "COUNT", 1)
        return entry_id(newest[0][0]) if newest else START

    def ring(self, feed: Feed) -> None:
        """Read this log soon."""
        self._reader.mark((feed,))

    def unfollow(self, feed: Feed) -> "asyncio.Future[Any] | None":
        """Follow a room's log no more, and remove its group. The future: the broker did so; None: nothing to do."""
        self._detach(feed)
        return self._groups.remove(feed.key) if feed.maybe_group else None

    async def run(self, keep: Callable[[str, Coroutine[Any, Any, None]], "asyncio.Task[None]"]) -> None:
        """Start everything, until cancelled; `keep` owns the tasks."""
        for lane in self._lanes.all:
            keep(f"lane {lane.name}", lane.run())
        keep("proof", self._prove())
        if self.endpoint.moves:
            keep("sentinels", self._lanes.watch())
        keep("publisher", self.publisher.run())
        keep("publish deadlines", self.publisher.expire())
        # No group may be made before others know that its node lives.
        await self._insist("registry", self._registry.beat)
        self._heartbeat = keep("heartbeat", self._registry.run(self._settings.heartbeat_s))
        keep("reader", self._reader.run())
        keep("sweep", self._sweep.run())
        keep("tops", self.tops.run())
        keep("tops' sweep", self.tops.sweep())
        keep("markers", self.markers.run())
        keep("markers' proof", self.markers.prove())
        keep("api keys", self.api_keys.run())
        keep("members", self.members.run())
        keep("members' log", self.members.read())
        keep("members' heartbeat", self.members.beat())
        # Before the road can be proven, so before anybody comes in.
        await self._insist("control", self._obey)
        keep("control", self.control.run())
        self.questions.listen()
        await self._insist("probe", lambda: self._attach((self._probe.feed,)))
        self._probing = True
        await asyncio.Event().wait()

    async def _obey(self) -> None:
        """Follow the control log, and know what stands."""
        feed = self.control.feed
        if feed.key not in self._reader.feeds:
            for refused in (await self._start((feed,))).values():
                raise refused
            await self._attach((feed,))
        await self.control.load()

    async def _prove(self) -> None:
        """Prove each connection, then the road that they make together: every so often, and when one is back."""
        while True:
            # After a pause of this process: what arrived meanwhile is read first, for a write to a connection that was
            # reset loses it; bells are told once.
            for _ in range(2):
                await asyncio.sleep(0)
            for lane in self._lanes.all:
                if not lane.prove(self._clock.now()):
                    self._metrics.probe_timeouts += 1
                    self._probe.doubt()
            if self._probing:
                self._probe.turn()
            self._mended.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._probe.every_s):
                    await self._mended.wait()

    def _read_lane_up(self) -> None:
        if not self._withdrawing:
            self._registry.up()
        self._reader.up()

    async def _insist(self, name: str, step: Callable[[], Awaitable[None]]) -> None:
        """Do what nothing works without, however long the broker refuses it."""
        while True:
            await self._lanes.read.up()
            try:
                await step()
                self._lanes.changed(name, None)
                return
            except BrokerGone:  # the lane says so
                pass
            except BrokerRefused as exc:
                if exc.code in PASSING:
                    # Who comes may come and read; no group can be made either, and so none be taken for a dead node's.
                    refusals.tell(str(exc))
                    self._lanes.changed(name, None)
                    return
                self._lanes.changed(name, str(exc))
            await asyncio.sleep(self._settings.heartbeat_s / 5)

    async def withdraw(self) -> None:
        """Flush what is queued, remove this node's groups, name and keys. Bounded by the caller."""
        # One more heartbeat or probe would register this node again, or write its keys.
        self._probing, self._withdrawing = False, True
        if self._heartbeat is not None:
            self._heartbeat.cancel()
            await asyncio.gather(self._heartbeat, return_exceptions=True)
        await self.publisher.flushed()
        await self.markers.flushed()
        left = [future for feed in list(self._reader.feeds.values()) if (future := self.unfollow(feed)) is not None]
        for future in left:
            await settled(future)
        await self._registry.withdraw()

    async def close(self) -> None:
        """Close the connections to the sentinels. The tasks end with their owner."""
        await self.endpoint.close()
