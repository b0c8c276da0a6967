"""Writing to `/streams/chat/<room>`: what is taken of whom, how fast, and what is answered.

A request is for its address what a frame is for a socket: the same rate, weight and sizes. It is taken whole or not at
all, and goes into the log in one call, with the producer's number where there is one.
"""

import asyncio
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple
from weakref import WeakValueDictionary

from aiohttp import web

from gateway.broker.publish import Refusal
from gateway.core import appends
from gateway.core.appends import Condition, Producer
from gateway.core.bucket import TokenBucket
from gateway.core.entry import EntryId, entry_id
from gateway.core.names import RoomName
from gateway.core.streams import BadRequest, offset_of
from gateway.core.user import Grant, User
from gateway.core.wires import BadMessage
from gateway.edge import bodies, door
from gateway.edge.door import Refused
from gateway.edge.edge import Edge
from gateway.site.publishing import PublishHook, TurnedDown

JSON = "application/json"
# Every `label` of a Refused here.
REASONS = (
    "type", "encoding", "json", "empty", "too_long", "too_many", "slow", "broken", "rate", "appends", "producer",
    "stale", "gap", "sequence", "unsupported", "timeout", "unknown", "refused", "rejected", "site",
)  # fmt: skip
# The id of the producer that what a PUT brings belongs to: no client has an empty one.
_CREATION = Condition(Producer(b"", 0, 0))


class Taken(NamedTuple):
    """What a request appends."""

    body: bytes
    messages: Sequence[bytes]


class Done(NamedTuple):
    """How it ended. `end`: the id of its last entry. `seq`: the highest that its producer has there, if it has one."""

    end: EntryId
    seq: int | None
    repeated: bool


