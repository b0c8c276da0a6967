"""What one client sends: read in small pieces, charged frame by frame, served as fast as its bounds allow.

A client that is too fast is slowed down: what may not be served yet waits here, at most one read of it, and its socket
is not read meanwhile, so that TCP slows the sender. The same way waits who has its window full.
"""

import asyncio
import fcntl
import sys
import termios
import time
from typing import TYPE_CHECKING

import structlog

from gateway.core import frames
from gateway.core.bucket import TokenBucket
from gateway.core.closes import Close
from gateway.core.inbound import Broken, Frame, Inbound, Opcode
from gateway.edge.context import Context
from gateway.edge.mask import unmask

if TYPE_CHECKING:
    from gateway.edge.connection import Connection

# What is read of a socket at once; behind a second one like it, it goes on in a later turn of the loop: most full reads
# are the beginning of one long message, whose rest is worth no turn and no task.
READ_BYTES = 16_384
# Frames served in one turn of the loop: half a millisecond.
TURN_FRAMES = 64
# A timer of the loop may be so much early.
TIMER_S = 0.002
# What comes in so soon after a socket is read again may have waited for that, on the client's side too.
BACKLOG_S = 0.1

log = structlog.get_logger()


class Intake:
    """Made when its client first speaks: most only listen."""

    __slots__ = (
        "_backlog_until", "_bucket", "_connection", "_context", "_flood_s", "_holding", "_inbound", "_joins",
        "_once_more", "_pong",
    )  # fmt: skip

    def __init__(self, connection: "Connection", context: Context) -> None:
        settings = context.settings
        self._connection = connection
        self._context = context
        self._inbound = Inbound(settings.message_bytes_max, connection.wire.deflates, unmask)
        # None: no limit.
        self._bucket: TokenBucket | None = None
        if settings.messages_per_s:
            self._bucket = TokenBucket(settings.messages_per_s, settings.messages_burst, connection.opened_at)
        # What joins cost; None: nobody joined yet, or no limit.
        self._joins: TokenBucket | None = None
        # Whether the last read was full, and all of it served: the next one may come in the same turn.
        self._once_more = False
        # Until when what comes in may have waited until this socket was read again.
        self._backlog_until = 0.0
        # Seconds in a row that this client was slowed down while more than a read of it waited to be read.
        self._flood_s = 0.0
        # The payload of the last ping that is not answered yet.
        self._pong: bytes | None = None
        # While something of this client waits, and its socket is not read: who sees to it.
        self._holding: asyncio.Task[None] | None = None

    @property
    def held(self) -> bool:
        """Whether something of this client waits, and its socket is not read."""
        return self._holding is not None

    def take(self, data: bytes | bytearray) -> None:
        """Serve what was read, now or as soon as it may be served."""
        # The world's clock, not the node's.
        now = time.monotonic()
        if self._context.clock.looked_at > self._backlog_until:
            if self._bucket is not None:
                self._bucket.rest(self._context.clock.awake_at(now))
            if self._joins is not None:
                self._joins.rest(self._context.clock.awake_at(now))
        full = len(data) >= READ_BYTES
        if not full:
            self._flood_s = 0.0  # a break: no more waited
        self._inbound.feed(data)
        served = self._serve()
        self._once_more = full and served and not self._once_more
        if self._connection.closing is None and not self._once_more and (full or not served):
            self._connection.stop_reading()
            self._holding = self._context.keep(f"intake {self._connection.id}", self._hold())
            self._holding.add_done_callback(self._held)

    def end(self) -> None:
        """The client says no more, or nobody listens: what waits is of no interest. Idempotent."""
        holding, self._holding = self._holding, None
        if holding is not None:
            holding.cancel()

    async def _hold(self) -> None:
        """Serve the rest as it may be served, then read on."""
        await asyncio.sleep(0)  # the others' turn
        while not self._serve():
            await self._wait()
        self._holding = None
        self._backlog_until = time.monotonic() + BACKLOG_S
        self._connection.read_on()

    def _held(self, task: "asyncio.Task[None]") -> None:
        """A hold that failed is a bug, and logged; its client would never be read again, nor pinged."""
        if not task.cancelled() and task.exception() is not None:
            self._connection.end(Close.ERROR)

    def _serve(self) -> bool:
        """Serve what may be served in one turn. True: nothing is left, or it is of no interest any more."""
        connection, inbound = self._connection, self._inbound
        try:
            for _ in range(TURN_FRAMES):
                if connection.closing is not None or not inbound.waits:
                    return True
                if self._must_wait():
                    return False
                frame = inbound.next()
                if frame is None:
                    return True
                self._charge(frame)
                if frame.opcode is Opcode.PING:
                    self._pong = frame.payload
                else:
                    connection.hear(frame)
        except Broken as exc:
            connection.end(exc.close, exc.args[0])
            return True
        except Exception:
            log.exception("a client could not be served", session=connection.id)
            connection.end(Close.ERROR)
            return True
        finally:
            if self._pong is not None:
                self.answer_ping()
        return False

    def answer_ping(self) -> None:
        """One pong per read, or per part of a read that has to wait (§5.5.3)."""
        pong, self._pong = self._pong, None
        if pong is not None and self._connection.closing is None:
            self._connection.write(frames.pong(pong))

    def _charge(self, frame: Frame) -> None:
        """Every frame costs a token, also one that says nothing; a long one as many as it is long."""
        if self._bucket is not None:
            weight = frame.size / self._context.settings.message_weight_bytes
            self._bucket.take(weight if weight > 1 else 1)

    def charge_join(self) -> None:
        """A join costs one of its own tokens, and no message's: who comes back joins all its rooms at once."""
        settings = self._context.settings
        if self._bucket is not None:
            self._bucket.give_back(1)
        if self._joins is None and settings.joins_per_s:
            self._joins = TokenBucket(settings.joins_per_s, settings.rooms_per_connection_max, time.monotonic())
        if self._joins is not None:
            self._joins.take(1)

    # ---- what it has to wait for ----

    def _must_wait(self) -> bool:
        context, connection = self._context, self._connection
        return (
            self._too_fast_s() > 0
            or (connection.requests is not None and connection.requests.full)
            or connection.in_flight >= context.settings.publish_window
            or context.broker.publisher.full(connection.id)
            # Answers to somebody who sends and never reads must not pile up.
            or connection.waiting_bytes() > context.settings.outgoing_bytes_max
        )

    async def _wait(self) -> None:
        """Wait for the first of the bounds that is reached; if none is, for the others' turn."""
        context, connection = self._context, self._connection
        if connection.in_flight >= context.settings.publish_window:
            context.metrics.window_full += 1
            await connection.window()
        elif context.broker.publisher.full(connection.id):
            await context.broker.publisher.space(connection.id)
        elif connection.waiting_bytes() > context.settings.outgoing_bytes_max:
            await connection.drained()
        elif connection.requests is not None and connection.requests.full:
            await connection.requests.space()
        elif (wait_s := self._too_fast_s()) > 0:
            await self._slow_down(wait_s)
        else:
            await asyncio.sleep(0)

    def _too_fast_s(self) -> float:
        """Seconds until there is a token; 0.0: there is one."""
        if self._bucket is None and self._joins is None:
            return 0.0
        now = time.monotonic()
        wait_s = 0.0 if self._bucket is None else self._bucket.wait_s(now)
        return wait_s if self._joins is None else max(wait_s, self._joins.wait_s(now))

    async def _slow_down(self, wait_s: float) -> None:
        """The rate is used up. Who makes no pause at all, with more than a read waiting, is sent away in the end."""
        self._flood_s = self._flood_s + wait_s if _unread_bytes(self._connection.transport) > READ_BYTES else 0.0
        if self._flood_s > self._context.settings.flood_s:
            self._connection.end(Close.RATE)
            return
        self._context.metrics.slowed += 1
        await asyncio.sleep(wait_s + TIMER_S)


def _unread_bytes(transport: asyncio.Transport) -> int:
    """What the kernel has of a socket and nobody read: FIONREAD (ioctl_list(2)); 0 of a socket that is closed."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return 0
    return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.FIONREAD, bytes(4)), sys.byteorder)
