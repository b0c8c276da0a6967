"""How an order is given: written into the set of those that stand, then said in the control log, so that who hears of
it finds it there. Used by nodes, and by commands that have no node.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import broker_config
from broker_config.retention import Retention
from gateway.broker import refusals
from gateway.broker.endpoint import Endpoint
from gateway.broker.errors import BrokerGone, BrokerRefused, Fault, fault_of
from gateway.broker.keys import Keys
from gateway.broker.lane import Arg, Lane
from gateway.broker.pace import Pace
from gateway.broker.publisher import Publisher, Refusal
from gateway.clock import Clock
from gateway.config import Settings
from gateway.core.orders import BadOrder, Order, Target, decode_target, encode
from gateway.core.wires import Ref
from gateway.metrics import Metrics

# Orders in one call: a millisecond of the broker.
ORDERS_PER_CALL = 256
# What the set's stamp begins with; a target is JSON.
STAMP = b"@"


class NoSpace(Exception):
    """orders_max orders stand. `args[0]` says what to do."""


class Given(NamedTuple):
    """An order as it stands; and why it could not be said in the log, None: it was. Nodes then find it by themselves,
    within sweep_s."""

    order: Order
    unsaid: Refusal | None


class Stands(NamedTuple):
    """What the broker's set holds, and its stamp; "": there is no set."""

    stamp: str
    orders: list[Order]


class Orders:
    """The set and the log, as one writes to them. Errors: BrokerGone, BrokerRefused."""

    def __init__(self, by: str, keys: Keys, lane: Lane, publisher: Publisher, settings: Settings) -> None:
        """`by`: who says it, in the log. `lane`: a master answers it, as `publisher`'s does."""
        self._by = by
        self._log = keys.orders
        self._set = keys.standing
        self._lane = lane
        self._publisher = publisher
        self._orders_max = settings.orders_max
        self._script = broker_config.script("order")
        self._sha = b""

    async def give(self, target: Target, until_ms: int | None, for_s: float = 0.0, by: str = "") -> Given:
        """From now on it stands: until then, or where that is None for so long from now; neither: it is lifted.

        What stood about the same target stands no more. Over a lost connection it is tried again: the caller brings a
        deadline. Raises NoSpace.
        """
        lasts = f"+{int(for_s * 1000)}" if until_ms is None else str(until_ms)
        while True:
            await self._lane.up()
            try:
                stamp, (until,) = await self._write([(target, lasts)], only_missing=False)
                break
            except BrokerGone:  # whether it was written or not: written twice, it is the same
                continue
        if until == b"!":
            raise NoSpace(
                f"{self._orders_max} orders stand (orders_max): lift some, or revoke everybody's tokens that were "
                "issued before now, which is one order"
            )
        order = Order(target, int(until), stamp, by or self._by)
        return Given(order, await self._say(order))

    async def give_again(self, orders: Sequence[Order]) -> int:
        """Give those of these that stand no more: the broker lost them. How many it had lost."""
        lost: list[Order] = []
        for at in range(0, len(orders), ORDERS_PER_CALL):
            part = orders[at : at + ORDERS_PER_CALL]
            stamp, lines = await self._write([(one.target, str(one.until)) for one in part], only_missing=True)
            lost += [
                Order(one.target, int(until), stamp, one.by)
                for one, until in zip(part, lines, strict=True)
                if until not in (b"", b"0", b"!")
            ]
            if b"!" in lines:
                refusals.complain("orders that it lost find no space among those that stand: raise orders_max")
        await asyncio.gather(*map(self._say, lost))
        return len(lost)

    async def up(self) -> None:
        """Wait until the broker can be asked."""
        await self._lane.up()

    async def stamp(self) -> str:
        """Of the set as it is now: another one after each order. "": there is no set."""
        return _stamp_of(await self._lane.ask_master("ZRANGE", self._set, -1, -1))

    async def standing(self) -> Stands:
        """All that stands, and perhaps some that ended lately."""
        members: list[list[bytes | float]] = await self._lane.ask_master("ZRANGE", self._set, 0, -1, "WITHSCORES")
        orders: list[Order] = []
        for member, until in members:
            assert isinstance(member, bytes)
            if member.startswith(STAMP):
                continue
            try:
                orders.append(Order(decode_target(member), int(until)))
            except (BadOrder, OverflowError, ValueError):  # a later version's, or a stranger's
                refusals.puzzle("order", self._set, member)
        return Stands(_stamp_of([member for member, _ in members[-1:]]), orders)

    async def _write(self, orders: Sequence[tuple[Target, str]], only_missing: bool) -> tuple[str, list[bytes]]:
        flat: list[Arg] = [part for target, lasts in orders for part in (encode(target), lasts)]
        while True:
            try:
                stamp, *lines = await self._lane.ask(
                    "EVALSHA", self._sha, 1, self._set, self._orders_max, int(only_missing), *flat
                )
                return stamp.decode(), lines
            except BrokerRefused as exc:
                if fault_of(exc.code) is not Fault.LOAD:
                    raise
                self._sha = await self._lane.ask("SCRIPT", "LOAD", self._script)

    async def _say(self, order: Order) -> Refusal | None:
        said: asyncio.Future[Refusal | None] = asyncio.get_running_loop().create_future()

        def answered(outcome: bytes | Refusal, ref: Ref) -> None:
            if not said.done():
                said.set_result(outcome if isinstance(outcome, Refusal) else None)

        while self._publisher.full(self._by):
            await self._publisher.space(self._by)
        self._publisher.offer(self._log, self._by, b"", encode(order), None, answered)
        return await said


def _stamp_of(last: Sequence[object]) -> str:
    """Of the set's highest member."""
    if last and isinstance(last[0], bytes) and last[0].startswith(STAMP):
        return last[0][len(STAMP) :].decode(errors="replace")
    return ""


def retention_of(settings: Settings) -> Retention:
    """What publishing takes out of a log."""
    return Retention(
        settings.retention_s,
        settings.retention_entries_min,
        settings.retention_bytes_min,
        settings.retention_entries_max,
        settings.retention_bytes_max,
        settings.room_idle_s,
    )


@asynccontextmanager
async def without_a_node(
    url: str, settings: Settings, on_change: Callable[[str, str | None], None]
) -> AsyncIterator[Orders]:
    """For a command: a connection of its own, which ends with it. `on_change`: as of Lane."""
    # As no other's: publish.lua takes calls of one name and number for one.
    name = f"command-{secrets.token_hex(6)}"
    endpoint, metrics, clock = Endpoint(url, settings.broker_timeout_s), Metrics(), Clock()
    keys = Keys(settings.key_prefix, endpoint.db)
    lane = Lane("publish", name, endpoint, settings.broker_timeout_s, settings.broker_timeout_s, on_change)
    publisher = Publisher(
        name,
        keys,
        lane,
        clock,
        Pace(settings.gather_s, settings.gather_max_s),
        retention_of(settings),
        metrics,
        timeout_s=settings.publish_timeout_s,
        entries_max=settings.publish_queue_entries_max,
        bytes_max=settings.publish_queue_bytes_max,
    )
    tasks = [asyncio.create_task(work) for work in (lane.run(), clock.run(), publisher.run(), publisher.expire())]
    try:
        yield Orders(name, keys, lane, publisher, settings)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await endpoint.close()
