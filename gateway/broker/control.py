"""The control log: what all nodes must hear. This node's cursor on it, and what stands by what was heard.

It is a log as any room's: followed by the same reader, doorbell and sweep, so that a node that was cut off goes on
where it was. What stands lies in a set beside it, with an expiry; a node reads that whole where the log cannot tell it:
when it starts, when it fell off the log, and when the two do not agree. What the broker lost and this node knows is
given again.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import NamedTuple

import structlog

from gateway.broker import refusals
from gateway.broker.errors import BrokerGone, BrokerRefused
from gateway.broker.feed import Feed
from gateway.broker.orders import Orders
from gateway.config import Settings
from gateway.core.entry import Entry, EntryId, Gap
from gateway.core.orders import KINDS, BadOrder, Order, Standing, began, decode
from gateway.metrics import Metrics

log = structlog.get_logger()


class Heard(NamedTuple):
    """An order, and when it was given: Unix ms by the broker's clock."""

    order: Order
    at_ms: int


class Control:
    """Follower of the control log, which is `feed`."""

    def __init__(
        self, key: bytes, orders: Orders, offset_s: Callable[[], float], settings: Settings, metrics: Metrics
    ) -> None:
        """`offset_s`: the broker's clock less ours."""
        self.feed = Feed(key, self, settings.message_bytes_max)
        self.orders = orders
        self.standing = Standing()
        # For who puts people out: what was heard; None: whatever stands.
        self.on_orders: Callable[[Sequence[Heard] | None], None] = lambda heard: None
        self._offset_s = offset_s
        self._look_s = settings.sweep_s
        self._metrics = metrics
        metrics.known("orders", KINDS.values())
        metrics.known("nonsense", ("order",))
        # Of the broker's set, as far as this node knows what is in it; "": there was none.
        self._stamp = ""
        # Which set that was when it was last read, and how many seams its log had: behind another one, something of
        # what is known here may be lost there.
        self._began, self._numbered = "", 0
        # The log went on without this node.
        self._fell_off = False
        # What is heard while the set is read: it may not be in the answer.
        self._meanwhile: list[Order] | None = None
        self._doubted = asyncio.Event()

    # ---- questions ----

    def now_ms(self) -> float:
        """By the broker's clock."""
        return (time.time() + self._offset_s()) * 1000

    # ---- what the log says ----

    def deliver(self, entries: list[Entry]) -> None:
        heard = [Heard(order, entry.at) for entry in entries if (order := self._order(entry)) is not None]
        for order, _ in heard:
            self.standing.take(order)
            self._stamp = order.stamp
            self._metrics.orders[KINDS[type(order.target)]] += 1
            log.info("order", **_told(order))
        if self._meanwhile is not None:
            self._meanwhile += [order for order, _ in heard]
        if self._lost:
            self._doubted.set()
        self.on_orders(heard)

    def lose(self, gap: Gap) -> None:
        self._metrics.gaps += 1
        self._fell_off = True
        self._doubted.set()

    def recent(self) -> Collection[EntryId]:
        return ()

    def _order(self, entry: Entry) -> Order | None:
        try:
            return decode(entry.message)
        except BadOrder as exc:  # a later version's, or a stranger's
            self._metrics.nonsense["order"] += 1
            refusals.puzzle("order", self.feed.key, f"{exc}: ".encode() + entry.message)
            return None

    # ---- what the set says ----

    @property
    def _lost(self) -> bool:
        """Whether the broker may have lost what this node knows."""
        return self.feed.numbered != self._numbered or began(self._stamp) != self._began

    async def load(self) -> None:
        """Know what stands; the log is followed already. Raises BrokerGone, BrokerRefused."""
        await self._read(lost=False)

    async def run(self) -> None:
        """Look every sweep_s, or when in doubt, whether what is known is all; until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._look_s):
                    await self._doubted.wait()
            self._doubted.clear()
            try:
                await self._look()
            except BrokerGone:  # others tell
                await self.orders.up()
                self._doubted.set()
            except BrokerRefused as exc:
                refusals.tell(str(exc))

    async def _look(self) -> None:
        self.standing.end(self.now_ms())
        stamp = await self.orders.stamp()
        if stamp != self._stamp or self._fell_off or self._lost:
            await self._read(lost=self._lost or began(stamp) != self._began)

    async def _read(self, lost: bool) -> None:
        """`lost`: the broker may have lost some of what this node knows."""
        numbered, self._fell_off, self._meanwhile = self.feed.numbered, False, []
        try:
            stamp, orders = await self.orders.standing()
            known, self.standing = self.standing, Standing([*orders, *self._meanwhile])
            self._stamp = self._meanwhile[-1].stamp if self._meanwhile else stamp
        except BaseException:
            self._fell_off = True
            raise
        finally:
            self._meanwhile = None
        self._metrics.standing_read += 1
        if lost:
            await self._restore(known)
        self._began, self._numbered = began(stamp), numbered
        self.standing.end(self.now_ms())
        self.on_orders(None)

    async def _restore(self, known: Standing) -> None:
        """What was known and is gone goes on to stand here, and is given again for all others."""
        missing = [Order(target, until) for target, until in known.until.items() if target not in self.standing.until]
        for order in missing:
            self.standing.take(order)
        given = await self.orders.give_again(missing)
        if given:
            self._metrics.orders_given_again += given
            log.warning("the broker had lost orders: given again", orders=given)


def _told(order: Order) -> dict[str, object]:
    target = order.target
    fields = {name: value for name in target.__struct_fields__ if (value := getattr(target, name)) != ""}
    until = None if not order.until else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(order.until / 1000))
    return {"kind": KINDS[type(target)], **fields, "until": until, "by": order.by}
