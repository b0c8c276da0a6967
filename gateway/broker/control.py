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

import structlog

from gateway.broker import refusals
from gateway.broker.deletions import Deletions
from gateway.broker.errors import BrokerGone, BrokerRefused
from gateway.broker.feed import Feed
from gateway.broker.orders import Orders
from gateway.core.closes import Close
from gateway.core.deletions import BadDeletion, Lately, News, is_deletion
from gateway.core.deletions import decode as decode_deletion
from gateway.core.entry import Entry, EntryId, Gap
from gateway.core.orders import KINDS, BadOrder, Order, Standing, began, decode
from gateway.core.user import Grant
from gateway.settings.model import Settings
from gateway.telemetry.logs import ORDER
from gateway.telemetry.metrics import Metrics

log = structlog.get_logger()


class Control:
    """Follower of the control log, which is `feed`."""

    def __init__(
        self,
        key: bytes,
        orders: Orders,
        deletions: Deletions,
        offset_s: Callable[[], float],
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        """`offset_s`: the broker's clock less ours."""
        self.feed = Feed(key, self, settings.message_bytes_max)
        self.orders = orders
        self.standing = Standing()
        # For who puts people out: what was heard; None: whatever stands.
        self.on_orders: Callable[[Sequence[Order] | None], None] = lambda heard: None
        # What was deleted as long ago as a client may have been away; and for who tells it: news, or None: some was
        # missed, and the logs have to be asked.
        self.lately = Lately()
        self.on_deleted: Callable[[News | None], None] = lambda news: None
        self._deletions = deletions
        # The one that has all of it, for all this node knows.
        self._server = b""
        self._deleted_s = settings.retention_s
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
        self._doubted = asyncio.Event()
        self._sure = asyncio.Event()

    # ---- questions ----

    async def known(self) -> None:
        """Wait until this node knows all that stands; at once while nothing speaks against it."""
        await self._sure.wait()

    def doubt(self) -> None:
        """Something may have gone unheard: look, and let nobody in before."""
        self._sure.clear()
        self._doubted.set()

    def bars(self, grant: Grant, room: str = "") -> Close | None:
        """Why nobody with this grant may be in a room, "": in any; None: nothing is against it.

        A token that does not say when it was issued is older than whatever is asked. Who has no name can't be named,
        and what a guest has is no token.
        """
        user = grant.user.id
        if not self.standing.until or not user:
            return None
        now_ms, issued_ms = self.now_ms(), (grant.issued_at or 0.0) * 1000
        if not grant.user.guest and self.standing.revoked(user, grant.token_id, issued_ms, now_ms):
            return Close.EXPIRED
        return Close.KICKED if self.standing.kicked(user, room, now_ms) else None

    def now_ms(self) -> float:
        """By the broker's clock."""
        return (time.time() + self._offset_s()) * 1000

    # ---- what the log says ----

    def deliver(self, entries: list[Entry]) -> None:
        heard = list[Order]()
        for entry in entries:
            if is_deletion(entry.message):
                self._hear_deletion(entry)
            elif (order := self._order(entry)) is not None:
                heard.append(order)
        for order in heard:
            self._stamp = order.stamp
            self._metrics.orders[KINDS[type(order.target)]] += 1
            if order.by:
                self.standing.take(order)
                log.info(ORDER, **_told(order))
            else:  # given again by a node, and perhaps told late
                self.standing.merge((order,))
        if self._lost:
            self.doubt()
        self.on_orders([order for order in heard if self.standing.orders[order.target] is order])

    def lose(self, gap: Gap) -> None:
        self._metrics.gaps += 1
        self._fell_off = True
        self.doubt()
        self.on_deleted(None)

    def recent(self) -> Collection[EntryId]:
        return ()

    def _order(self, entry: Entry) -> Order | None:
        try:
            return decode(entry.message)
        except BadOrder as exc:  # a later version's, or a stranger's
            self._nonsense(entry, exc)
            return None

    def _hear_deletion(self, entry: Entry) -> None:
        try:
            news = decode_deletion(entry.message)
        except BadDeletion as exc:
            self._nonsense(entry, exc)
            return
        self._metrics.deletions_heard += 1
        if news.by:  # else it is deleted again
            log.info(
                ORDER,
                kind="deletion",
                room=news.room,
                ids=len(news.ids),
                up_to=str(news.up_to),
                gone=news.gone,
                by=news.by,
            )
        self.lately.take(news)
        self.on_deleted(news)

    def _nonsense(self, entry: Entry, exc: Exception) -> None:
        self._metrics.nonsense["order"] += 1
        refusals.puzzle("order", self.feed.key, f"{exc}: ".encode() + entry.message)

    # ---- what the set says ----

    async def load(self) -> None:
        """Know what stands, and what was deleted lately; the log is followed. Raises BrokerGone, BrokerRefused."""
        await self._read()
        for news in await self._deletions.recent(self.now_ms() - self._deleted_s * 1000):
            self.lately.take(news)
        self._sure.set()

    async def run(self) -> None:
        """Look every sweep_s, or when in doubt, whether what is known is all; until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._look_s):
                    await self._doubted.wait()
            self._doubted.clear()
            try:
                await self._look()
                if not self._doubted.is_set():
                    self._sure.set()
            except BrokerGone:  # others tell
                await self.orders.up()
                self._doubted.set()
            except BrokerRefused as exc:
                refusals.tell(str(exc))

    @property
    def _lost(self) -> bool:
        """Whether the broker may have lost what this node knows."""
        return self.feed.numbered != self._numbered or began(self._stamp) != self._began

    async def _look(self) -> None:
        self.standing.end(self.now_ms())
        self.lately.end(self.now_ms() - self._deleted_s * 1000)
        if self._lost or self._deletions.server != self._server:
            await self._delete_again()
        if self._fell_off or self._lost or await self.orders.stamp() != self._stamp:
            await self._read()

    async def _delete_again(self) -> None:
        """The broker is another, or was set back, and may have lost what was deleted last."""
        server, again = self._deletions.server, 0
        try:
            for news in self.lately.all():
                again += await self._deletions.again(news)
            self._server = server
        except BrokerRefused as exc:  # no reason to let nobody in: it is tried again at the next look
            refusals.tell(str(exc))
        if again:
            self._metrics.deleted_again += again
            log.warning("the broker had lost deletions: deleted again", messages=again)

    async def _read(self) -> None:
        """Learn what the broker knows, and teach it what it does not."""
        numbered, self._fell_off, self._stamp = self.feed.numbered, False, ""
        try:
            stamp, orders = await self.orders.standing()
            missing = self.standing.merge(orders)
            self.standing.end(self.now_ms())
            self._metrics.standing_read += 1
            given = await self.orders.give_again(missing)
        except BaseException:
            self._fell_off = True
            raise
        if given:
            self._metrics.orders_given_again += given
            log.warning("the broker had lost orders: given again", orders=given)
        # What was heard meanwhile may be newer than what was read.
        self._stamp, self._began, self._numbered = self._stamp or stamp, began(stamp), numbered
        self.on_orders(None)


def _told(order: Order) -> dict[str, object]:
    target = order.target
    fields = {name: value for name in target.__struct_fields__ if (value := getattr(target, name)) != ""}
    until = None if order.lifted else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(order.until / 1000))
    return {"kind": KINDS[type(target)], **fields, "until": until, "by": order.by}
