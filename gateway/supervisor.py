"""`hiroba up`: a broker of our own unless one is named, N nodes on one port, and their end in order.

What a node does is in `node.py`. Here a node is a process: started, started again when it dies, told to go.
"""

import asyncio
import functools
import os
import platform
import signal
import socket
import sys
from asyncio.subprocess import Process
from pathlib import Path

import structlog

from gateway import __version__, logs, ports
from gateway.broker.embedded import STOP_S, EmbeddedBroker, EmbeddedBrokerError
from gateway.child import Kept, spawn
from gateway.config import Settings, masked
from gateway.hurry import unless

# Only Linux spreads connections over the sockets that share a port (socket(7), SO_REUSEPORT); elsewhere the
# nodes accept from one listening socket, which they inherit.
BALANCES = sys.platform == "linux"
# A node's exit code for a wrong setting (`cli.py`): starting it again would not help.
REFUSED = 2
# What a draining node may take beyond its own budgets before it is killed.
SPARE_S = 5.0
# In a hurry a node needs about 1 s for its clients, the broker a few ms; both together end within 2 s.
HURRY_NODE_S = 1.4
HURRY_BROKER_S = 0.4

log = structlog.get_logger()


def run(settings: Settings, balances: bool = BALANCES) -> int:
    """`hiroba up`. Returns the exit code."""
    logs.setup(settings)
    try:
        return asyncio.run(Supervisor(settings, balances).run())
    except (ports.PortTaken, EmbeddedBrokerError) as exc:
        log.error(str(exc))
        return 1


class Supervisor:
    """Owns the public port, the broker and the nodes."""

    def __init__(self, settings: Settings, balances: bool) -> None:
        self._settings = settings
        self._balances = balances
        self._sockets: list[socket.socket] = []
        self._broker = None if settings.broker_url else EmbeddedBroker(settings.data)
        self._nodes = [
            Kept(f"node {n}", functools.partial(self._launch, n), final_codes=[REFUSED]) for n in range(settings.nodes)
        ]
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()

    async def run(self) -> int:
        """Serves until told to stop. Returns the exit code; raises PortTaken and EmbeddedBrokerError."""
        self._listen_to_signals()
        self._take_ports()
        try:
            code = await unless(self._stop, self._serve())
        finally:
            await self._end()
        log.info("ended")
        return code or 0

    async def _serve(self) -> int:
        """Starts everything. Returns, with the exit code, when nothing can be served."""
        if self._broker is not None:
            url = await self._broker.start()
            self._settings = self._settings.model_copy(update={"broker_url": url})
        log.info("starting", **self._facts())
        keepers = [await node.start() for node in self._nodes]
        announcing = asyncio.create_task(self._announce(), name="announce")
        try:
            done, _ = await asyncio.wait(keepers, return_when=asyncio.FIRST_COMPLETED)
        finally:
            announcing.cancel()
        return done.pop().result()

    # ---- what a node gets ----

    def _take_ports(self) -> None:
        """Says now what N nodes would say N times, and holds the public port."""
        settings = self._settings
        for n in range(settings.nodes if settings.ops_port else 0):
            ports.check(settings.ops_host, settings.ops_port + n, "--ops-port")
        if self._balances:
            self._sockets = ports.hold(settings.host, settings.port, "--port")
        else:
            self._sockets = ports.listen(settings.host, settings.port, "--port", ports.BACKLOG)
        port = self._sockets[0].getsockname()[1]
        self._settings = settings.model_copy(update={"port": port})

    async def _launch(self, n: int) -> Process:
        """Node n: all settings by its environment, except where it differs from the others."""
        fd = None if self._balances else self._sockets[0].fileno()
        settings = self._settings.model_copy(
            update={"nodes": 1, "ops_port": self._ops_port(n), "reuse_port": self._balances, "fd": fd}
        )
        return await spawn(
            # -P: a directory called `gateway` where we were started must not pass for ours.
            [sys.executable, "-P", "-m", "gateway", "node"],
            env={**os.environ, **_import_path(), **settings.to_environ()},
            pass_fds=() if fd is None else (fd,),
        )

    def _ops_port(self, n: int) -> int:
        return self._settings.ops_port and self._settings.ops_port + n

    # ---- what people see ----

    def _facts(self) -> dict[str, object]:
        settings = self._settings
        broker = masked(settings.broker_url or "")
        if self._broker is not None:
            broker = f"{self._broker.version} on {self._broker.data}"
        versions = f"{__version__} (Python {platform.python_version()})"
        return {"hiroba": versions, "broker": broker, "nodes": settings.nodes, "pid": os.getpid()}

    async def _announce(self) -> None:
        """The line with the URL to click, once every node has proven its road to the broker."""
        settings = self._settings
        if settings.ops_port:
            for n in range(settings.nodes):
                while not await _is_ready(settings.ops_host, self._ops_port(n)):  # noqa: ASYNC110 - its event is not ours
                    await asyncio.sleep(0.1)
        ops = [f"http://{_shown(settings.ops_host)}:{self._ops_port(n)}/" for n in range(settings.nodes)]
        url = f"http://{_shown(settings.host)}:{settings.port}/chat/"
        log.info("ready", url=url, **({"ops": " ".join(ops)} if settings.ops_port else {}))

    # ---- the end ----

    def _listen_to_signals(self) -> None:
        """SIGTERM drains; Ctrl-C, a closed terminal or a second signal hurries."""

        def told(hurry: bool) -> None:
            if hurry or self._stop.is_set():
                self._hurry.set()
            self._stop.set()

        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, told, False)
        loop.add_signal_handler(signal.SIGINT, told, True)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup stays what it is
            loop.add_signal_handler(signal.SIGHUP, told, True)

    async def _end(self) -> None:
        """The nodes first, for they still publish; then the broker."""
        if self._stop.is_set():
            log.info("stopping", hurry=self._hurry.is_set())
        settings = self._settings
        budgets_s = settings.lb_wait_s + settings.drain_s + settings.close_s + settings.publish_timeout_s
        await unless(self._hurry, self._end_nodes(signal.SIGTERM, budgets_s + SPARE_S))
        if self._hurry.is_set():
            await self._end_nodes(signal.SIGINT, HURRY_NODE_S)
        if self._broker is not None:
            await unless(self._hurry, self._broker.stop(STOP_S))
            if self._hurry.is_set():
                await self._broker.stop(HURRY_BROKER_S)
        for sock in self._sockets:
            sock.close()

    async def _end_nodes(self, number: int, within_s: float) -> None:
        ends = await asyncio.gather(*(node.stop(number, within_s) for node in self._nodes))
        for node, by_itself in zip(self._nodes, ends, strict=True):
            if not by_itself:
                log.warning(f"{node.name} did not end in time and was killed", within_s=within_s)


async def _is_ready(host: str, ops_port: int) -> bool:
    """Whether /readyz answers 200."""
    try:
        async with asyncio.timeout(2.0):
            reader, writer = await asyncio.open_connection(host, ops_port)
            writer.write(b"GET /readyz HTTP/1.0\r\n\r\n")
            status = await reader.readline()
            writer.close()
            return b" 200 " in status
    except (OSError, TimeoutError):
        return False


def _import_path() -> dict[str, str]:
    """The variable by which a node finds this package when it runs from a checkout that was never installed."""
    root = Path(__file__).parents[1]
    if root.name in ("site-packages", "dist-packages"):
        return {}
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))}


def _shown(host: str) -> str:
    """A host as a URL has it."""
    return f"[{host}]" if ":" in host else host