class Appends:
    """All of a node that are not answered yet, and how fast each address may go on."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self.settings = edge.settings
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()
        # Each as long as somebody waits for it.
        self._turns: WeakValueDictionary[tuple[RoomName, bytes], asyncio.Lock] = WeakValueDictionary()
        # Of all requests that are not answered yet.
        self.held_bytes = 0

    async def append(
        self, request: web.Request, name: RoomName, grant: Grant, *, creates: bool = False
    ) -> tuple[Producer | None, Done] | None:
        """Take what the request brings. None: it brings nothing, as one that `creates` may. Raises Refused."""
        try:
            condition = _CREATION if creates else _condition(request)
            _check_head(request, self.settings.append_bytes_max, creates)
            self._check_rate(request)
            with _Held(self) as held:
                body = await self._body(request, held)
                self._check_rate(request)  # others of its address may have come meanwhile
                paid = self._charge(request, len(body) / self.settings.message_weight_bytes)
                taken = self._taken(body, creates)
                if taken is None:
                    return None
                self._charge(request, self._weight(taken) - paid)
                door.check_orders(self._edge, grant, name)  # it may have come slowly
                hook = self._edge.context.hook
                if hook is None or not hook.asks(name):
                    return condition.producer, await self._done(name, grant.user, taken, condition)
                async with self._turn(name, condition.producer):
                    taken = await _allowed(hook, name, grant.user, taken)
                    door.check_orders(self._edge, grant, name)  # the site may have taken its time
                    return condition.producer, await self._done(name, grant.user, taken, condition)
        except Refused:
            await bodies.let_pass(request, self.settings.close_s)
            raise

    # ---- what it brings ----

    async def _body(self, request: web.Request, held: "_Held") -> bytes:
        """Within handshake_timeout_s, and of all together at most append_queue_bytes_max."""
        bytes_max = self.settings.append_bytes_max
        try:
            return await bodies.read(request, bytes_max, self.settings.handshake_timeout_s, held.grow)
        except bodies.TooLong:
            raise _too_long(bytes_max) from None
        except TimeoutError:
            raise Refused(408, "slow", "the body did not come within handshake_timeout_s") from None
        except bodies.NOT_WHOLE:
            raise Refused(400, "broken", "the body is not whole") from None

    def _taken(self, body: bytes, creates: bool) -> Taken | None:
        settings = self.settings
        if not body:
            if creates:
                return None
            raise Refused(400, "empty", "there is nothing to append")
        try:
            messages = appends.messages(body)
        except BadMessage as exc:
            raise Refused(400, "json", exc.args[0]) from None
        if not messages:
            if creates:
                return None
            raise Refused(400, "empty", "an empty array appends nothing")
        if len(messages) > settings.append_messages_max:
            raise Refused(413, "too_many", "more messages than one request may append: append_messages_max")
        copies = [bytes(message) for message in messages]
        if max(map(len, copies)) > settings.message_bytes_max:
            raise Refused(413, "too_long", "a message is too long: message_bytes_max")
        return Taken(body, copies)

    # ---- how fast ----

    def _check_rate(self, request: web.Request) -> None:
        """Not held up as a socket is, which waits for nobody: its connection may be a proxy's, and others' too."""
        bucket = self._bucket(request)
        if bucket is not None and (wait_s := bucket.wait_s(time.monotonic())) > 0:
            self._edge.metrics.slowed += 1
            raise Refused(429, "rate", "faster than messages_per_s", **{"Retry-After": str(math.ceil(wait_s))})

    def _weight(self, taken: Taken) -> float:
        """As many as it has messages, a long one as many as it is long: as a socket's."""
        weight_bytes = self.settings.message_weight_bytes
        return sum([max(1.0, len(message) / weight_bytes) for message in taken.messages])

    def _charge(self, request: web.Request, tokens: float) -> float:
        """What is not there is owed, as a socket's is. Returns what was paid."""
        bucket = self._bucket(request)
        if bucket is not None and tokens > 0:
            bucket.take(tokens)
        return tokens

    def _bucket(self, request: web.Request) -> TokenBucket | None:
        """Of its address; None: no limit."""
        if not self.settings.messages_per_s:
            return None
        address, now = self._edge.callers.customer(request), time.monotonic()
        bucket = self._buckets.get(address)
        if bucket is None:
            bucket = TokenBucket(self.settings.messages_per_s, self.settings.messages_burst, now)
            self._buckets[address] = bucket
            if len(self._buckets) > self.settings.appenders_max:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(address)
        bucket.rest(now)
        return bucket

    def _turn(self, name: RoomName, producer: Producer | None) -> asyncio.Lock:
        """Of one producer's requests about which the site is asked: else a later one could pass another."""
        key = (name, producer.id if producer is not None else secrets.token_bytes(9))
        return self._turns.setdefault(key, asyncio.Lock())

    # ---- into the log ----

    async def _done(self, name: RoomName, user: User, taken: Taken, condition: Condition) -> Done:
        metrics = self._edge.metrics
        metrics.received += len(taken.messages)
        metrics.received_bytes += len(taken.body)
        outcome: asyncio.Future[bytes | Refusal] = asyncio.get_running_loop().create_future()

        def answer(told: bytes | Refusal, ref: object) -> None:
            if not outcome.done():
                outcome.set_result(told)

        sender = secrets.token_urlsafe(9)  # as a session's: who wrote these, and nobody else
        self._edge.context.broker.append(name, sender, user.json, taken.body, taken.messages, condition, answer)
        told, producer = await outcome, condition.producer
        if isinstance(told, Refusal):
            raise _refused(told, producer)
        if told.startswith(b"="):
            return self._repeated(appends.told(told), producer)
        metrics.stream_appends += 1
        return Done(entry_id(told), None if producer is None else producer.seq, False)

    def _repeated(self, told: appends.Told, producer: Producer | None) -> Done:
        """It was there already; or it can't be appended behind what there is."""
        if told.word == "passed":
            raise Refused(409, "sequence", "Stream-Seq is not above the last one of this room")
        assert producer is not None
        if told.id is not None:
            self._edge.metrics.stream_repeats += 1
            return Done(told.id, told.number, True)
        if told.word == "stale":
            stale = {"Producer-Epoch": str(told.number)}
            raise Refused(403, "stale", "another of this Producer-Id has begun a later epoch", **stale)
        if told.word == "gap":
            numbers = {"Producer-Expected-Seq": str(told.number), "Producer-Received-Seq": str(producer.seq)}
            raise Refused(409, "gap", "requests of this producer are missing before this one", **numbers)
        raise Refused(400, "producer", "an epoch begins with Producer-Seq 0")


