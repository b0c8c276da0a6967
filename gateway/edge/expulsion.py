"""Whom an order names is put out: the connections of this node, looked through when one is heard.

That nobody comes back while it stands is the door's business, and that of who joins (broker/control.py, `bars`).
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence

from gateway.core.closes import Close
from gateway.core.names import RoomName
from gateway.core.orders import Issued, Kick, Order, Target, Token
from gateway.edge.context import Context
from gateway.edge.listener import Listener
from gateway.edge.wheel import Wheel

# Seconds between two rounds: orders that come in crowds are done together.
ROUND_EVERY_S = 0.1
# Connections looked at, and put out, in one turn of the loop: a millisecond or two. Then everybody else goes first.
LOOKED_AT_PER_TURN = 512
ENDED_PER_TURN = 32


class Expulsion:
    """One per node. Costs nothing while nobody is to be put out."""

    def __init__(self, context: Context, wheel: Wheel) -> None:
        self._control = context.broker.control
        self._watchers = context.watchers
        self._wheel = wheel
        self._keep = context.keep
        self._metrics = context.metrics
        self._heard: list[Order] = []
        # Whether everybody has to be looked at, by all that stands.
        self._all = False
        self._going = False
        self._control.on_orders = self.hear

    def hear(self, heard: Sequence[Order] | None) -> None:
        """Orders of the log; None: what stands was read anew."""
        if heard is None:
            self._all |= len(self._control.standing) > 0
        else:
            self._heard += [order for order in heard if not order.lifted]
        if (self._all or self._heard) and not self._going:
            self._going = True
            self._keep("expulsion", self._run())

    async def _run(self) -> None:
        try:
            while self._all or self._heard:
                heard, self._heard = self._heard, []
                everybody, self._all = self._all, False
                await self._go_round(heard, everybody)
                await asyncio.sleep(ROUND_EVERY_S)
        finally:
            self._going = False

    async def _go_round(self, heard: Sequence[Order], everybody: bool) -> None:
        targets = [order.target for order in heard]
        users = {target.user for target in targets if isinstance(target, Kick | Issued)}
        tokens = {target.id for target in targets if isinstance(target, Token)}
        everybody |= "" in users
        kicks = {order.target: order.given / 1000 for order in heard if isinstance(order.target, Kick)}
        rooms = _rooms((*targets, *self._control.standing.until) if everybody else targets)
        ended = 0
        for at, connection in enumerate(self._wheel.connections(), 1):
            grant = connection.grant
            if everybody or grant.user.id in users or grant.token_id in tokens:
                ended += self._judge(connection, kicks, rooms.get(grant.user.id, ()))
            if at % LOOKED_AT_PER_TURN == 0 or ended >= ENDED_PER_TURN:
                ended = 0
                await asyncio.sleep(0)

    def _judge(self, connection: Listener, kicks: Mapping[Kick, float], rooms: Collection[RoomName]) -> int:
        """How many sessions and connections were ended. `kicks`: those just heard, and when they were given, Unix ms:
        they count also where they are over by now, for who was there then. `rooms`: of which its user may be put out.
        """
        if connection.closing is not None:
            return 0
        user, came_ms = connection.user.id, connection.opened_at_ms(self._control.now_ms())
        close = self._control.bars(connection.grant)
        if close is None and kicks.get(Kick(user), 0) > came_ms:
            close = Close.KICKED
        if close is not None:
            connection.end(close)
            self._metrics.put_out += 1
            return 1
        ended = 0
        for name in rooms:
            kicked = self._control.bars(connection.grant, name) or kicks.get(Kick(user, name), 0) > came_ms
            if kicked and connection.closing is None:
                self._watchers.unwatch(connection, (name,))
                if name in connection.sessions:
                    connection.dismiss(connection.sessions[name], Close.KICKED)
                    ended += 1
        self._metrics.put_out += ended
        return ended


def _rooms(targets: Iterable[Target]) -> Mapping[str, Collection[RoomName]]:
    """Of which each user is put out."""
    rooms: dict[str, set[RoomName]] = {}
    for target in targets:
        if isinstance(target, Kick) and target.room:
            rooms.setdefault(target.user, set()).add(RoomName(target.room))
    return rooms
