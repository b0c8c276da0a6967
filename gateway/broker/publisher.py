"""The way into the log: publishes gather, go in one call, and are answered once each. Knows no room or session.

One call is under way at a time and carries a number. After a lost connection the same call goes again, before
anything newer; the script knows its number and appends nothing twice (broker_config/publish.lua).
"""

import asyncio
from collections import deque
from collections.abc import Sequence

import broker_config
from broker_config.retention import ONCE_S, Retention
from gateway.broker import refusals
from gateway.broker.connection import Arg
from gateway.broker.errors import BrokerGone, BrokerRefused, Fault, fault_of
from gateway.broker.fair_queue import FairQueue
from gateway.broker.keys import Keys
from gateway.broker.lane import Lane
from gateway.broker.pace import Pace
from gateway.broker.publish import Answer, Bundle, KeyedCondition, Publish, Refusal, refusal_of
from gateway.core.wires import Ref
from gateway.settings.model import Settings
from gateway.telemetry.clock import Clock
from gateway.telemetry.metrics import Metrics

ENTRIES_PER_CALL = 1024
BYTES_PER_CALL = 1_048_576
# Nobody is answered before a call is. Where so much takes longer than this (a slow network or disk), the next one is
# smaller: two of the largest messages at least.
CALL_S = 0.1
BYTES_PER_CALL_MIN = 131_072
EXPIRE_EVERY_S = 0.1