class _Held:
    """What one request holds of append_queue_bytes_max."""

    def __init__(self, appends: Appends) -> None:
        self._appends = appends
        self._bytes = 0

    def __enter__(self) -> "_Held":
        self.grow(self._appends.settings.message_weight_bytes)
        return self

    def __exit__(self, *_: object) -> None:
        self._appends.held_bytes -= self._bytes

    def grow(self, size: int) -> None:
        """So many bytes of it are there."""
        more = max(0, size - self._bytes)
        if self._appends.held_bytes + more > self._appends.settings.append_queue_bytes_max:
            raise door.busy("appends", "too much is being appended at once: append_queue_bytes_max")
        self._appends.held_bytes += more
        self._bytes += more


async def _allowed(hook: PublishHook, name: RoomName, user: User, taken: Taken) -> Taken:
    """What the site lets pass of it: all or nothing. Raises Refused."""
    try:
        messages = await hook.words(name, user, taken.messages)
    except TurnedDown as why:
        raise (Refused(403, "rejected", why.args[0]) if why.final else door.busy("site", why.args[0])) from None
    return Taken(b"".join(messages), messages)


def _condition(request: web.Request) -> Condition:
    header = request.headers.get
    if header("Stream-Closed") is not None:
        raise Refused(501, "unsupported", "a room can't be closed")
    try:
        producer = appends.producer(header("Producer-Id"), header("Producer-Epoch"), header("Producer-Seq"))
        return Condition(producer, appends.sequence(header("Stream-Seq")))
    except BadRequest as exc:
        raise Refused(400, "producer", exc.args[0]) from None


def _check_head(request: web.Request, bytes_max: int, creates: bool) -> None:
    """All that can be judged before the body comes."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Refused(415, "encoding", "Content-Encoding is not taken up: send the JSON as it is")
    if (request.content_length or 0) > bytes_max:
        raise _too_long(bytes_max)
    if "Content-Type" in request.headers:
        if request.content_type.lower() != JSON:
            raise Refused(409, "type", f"a room is a stream of {JSON}")
    elif request.body_exists and not creates:
        raise Refused(400, "type", f"a body needs its Content-Type: {JSON}")


def _too_long(bytes_max: int) -> Refused:
    return Refused(413, "too_long", f"a request has at most {bytes_max} bytes: append_bytes_max")


def _refused(refusal: Refusal, producer: Producer | None) -> Refused:
    """A producer may ask again whatever happened; anybody may, where it is certain that nothing was appended."""
    if refusal is Refusal.TIMEOUT:
        return door.busy("timeout", refusal.value)
    if refusal is not Refusal.UNKNOWN:
        return door.busy("refused", refusal.value)
    if producer is not None:
        return door.busy("unknown", refusal.value)
    return Refused(504, "unknown", refusal.value)


def answer(producer: Producer | None, done: Done) -> web.Response:
    """Section 5.2: 200 to a producer's new bundle, else 204."""
    headers = {"Stream-Next-Offset": offset_of(done.end), "Cache-Control": "no-store"}
    if producer is not None:
        headers |= {"Producer-Epoch": str(producer.epoch), "Producer-Seq": str(done.seq)}
    return web.Response(status=204 if producer is None or done.repeated else 200, headers=headers)
