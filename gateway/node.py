"""One gateway node, put together. Read top to bottom, this is the road of a message:

browser → edge.connection → rooms.hub.publish → broker.publisher → Redis (publish.lua: XADD + doorbell)
        → broker.doorbell → broker.reader (XREADGROUP) → rooms.room.deliver → the sockets
"""

import asyncio
import gc
import platform
import resource
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry

from gateway import __version__
from gateway.auth.auth import Auth
from gateway.broker.broker import Broker
from gateway.broker.publish import Refusal
from gateway.edge.app import Door, ops_app, public_app
from gateway.edge.context import Context
from gateway.edge.edge import VISITS_SPARE, Edge
from gateway.process import ports
from gateway.process.drain import drain
from gateway.process.ports import BACKLOG, PortTaken
from gateway.rooms.hub import Hub
from gateway.rooms.presence import Presence
from gateway.rooms.readers import Readers
from gateway.rooms.watch import Watchers
from gateway.settings.model import NODE_BROKER_URL, Settings
from gateway.site.publishing import PublishHook
from gateway.telemetry import logs, metrics
from gateway.telemetry.clock import Clock

# Python's own collector walks every connection again and again: half of the CPU in small rooms. Rarely is enough.
GC_THRESHOLDS = (50_000, 20, 50)
CONNECTIONS_MAX = 15_000
# HTTP connections of the ops port: probes and scrapes, which come and go, and the pools of those who use the API.
OPS_VISITS_MAX = 256
# Descriptors that are no WebSocket's: HTTP connections of both ports, and 96 for listeners, broker, files.
DESCRIPTORS_SPARE = VISITS_SPARE + OPS_VISITS_MAX + 96

log = structlog.get_logger()