class Publisher:
    """The node's one road into the broker, whose senders take turns. Whoever offers must wait for `space` while it is
    `full` for him."""

    def __init__(
        self,
        node: str,
        keys: Keys,
        lane: Lane,
        clock: Clock,
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        self._once = keys.once(node)
        self._channel_tail = keys.channel_tail
        self._lane = lane
        self._clock = clock
        self._pace = Pace(settings.gather_s, settings.gather_max_s)
        self._retention = _retention_of(settings).arguments()
        self._metrics = metrics
        metrics.known("publishes_refused", (refusal.code for refusal in Refusal))
        self._timeout_s = settings.publish_timeout_s
        self._script = broker_config.script("publish")
        self._sha = b""
        self._number = 0
        # Until when the broker has an answer of ours, if nothing was taken from it: a call that was sent before and
        # finds none there cannot have run while there was none to be had. By our clock.
        self._kept_until = 0.0
        # Offered and not sent.
        self._queue: FairQueue[Publish] = FairQueue(
            settings.publish_queue_entries_max, settings.publish_queue_bytes_max
        )
        # Those that go together: a call has some of them beside what it takes of the queue.
        self._bundles: deque[Bundle] = deque()
        self._call_bytes_max = BYTES_PER_CALL
        self._offered = asyncio.Event()
        # Sent and not answered by the broker.
        self._under_way: list[Publish] = []
        self._idle = asyncio.Event()
        self._idle.set()

    def offer(self, key: bytes, sender: str, user: bytes, message: bytes, ref: Ref, answer: Answer) -> None:
        """Queue a message; `answer` hears its id or its refusal, exactly once, never before this returns.

        `user`: as entries have it, JSON; empty: nobody with a name.
        """
        now = self._clock.now()
        self._queue.put(Publish(key, sender, user, message, ref, answer, now, self._timeout_s))
        self._offered.set()
        self._idle.clear()

    def offer_bundle(
        self,
        key: bytes,
        sender: str,
        user: bytes,
        body: bytes,
        messages: Sequence[bytes],
        condition: KeyedCondition,
        answer: Answer,
    ) -> None:
        """Queue several messages, at most ENTRIES_PER_CALL, in the order of asking. Whoever asks bounds how many wait.

        `answer` hears the id of the last one, `=` and what publish.lua tells of its condition, or a refusal of all.
        """
        bundle = Bundle(key, sender, user, body, None, answer, self._clock.now(), self._timeout_s)
        bundle.messages, bundle.condition = messages, condition
        self._bundles.append(bundle)
        self._offered.set()
        self._idle.clear()

    def full(self, sender: str) -> bool:
        """Whether the queue has no space for this sender: nobody fills it alone."""
        return self._queue.full(sender)

    async def space(self, sender: str) -> None:
        """Wait until the queue has space for this sender again."""
        self._metrics.publish_queue_full += 1
        await self._queue.space(sender)

    async def flushed(self) -> None:
        """Wait until nothing is queued or under way."""
        await self._idle.wait()

    def queued(self) -> int:
        return len(self._queue) + len(self._bundles) + len(self._under_way)

    async def run(self) -> None:
        """Send what is offered until cancelled."""
        while True:
            if not self._queue and not self._bundles:
                self._idle.set()
                self._offered.clear()
                await self._offered.wait()
            await self._lane.up()
            await self._pace.turn()
            singles, bundles = self._queue.take(ENTRIES_PER_CALL, self._call_bytes_max), self._next_bundles()
            self._under_way = [*singles, *bundles] if bundles else singles
            if self._under_way:
                await self._append(self._under_way, singles, bundles)
                self._under_way = []

    def _next_bundles(self) -> Sequence[Bundle]:
        """As much as a call may hold by itself."""
        bundles: list[Bundle] = []
        entries = size = 0
        while self._bundles:
            entries += len(self._bundles[0].messages)
            size += len(self._bundles[0].message)
            if bundles and (entries > ENTRIES_PER_CALL or size > self._call_bytes_max):
                break
            bundles.append(self._bundles.popleft())
        return bundles

    async def expire(self) -> None:
        """Tell those whose time is over, until cancelled. What was not sent is withdrawn."""
        while True:
            await asyncio.sleep(EXPIRE_EVERY_S)
            now = self._clock.now()
            for publish in self._queue.withdraw(now):
                self._refuse(publish, Refusal.TIMEOUT)
            while self._bundles and self._bundles[0].deadline <= now:
                self._refuse(self._bundles.popleft(), Refusal.TIMEOUT)
            for publish in self._under_way:
                if publish.answer is not None and publish.deadline <= now:
                    self._refuse(publish, Refusal.UNKNOWN)

    def _refuse(self, publish: Publish, refusal: Refusal) -> None:
        self._metrics.publishes_refused[refusal.code] += 1
        publish.settle(refusal)

    async def trim(self, logs: Sequence[bytes]) -> None:
        """Take out of these logs what retention keeps no longer. Raises BrokerGone; a refusal is told."""
        # A call without entries is not saved: it wants no number, and a once key that nobody ever wrote.
        unwritten = self._once + b":none"
        head: tuple[Arg, ...] = (0, 0, *self._retention, self._channel_tail)
        try:
            await self._lane.ask("EVALSHA", self._sha, 1 + len(logs), unwritten, *logs, *head)
        except BrokerRefused as exc:
            if fault_of(exc.code) is not Fault.LOAD:  # the next publish loads it
                refusals.tell(str(exc))

    async def _append(self, batch: list[Publish], singles: list[Publish], bundles: Sequence[Bundle]) -> None:
        self._number += 1
        keys: dict[bytes, int] = {}
        entries: list[Arg] = []
        for publish in singles:
            index = keys.setdefault(publish.key, len(keys) + 2)
            entries += (index, publish.sender, publish.user, publish.message)
        for bundle in bundles:
            entries += bundle.arguments(lambda key: keys.setdefault(key, len(keys) + 2))
        head: tuple[Arg, ...] = (1 + len(keys), self._once, *keys, self._number)
        sent_at = self._clock.now()
        try:
            answer = await self._answer_to(head, (*self._retention, self._channel_tail, *entries), batch)
        except BrokerRefused as exc:
            refusals.tell(str(exc))
            refusal = refusal_of(exc.code)
            for publish in batch:
                self._refuse(publish, refusal)
        else:
            now = self._clock.now()
            if answer is None:  # it may still run
                self._kept_until = now + ONCE_S
            else:
                self._judge(batch, now - sent_at)
                self._settle(batch, bundles, answer.split(b"\n"), now)

    def _judge(self, batch: list[Publish], took_s: float) -> None:
        """What a call may hold, by what this one took. A small one tells of the way there and back, not of bytes."""
        size = sum([len(publish.message) for publish in batch])
        if size >= BYTES_PER_CALL_MIN // 2:
            fitting = int(size * CALL_S / max(took_s, CALL_S / 1000))
            self._call_bytes_max = min(BYTES_PER_CALL, max(BYTES_PER_CALL_MIN, fitting))

    async def _answer_to(self, head: tuple[Arg, ...], body: tuple[Arg, ...], batch: list[Publish]) -> bytes | None:
        """The script's answer, however many connections it takes; None when nobody waits for it any more."""
        # Sent over a connection that is gone, so it may have run.
        sent_before = False
        while any(publish.answer for publish in batch):
            try:
                known = int(sent_before and self._clock.now() < self._kept_until)
                answer: bytes = await self._lane.ask("EVALSHA", self._sha, *head, known, *body)
                return answer
            except BrokerGone:
                sent_before = True
                self._metrics.publish_retries += 1
                await self._lane_or_nobody(batch)
            except BrokerRefused as exc:
                if fault_of(exc.code) is not Fault.LOAD:
                    raise
                self._sha = await self._load()
        return None

    async def _lane_or_nobody(self, batch: list[Publish]) -> None:
        while not self._lane.is_up and any(publish.answer for publish in batch):
            try:
                async with asyncio.timeout(EXPIRE_EVERY_S):
                    await self._lane.up()
            except TimeoutError:
                continue

    async def _load(self) -> bytes:
        try:
            sha: bytes = await self._lane.ask("SCRIPT", "LOAD", self._script)
        except BrokerGone:
            return self._sha  # the caller finds the lane down by itself
        self._metrics.scripts_loaded += 1
        return sha

    def _settle(self, batch: list[Publish], bundles: Sequence[Bundle], lines: list[bytes], now: float) -> None:
        if len(lines) > len(batch):
            self._hear_beside(lines)
        refused = 0
        for publish, line in zip(batch, lines, strict=True):
            if line.startswith(b"!"):
                refused += 1
                text = line[1:].decode(errors="replace")
                refusals.tell(text)
                self._refuse(publish, refusal_of(text.partition(" ")[0]))
            else:
                publish.settle(line)
        if refused < len(batch):
            self._kept_until = now + ONCE_S
        self._metrics.published += len(batch) - refused
        for bundle, line in zip(bundles, lines[len(batch) - len(bundles) :], strict=True):
            if line.startswith(b"="):
                self._metrics.published -= 1
            elif not line.startswith(b"!"):
                self._metrics.published += len(bundle.messages) - 1
        self._metrics.publish_calls += 1
        self._metrics.publish_batch.observe(len(batch))
        self._metrics.publish_latency.observe(now - min([publish.offered_at for publish in batch]))
        self._metrics.gather_s = self._pace.gather_s

    def _hear_beside(self, lines: list[bytes]) -> None:
        """What the script says beside the ids, as its last lines."""
        if lines[-1].startswith(b"-"):
            refusals.tell(lines.pop()[1:].decode(errors="replace"))
        if lines[-1].startswith(b"?"):
            self._metrics.trims_in_vain += 1
            refusals.complain(lines.pop()[1:].decode())


def _retention_of(settings: Settings) -> Retention:
    """What publishing takes out of a log."""
    return Retention(
        settings.retention_s,
        settings.retention_entries_min,
        settings.retention_bytes_min,
        settings.retention_entries_max,
        settings.retention_bytes_max,
        settings.room_idle_s,
    )
