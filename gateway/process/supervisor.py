"""`hiroba up`: a broker of our own unless one is named, N nodes on one port, and their end in order.

What a node does is in `node.py`. Here a node is a process: started, started again when it dies or hangs, told to go.
"""

import asyncio
import functools
import os
import platform
import secrets
import signal
import socket
import sys
import time
from asyncio.subprocess import Process
from pathlib import Path

import structlog

from gateway import __version__
from gateway.broker.embedded import STOP_S, EmbeddedBroker, EmbeddedBrokerError
from gateway.process import ports
from gateway.process.child import Kept, spawn
from gateway.process.hurry import unless
from gateway.settings.model import Settings, masked
from gateway.telemetry import logs

# Only Linux spreads connections over the sockets that share a port (socket(7), SO_REUSEPORT); elsewhere the
# nodes accept from one listening socket, which they inherit.
BALANCES = sys.platform == "linux"
# A node's exit code for a wrong setting (`cli.py`): starting it again would not help.
REFUSED = 2
# A node that starts and has not answered by then hangs. It takes about a second of CPU.
START_S = 60.0
# How often a node that answers is asked again whether its loop turns.
ASK_S = 2.0
# Asks in a row without an answer that mean it hangs: one may have been a pause of ours (SIGSTOP, a sleeping laptop).
ASKS = 2
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
            Kept(
                f"node {n}",
                functools.partial(self._launch, n),
                hangs=functools.partial(self._hangs, n),
                final_codes=[REFUSED],
                wanted_codes=[0],
            )
            for n in range(settings.nodes)
        ]
        # Of each node; where any free one will do, a new one at each start.
        self._ops_ports = [settings.ops_port and settings.ops_port + n for n in range(settings.nodes)]
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
        if self._settings.guest_secret is None:
            kept_in = None if self._broker is None else self._broker.data
            self._settings = self._settings.model_copy(update={"guest_secret": _guest_secret(kept_in)})
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
        for port in filter(None, self._ops_ports):
            ports.check(settings.ops_host, port, "--ops-port")
        if self._balances:
            self._sockets = ports.hold(settings.host, settings.port, "--port")
        else:
            self._sockets = ports.listen(settings.host, settings.port, "--port", ports.BACKLOG)
        port = self._sockets[0].getsockname()[1]
        self._settings = settings.model_copy(update={"port": port})

    async def _launch(self, n: int) -> Process:
        """Node n: all settings by its environment, except where it differs from the others."""
        fd = () if self._balances else tuple(sock.fileno() for sock in self._sockets)
        if not self._settings.ops_port:
            self._ops_ports[n] = ports.free(self._settings.ops_host, "--ops-port")
        settings = self._settings.model_copy(
            update={"nodes": 1, "ops_port": self._ops_ports[n], "reuse_port": self._balances, "fd": fd}
        )
        return await spawn(
            # -P: a directory called `gateway` where we were started must not pass for ours.
            [sys.executable, "-P", "-m", "gateway", "node"],
            env={**os.environ, **_import_path(), **settings.to_environ()},
            pass_fds=fd,
        )

    # ---- whether a node lives ----

    async def _hangs(self, n: int) -> str:
        """Returns, with the reason, when node n has not answered for `hang_s`; for START_S while nobody listens yet."""
        host, port, hang_s = self._settings.ops_host[0], self._ops_ports[n], self._settings.hang_s
        ask_s, silent_s, listens = hang_s / ASKS, 0.0, False
        while silent_s < (hang_s if listens else START_S):
            asked_at = time.monotonic()
            answer = await _ask(host, port, "/healthz", ask_s)
            if answer is not None and not listens:
                listens, silent_s = True, 0.0
            if answer == 200:
                silent_s = 0.0
                await asyncio.sleep(ASK_S)
            else:
                silent_s += ask_s
                await asyncio.sleep(asked_at + ask_s - time.monotonic())
        return f"no answer from {_url(host, port)}healthz for {silent_s:g} s"

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
        for n in range(settings.nodes):
            while await _ask(settings.ops_host[0], self._ops_ports[n], "/readyz", 2.0) != 200:  # noqa: ASYNC110 - its event is not ours
                await asyncio.sleep(0.1)
        ops = " ".join(_url(settings.ops_host[0], port) for port in self._ops_ports)
        log.info("ready", url=f"{_url(settings.host[0], settings.port)}chat/", ops=ops)

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


async def _ask(host: str, port: int, path: str, within_s: float) -> int | None:
    """The status that an ops port answers; 0: nothing in time, or no HTTP; None: nobody listens there."""
    writer = None
    try:
        async with asyncio.timeout(within_s):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            return int((await reader.readline()).split()[1])
    except ConnectionRefusedError:
        return None
    except (OSError, TimeoutError, ValueError, IndexError):
        return 0
    finally:
        if writer is not None:
            writer.transport.abort()


def _import_path() -> dict[str, str]:
    """The variable by which a node finds this package when it runs from a checkout that was never installed."""
    root = Path(__file__).parents[1]
    if root.name in ("site-packages", "dist-packages"):
        return {}
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))}


def _guest_secret(kept_in: Path | None) -> str:
    """The same at each start, where there is a place to keep it."""
    secret = secrets.token_hex(32)
    if kept_in is None:
        return secret
    file = kept_in / "guest-secret"
    if not file.exists():  # the directory is locked: nobody else makes one
        fresh = file.with_suffix(".new")
        fresh.touch(0o600)
        fresh.write_text(secret, "ascii")
        fresh.replace(file)
    return file.read_text("ascii")


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
