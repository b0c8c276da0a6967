"""The connections of this node: how many may come, who is in, how all are sent away. Handshakes are ws.py's."""

import asyncio
import random
import time
from collections.abc import Collection

from gateway.auth import denied
from gateway.core.closes import Close
from gateway.core.wires import DURABLE, SSE, WIRES
from gateway.edge.callers import Callers
from gateway.edge.context import Context
from gateway.edge.expulsion import Expulsion
from gateway.edge.listener import Listener
from gateway.edge.visits import Visits
from gateway.edge.wheel import Wheel

# A v1 client told to reconnect comes back within so many seconds after its close: enough to spread a whole node.
RECONNECT_AFTER_MAX_S = 2.0
# How often the connections with sessions behind, and the HTTP connections, are looked at.
LOOK_S = 1.0
# HTTP connections of the public port beside as many WebSockets as may be: to answer pages, /healthz and 503s.
VISITS_SPARE = 128


class Edge:
    """The connections of this node."""

    def __init__(self, context: Context, connections_max: int) -> None:
        self.context = context
        self.settings = context.settings
        self.metrics = context.metrics
        self.metrics.known("handshakes_refused", denied.REASONS)
        self.metrics.known("closes", (close.label for close in Close))
        self.metrics.known("connections", (wire.name for wire in (*WIRES, SSE, DURABLE)))
        self.hub = context.hub
        self.connections_max = connections_max
        self.callers = Callers(context.settings)
        self.wheel = Wheel(context.settings, context.clock, context.metrics)
        self.expulsion = Expulsion(context, self.wheel)
        # WebSockets, event streams, long polls. Handshakes under way count: the limit must hold in a connect storm too.
        self.connections = 0
        # Of these, those whose socket is HTTP's no more.
        self.taken_over = 0
        # Those under way, by their deadlines: they wait for the broker. And long polls, which wait for a message.
        self.entering: set[asyncio.Timeout] = set()
        self.draining = False
        # One object for all of them.
        self._gone = self._farewell
        self._emptied = asyncio.Event()

    # ---- who may come in ----

    @property
    def overloaded(self) -> bool:
        return self.connections >= self.connections_max

    def visits_max(self) -> int:
        """HTTP connections that the public port may have now: those of `connections` included that are still HTTP's."""
        return self.connections_max + VISITS_SPARE - self.taken_over

    # ---- who is in ----

    def tune(self, transport: asyncio.Transport) -> None:
        """Say when a socket that does not take what it is sent is full and when it is not, by the outgoing bound."""
        low = self.settings.outgoing_bytes_max // 16
        transport.set_write_buffer_limits(high=low * 4, low=low)

    def welcome(self, connection: Listener) -> None:
        """Take a connection whose answer is written. It counts, and is looked after, until its socket is closed."""
        self.metrics.handshakes += 1
        self.taken_over += 1
        self.tune(connection.transport)
        self.wheel.add(connection)
        self.metrics.connections[connection.wire.name] += 1
        connection.log("CONNECT", connection.path, connection.peer)
        connection.gone = self._gone
        connection.end_in_time()

    def _farewell(self, connection: Listener) -> None:
        """The one line that says how a connection was."""
        self.wheel.remove(connection)
        self.taken_over -= 1
        self.went()
        close = connection.closing or Close.LOST
        self.metrics.closes[close.label] += 1
        self.metrics.connections[connection.wire.name] -= 1
        connection.log(
            "DISCONNECT",
            connection.path,
            connection.peer,
            session=connection.id,
            room=connection.room,
            rooms=connection.entered,
            wire=connection.wire.name,
            reason=close.label,
            seconds=round(time.monotonic() - connection.opened_at, 3),
            frames_in=connection.received,
            bytes_in=connection.received_bytes,
            frames_out=connection.sent_entries,
            bytes_out=connection.sent_bytes,
        )

    async def end_stalled(self, ports: Collection[Visits]) -> None:
        """End, until cancelled, the connections with sessions behind and the HTTP ones of `ports` that stand still."""
        while True:
            await asyncio.sleep(LOOK_S)
            for visits in ports:
                visits.cut_stalled()
            behind = {session.connection for room in self.hub.rooms.values() for session in room.behind}
            self.wheel.judge_stalled(behind)

    # ---- how all are sent away ----

    async def drain(self, drain_s: float) -> None:
        """Send every client away, spread over `drain_s` in random order. Who is not in yet is refused from now on."""
        self.draining = True
        for deadline in self.entering:
            if not deadline.expired():
                deadline.reschedule(asyncio.get_running_loop().time())
        connections = self.wheel.connections()
        random.shuffle(connections)
        started_at = time.monotonic()
        for done, connection in enumerate(connections):
            ahead_s = started_at + drain_s * done / len(connections) - time.monotonic()
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)
            connection.go_away(random.uniform(0, RECONNECT_AFTER_MAX_S))

    async def empty(self) -> None:
        """Wait until everybody is gone."""
        while self.connections:
            self._emptied.clear()
            await self._emptied.wait()

    def came(self) -> None:
        """A handshake begins."""
        self.connections += 1

    def went(self) -> None:
        """A handshake failed, or a connection is gone."""
        self.connections -= 1
        if not self.connections:
            self._emptied.set()