class Node:
    """Everything that one process owns, and the one map of its tasks."""

    def __init__(self, settings: Settings, id: str) -> None:
        self.id = id
        self.settings = settings
        self.metrics = metrics.Metrics()
        self.clock = Clock(self.metrics.loop_lag.observe)
        url = settings.broker_url or NODE_BROKER_URL
        self.broker = Broker(id, url, settings, self.clock, self.metrics)
        self.hub = Hub(self.broker, settings, self.metrics, self.keep)
        self.watchers = Watchers(self.broker.tops, settings, self.metrics)
        self.readers = Readers(self.broker.markers, self.watchers, settings, self.metrics)
        self.presence = Presence(self.hub, self.broker.members, self.clock, settings, self.metrics, self.keep)
        self.auth = Auth(settings, self.metrics)
        # None: people say what they like.
        self.hook: PublishHook | None = None
        if settings.site_publish_url is not None:
            self.hook = PublishHook(settings, self.metrics, settings.site_publish_url)
        context = Context(
            id,
            settings,
            self.broker,
            self.hub,
            self.watchers,
            self.readers,
            self.presence,
            self.clock,
            self.metrics,
            self.auth,
            self.keep,
            self.hook,
        )
        self.edge = Edge(context, connections_max(settings))
        self._doors: tuple[Door, ...] = ()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop = context.stop
        self._hurry = asyncio.Event()
        self._failed = False

    def keep(self, name: str, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Start a task that this node owns. One that fails is a bug: it is logged, the others go on."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            log.error("task failed", task=task.get_name(), exc_info=exc)

    def essential(self, name: str, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Start a task without which the node is of no use: when it ends by itself, the node stops."""
        task = self.keep(name, work)
        task.add_done_callback(self._essential_ended)
        return task

    def _essential_ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled():
            self._failed = True
            self._stop.set()

    async def run(self) -> int:
        """Serve until told to stop. Returns the exit code."""
        self._listen_to_signals()
        ops, public = self._doors = await self._serve_ops(), await self._serve_public()
        if self.hook is not None:
            self.hook.tell()
        self.metrics.watch_gc()
        gc.set_threshold(*GC_THRESHOLDS)
        gc.collect()
        gc.freeze()
        self.essential("clock", self.clock.run())
        self.essential("wheel", self.edge.wheel.run())
        self.essential("stalled", self.edge.end_stalled((ops.visits, public.visits)))
        self.essential("watchers", self.watchers.run())
        self.essential("readers", self.readers.run())
        self.essential("presence", self.presence.run())
        self.essential("broker", self.broker.run(self.essential))
        await self._stop.wait()
        log.info("stopping", hurry=self._hurry.is_set())
        await drain(self.edge, self.broker, self.settings, self._hurry)
        for runner in (ops, public):
            await runner.cleanup()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.auth.close()
        if self.hook is not None:
            await self.hook.close()
        await self.broker.close()
        log.info("stopped")
        return 1 if self._failed else 0

    def unready(self) -> str | None:
        """Why this node should get no new connections; None: it should."""
        if self._stop.is_set():
            return "draining"
        if not self.broker.proven:
            age_s, why = self.broker.probe_age_s(), self.broker.away
            age = "" if age_s is None else f" for {age_s:.1f} s"
            return f"the road to the broker is not proven{age}" + ("" if why is None else f": {why}")
        if self.broker.refusing is Refusal.REPLICAS:  # cut off from them: to other nodes another may be the master
            return f"publishes are refused: {Refusal.REPLICAS.reason}"
        if self.edge.overloaded:
            return "connections_max is reached"
        return None

    def restriction(self) -> str | None:
        """What a node that is ready cannot do; None: nothing. Who comes can read, and no other node could do more."""
        refusing = self.broker.refusing
        return None if refusing is None else f"publishes are refused: {refusing.reason}"

    def _listen_to_signals(self) -> None:
        """SIGTERM drains, SIGINT or a second signal hurries."""

        def terminate() -> None:
            if self._stop.is_set():
                self._hurry.set()
            self._stop.set()

        def interrupt() -> None:
            self._hurry.set()
            self._stop.set()

        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, terminate)
        loop.add_signal_handler(signal.SIGINT, interrupt)

    async def _serve_public(self) -> Door:
        settings = self.settings
        if settings.fd:
            sockets = [socket.socket(fileno=fd) for fd in settings.fd]
        else:
            sockets = ports.bound(settings.host, settings.port, "--port", shared=settings.reuse_port)
        door = await self._open(public_app(self.edge), sockets, self.edge.visits_max)
        log.info("listening", url=_urls(sockets, "/chat/"), version=__version__)
        return door

    async def _serve_ops(self) -> Door:
        sockets = ports.bound(self.settings.ops_host, self.settings.ops_port, "--ops-port")
        app = ops_app(self.edge, self._registry(), self.unready, self.restriction)
        door = await self._open(app, sockets, lambda: OPS_VISITS_MAX)
        log.info("ops", url=_urls(sockets, "/metrics"), broker=str(self.broker.endpoint))
        return door

    async def _open(self, app: web.Application, sockets: list[socket.socket], space: Callable[[], int]) -> Door:
        door = Door(app, self.edge.context, space)
        await door.setup()
        for sock in sockets:
            await web.SockSite(door, sock, backlog=BACKLOG).start()
        return door

    def _visiting(self) -> float:
        return sum(len(door.visits) for door in self._doors)

    def _asked_bytes(self) -> float:
        return 0.0 if self.hook is None else self.hook.waiting_bytes

    def _registry(self) -> CollectorRegistry:
        def live() -> float:
            return sum(room.live_count() for room in self.hub.rooms.values())

        def behind() -> float:
            return sum(len(room.behind) for room in self.hub.rooms.values())

        readings: list[metrics.Reading] = [
            ("hiroba_sessions_live", "Sessions, one per room of a connection, that stand at the top of its log.", live),
            ("hiroba_sessions_behind", "Sessions that are walked towards the top of their room's log.", behind),
            (
                "hiroba_connections",
                "WebSockets, event streams, long polls; handshakes under way included.",
                lambda: self.edge.connections,
            ),
            (
                "hiroba_connections_max",
                "WebSockets, event streams and long polls that this node takes.",
                lambda: self.edge.connections_max,
            ),
            (
                "hiroba_http_connections",
                "Connections of both ports that are neither a WebSocket nor an event stream.",
                self._visiting,
            ),
            ("hiroba_rooms", "Rooms open on this node.", lambda: len(self.hub.rooms)),
            ("hiroba_rooms_watched", "Rooms whose growth this node listens for.", lambda: len(self.broker.tops.rooms)),
            ("hiroba_watchers", "Connections that watch rooms.", lambda: len(self.watchers)),
            ("hiroba_readers", "Users of whom this node hears what they have read.", lambda: len(self.readers)),
            ("hiroba_rooms_typing", "Rooms in which somebody types, or did just now.", lambda: len(self.hub.typing)),
            ("hiroba_presence_rooms", "Rooms of which this node says who is there.", lambda: len(self.presence)),
            (
                "hiroba_presence_bytes",
                "Memory of what this node knows of who is in rooms.",
                lambda: self.broker.members.bytes,
            ),
            ("hiroba_markers_waiting", "Read markers on their way to the broker.", self.broker.markers.waiting),
            (
                "hiroba_orders_standing",
                "Kicks and revocations that stand, as this node knows them.",
                lambda: len(self.broker.control.standing),
            ),
            ("hiroba_site_publish_waiting_bytes", "Of messages about which the site is asked.", self._asked_bytes),
            ("hiroba_tails_bytes", "Memory of the rooms' tails, and of what walks share.", self.hub.tail_bytes),
            ("hiroba_publish_queue_entries", "Publishes not answered yet.", self.broker.publisher.queued),
            ("hiroba_probe_age_seconds", "Since the road to the broker was proven.", self.broker.probe_age_s),
            ("hiroba_broker_clock_offset_seconds", "Broker's clock less ours.", self.broker.clock_offset_s),
            ("hiroba_ready", "1: /readyz says yes.", lambda: float(self.unready() is None)),
            ("hiroba_draining", "1: told to stop, and therefore not ready.", lambda: float(self._stop.is_set())),
            ("hiroba_tasks", "Tasks that this node owns.", lambda: len(self._tasks)),
        ]
        build = {"version": __version__, "python": platform.python_version(), "node": self.id}
        return metrics.registry(self.metrics, readings, build)


def _urls(sockets: Iterable[socket.socket], path: str) -> str:
    return " ".join(f"http://{ports.shown(sock.getsockname())}{path}" for sock in sockets)


def connections_max(settings: Settings) -> int:
    """The setting, or 15,000; never more than the descriptor limit allows (getrlimit(2)), which is raised first."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.connections_max or CONNECTIONS_MAX
    spare = DESCRIPTORS_SPARE + _questions_max(settings)
    need = wanted + spare
    limit = need if hard == resource.RLIM_INFINITY else min(need, hard)
    soft = max(limit, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
    allowed = min(wanted, max(1, limit - spare))
    if allowed < wanted:
        log.warning("fewer connections than wanted: raise the descriptor limit (ulimit -n)", connections_max=allowed)
    return allowed


def _questions_max(settings: Settings) -> int:
    """Connections to the site at once."""
    known = settings.site_requests_max if settings.site_url is not None else 0
    return known + (settings.site_publish_requests_max if settings.site_publish_url is not None else 0)


def run(settings: Settings) -> int:
    """`hiroba node`. Returns the exit code."""
    id = secrets.token_hex(6)
    logs.setup(settings, node=id)

    async def main() -> int:
        return await Node(settings, id).run()

    try:
        with asyncio.Runner(loop_factory=_new_loop) as runner:
            return runner.run(main())
    except PortTaken as exc:
        log.error(str(exc))
        return 1


def _new_loop() -> asyncio.AbstractEventLoop:
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()
