"""How an order is given: written into the set of those that stand, then said in the control log, so that who hears of
it finds it there. Used by nodes, and by commands that have no node.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import msgspec

from gateway.broker import refusals
from gateway.broker.connection import Arg
from gateway.broker.endpoint import Endpoint
from gateway.broker.errors import BrokerGone, BrokerRefused
from gateway.broker.keys import Keys
from gateway.broker.lane import Lane
from gateway.broker.publish import Refusal
from gateway.broker.publisher import Publisher
from gateway.broker.script import Script
from gateway.core.entry import Entry
from gateway.core.entry import decode as decode_entry
from gateway.core.orders import BadOrder, Order, Target, decode_target, encode
from gateway.core.wires import Ref
from gateway.settings.model import Settings
from gateway.telemetry.clock import Clock
from gateway.telemetry.metrics import Metrics

# Orders in one call: a millisecond of the broker.
ORDERS_PER_CALL = 256
# Orders read in one turn of the loop: a millisecond or two. Then everybody else goes first.
ORDERS_PER_TURN = 512
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
        self._sets = keys.standing, keys.given
        self._lane = lane
        self._publisher = publisher
        self._orders_max = settings.orders_max
        self._script = Script("order", lane)

    async def give(self, target: Target, until_ms: int | None, for_s: float = 0.0, by: str = "") -> Given:
        """From now on it stands: until then, or where that is None for so long from now.

        What was ordered about the same target before counts no more. Over a lost connection it is tried again: the
        caller brings a deadline. Raises NoSpace.
        """
        return await self._give(target, f"+{int(for_s * 1000)}" if until_ms is None else str(until_ms), by)

    async def lift(self, target: Target, by: str = "") -> Given:
        """As `give`: from now on nothing stands against it."""
        return await self._give(target, "-", by)

    async def _give(self, target: Target, lasts: str, by: str) -> Given:
        while True:
            await self._lane.up()
            try:
                stamp, ((until, given),) = await self._write([(target, lasts, 0)])
                break
            except BrokerGone:  # whether it was written or not: written twice, it is the same
                continue
        if until == b"!":
            raise NoSpace(
                f"{self._orders_max} orders stand (orders_max): wait for some to end, or revoke everybody's tokens: "
                "that is one order"
            )
        order = Order(target, int(until), abs(int(given)), lasts == "-", stamp, by or self._by)
        return Given(order, await self.say(encode(order)))

    async def give_again(self, orders: Sequence[Order]) -> int:
        """Give these, where the broker has none about their targets, or only older ones: it lost them. How many."""
        lost: list[Order] = []
        for at in range(0, len(orders), ORDERS_PER_CALL):
            part = orders[at : at + ORDERS_PER_CALL]
            known = [(one.target, str(one.until), -one.given if one.lifted else one.given) for one in part]
            stamp, lines = await self._write(known)
            for one, (until, _) in zip(part, lines, strict=True):
                if until not in (b"", b"!"):
                    lost.append(msgspec.structs.replace(one, stamp=stamp, by=""))
            if any(until == b"!" for until, _ in lines):
                refusals.complain("orders that it lost find no space among those that stand: raise orders_max")
        await asyncio.gather(*(self.say(encode(order)) for order in lost))
        return len(lost)

    async def up(self) -> None:
        """Wait until the broker can be asked."""
        await self._lane.up()

    async def stamp(self) -> str:
        """Of the set as it is now: another one after each order. "": there is no set."""
        return _stamp_of(await self._lane.ask_master("ZRANGE", self._sets[0], -1, -1))

    async def standing(self) -> Stands:
        """All that has not ended, and perhaps some that has."""
        replies = await self._lane.ask_master_all([("ZRANGE", key, 0, -1, "WITHSCORES") for key in self._sets])
        for reply in replies:
            if isinstance(reply, BrokerRefused):
                raise reply
        ends, given = replies[0], dict(replies[1])
        orders: list[Order] = []
        for at, (member, until) in enumerate(ends, 1):
            if at % ORDERS_PER_TURN == 0:
                await asyncio.sleep(0)
            if member.startswith(STAMP):
                continue
            try:
                at_us = int(given.get(member, 0))  # 0: that set was evicted
                orders.append(Order(decode_target(member), int(until), abs(at_us), at_us < 0))
            except (BadOrder, OverflowError, ValueError):  # a later version's, or a stranger's
                refusals.puzzle("order", self._sets[0], member)
        return Stands(_stamp_of([member for member, _ in ends[-1:]]), orders)

    async def _write(self, orders: Sequence[tuple[Target, str, int]]) -> tuple[str, list[tuple[bytes, bytes]]]:
        """Per order its target, until when, and when it was given; 0: now. See order.lua for the answers."""
        flat: list[Arg] = []
        for target, lasts, given in orders:
            flat += (encode(target), lasts, given or "")
        stamp, *lines = await self._script.ask(self._sets, self._orders_max, *flat)
        return stamp.decode(), list(zip(lines[::2], lines[1::2], strict=True))

    async def lately(self, count: int) -> list[Entry]:
        """The newest of the control log, the newest first. Those that can't be read are left out."""
        found = await self._lane.ask_master("XREVRANGE", self._log, "+", "-", "COUNT", count)
        entries = (decode_entry(*line) for line in found)
        return [entry for entry in entries if isinstance(entry, Entry)]

    async def say(self, word: bytes) -> Refusal | None:
        """Append something to the control log, for all nodes; why that could not be, None: it is there."""
        said: asyncio.Future[Refusal | None] = asyncio.get_running_loop().create_future()

        def answered(outcome: bytes | Refusal, ref: Ref) -> None:
            if not said.done():
                said.set_result(outcome if isinstance(outcome, Refusal) else None)

        while self._publisher.full(self._by):
            await self._publisher.space(self._by)
        self._publisher.offer(self._log, self._by, b"", word, None, answered)
        return await said


def _stamp_of(last: Sequence[object]) -> str:
    """Of the set's highest member."""
    if last and isinstance(last[0], bytes) and last[0].startswith(STAMP):
        return last[0][len(STAMP) :].decode(errors="replace")
    return ""


class Road(NamedTuple):
    """What somebody who has no node speaks to the broker by."""

    name: str
    keys: Keys
    lane: Lane
    publisher: Publisher


@asynccontextmanager
async def without_a_node(
    url: str, settings: Settings, on_change: Callable[[str, str | None], None]
) -> AsyncIterator[Orders]:
    """For a command: a connection of its own, which ends with it. `on_change`: as of Lane."""
    async with road_of_its_own(url, settings, on_change) as road:
        yield Orders(*road, settings)


@asynccontextmanager
async def road_of_its_own(
    url: str, settings: Settings, on_change: Callable[[str, str | None], None]
) -> AsyncIterator[Road]:
    """As `without_a_node`, for whatever a command does."""
    # As no other's: publish.lua takes calls of one name and number for one.
    name = f"command-{secrets.token_hex(6)}"
    endpoint, metrics, clock = Endpoint(url, settings.broker_timeout_s), Metrics(), Clock()
    keys = Keys(settings.key_prefix, endpoint.db)
    lane = Lane("publish", name, endpoint, settings.broker_timeout_s, settings.broker_timeout_s, on_change)
    publisher = Publisher(name, keys, lane, clock, settings, metrics)
    tasks = [asyncio.create_task(work) for work in (lane.run(), clock.run(), publisher.run(), publisher.expire())]
    try:
        yield Road(name, keys, lane, publisher)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await endpoint.close()
