"""Brings the stack up in order, keeps it up, takes it down in order. What the parts are is in parts.py."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from broker_config import home
from deploy.stack import parts
from deploy.stack.parts import HOST, NodeAt, Part
from gateway.broker.embedded import find_server
from gateway.process.child import Kept, spawn

START_S = 30.0
# How often a load test is looked for.
LOOK_S = 1.0
STOP_S = 10.0


class StackError(RuntimeError):
    """The stack can't run. The text is for the operator."""


@dataclass(frozen=True)
class Ports:
    """Where everything listens, on HOST. The defaults are the programs' own."""

    nodes: tuple[NodeAt, ...]
    public: int = 8000
    haproxy: int = 8404
    broker: int = 6379
    exporter: int = 9121
    prometheus: int = 9090
    alertmanager: int = 9093
    # Where a load test shows its metrics while it runs (python -m loadtest).
    loadtest: int = 9089
    # With a certificate only: where TLS comes in, and who looks at certificates.
    tls: int = 8443
    blackbox: int = 9115

    @classmethod
    def usual(cls, nodes: int) -> "Ports":
        return cls(tuple(NodeAt(8001 + number, 9000 + number) for number in range(nodes)))

    @classmethod
    def in_a_row(cls, nodes: int, first: int) -> "Ports":
        """From `first` on; 9 + 2 × nodes of them. A stack beside another, or a test's."""
        at = tuple(NodeAt(first + 9 + 2 * number, first + 10 + 2 * number) for number in range(nodes))
        return cls(at, *range(first, first + 9))

    def listening(self) -> Iterator[int]:
        yield from (self.public, self.haproxy, self.broker, self.exporter, self.prometheus, self.alertmanager)
        for at in self.nodes:
            yield from (at.port, at.ops_port)


@dataclass(frozen=True)
class Certificates:
    """What TLS needs, where somebody wants it here."""

    # HAProxy's LB_CERT: a PEM file with certificate and key, or a directory of them.
    served: Path | None = None
    # https:// and rediss:// addresses whose certificates are watched too.
    watched: tuple[str, ...] = ()


class Stack:
    """All programs, in the order in which they start. Used as `async with`."""

    def __init__(
        self,
        directory: Path,
        ports: Ports,
        passwords: dict[str, str],
        webhook: str | None = None,
        certificates: Certificates = Certificates(),
    ) -> None:
        self.directory = directory.absolute()
        self.ports = ports
        self._passwords = passwords
        self._webhook = webhook
        self._served = certificates.served
        # Ours is watched without being named.
        ours = [f"https://{HOST}:{ports.tls}"] if self._served else []
        self._watched = [*ours, *certificates.watched]
        self.kept: dict[str, tuple[Part, Kept]] = {}
        self._looking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Stack":
        for port in (*self.ports.listening(), *self._listening_for_certificates()):
            _require_free(port)
        # Logs name rooms and addresses.
        home.private(self.directory)
        (self.directory / "logs").mkdir(exist_ok=True)
        binary, _ = await find_server()
        try:
            broker = parts.broker(binary, self.directory / "broker", self._passwords, self.ports.broker)
            await self._start([broker])
            await self._start(self._nodes())
            await self._start(self._around())
            self._looking = asyncio.create_task(self._look_for_a_load_test(), name="look for a load test")
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.stop()

    def _listening_for_certificates(self) -> Iterator[int]:
        if self._served:
            yield self.ports.tls
        if self._watched:
            yield self.ports.blackbox

    def _nodes(self) -> list[Part]:
        nodes = enumerate(self.ports.nodes)
        return [parts.node(number, at, self.ports.broker, self._passwords) for number, at in nodes]

    def _around(self) -> list[Part]:
        ports = self.ports
        targets: dict[str, Sequence[int | str]] = {
            "gateway": [at.ops_port for at in ports.nodes],
            "haproxy": [ports.haproxy],
            "broker": [ports.exporter],
            "prometheus": [ports.prometheus],
            "alertmanager": [ports.alertmanager],
            "loadtest": [],
            "certificates": self._watched,
        }
        tls = (
            {
                "LB_CERT": str(self._served.absolute()),
                "LB_TLS_BIND": f"{HOST}:{ports.tls}",
                "LB_TLS_PORT": str(ports.tls),
            }
            if self._served
            else {}
        )
        return [
            parts.haproxy(self.directory / "haproxy", ports.nodes, ports.public, ports.haproxy, **tls),
            *([parts.blackbox(ports.blackbox)] if self._watched else []),
            parts.redis_exporter(ports.broker, self._passwords["exporter"], ports.exporter),
            parts.alertmanager(self.directory / "alertmanager", ports.alertmanager, self._webhook),
            parts.prometheus(self.directory / "prometheus", targets, ports.prometheus, ports.blackbox),
        ]

    async def _start(self, some: Sequence[Part]) -> None:
        """Together; returns when all serve."""
        for part in some:
            self.kept[part.name] = (part, Kept(part.name, self._launcher(part), settle=self._settler(part)))
        await asyncio.gather(*(self.kept[part.name][1].start() for part in some))

    def _launcher(self, part: Part) -> Callable[[], Awaitable[asyncio.subprocess.Process]]:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HIROBA_", "LB_"))}

        async def launch() -> asyncio.subprocess.Process:
            with self.log(part.name).open("ab") as log:
                return await spawn(part.argv, env={**inherited, **part.env}, output=log, umask=part.umask)

        return launch

    def log(self, name: str) -> Path:
        return self.directory / "logs" / f"{name}.log"

    def _settler(self, part: Part) -> Callable[[asyncio.subprocess.Process], Awaitable[None]]:
        async def settle(process: asyncio.subprocess.Process) -> None:
            deadline = time.monotonic() + START_S
            while time.monotonic() < deadline:
                if process.returncode is not None:
                    raise StackError(f"{part.name} ended at its start{self._last_words(part.name)}")
                if await (_answers(part.ready) if part.ready else _pongs(part.address)):
                    return
                await asyncio.sleep(0.05)
            raise StackError(f"{part.name} does not serve after {START_S:g} s{self._last_words(part.name)}")

        return settle

    def _last_words(self, name: str) -> str:
        """The last line of a part's log, behind a colon; empty where it has none."""
        with self.log(name).open("rb") as log:
            log.seek(max(0, self.log(name).stat().st_size - 4_000))
            lines = log.read().decode(errors="replace").splitlines()
        return next((f": {line.strip()}" for line in reversed(lines) if line.strip()), "")

    async def _look_for_a_load_test(self) -> None:
        """A load test is a target while it runs; else it would be a red one, and nothing is wrong."""
        known = False
        while True:
            if (seen := await _listens(self.ports.loadtest)) != known:
                known = seen
                parts.target(self.directory / "prometheus", "loadtest", [self.ports.loadtest] if seen else [])
            await asyncio.sleep(LOOK_S)

    async def stop(self) -> None:
        """The last started first; nodes in a hurry, for nobody waits for a drain at Ctrl-C."""
        if self._looking is not None:
            self._looking.cancel()
        names = list(reversed(self.kept))
        nodes = [name for name in names if name.startswith("node")]
        for together in ([name for name in names if name not in (*nodes, "broker")], nodes, ["broker"]):
            await asyncio.gather(*(self._stop(name) for name in together if name in self.kept))

    async def _stop(self, name: str) -> None:
        _, kept = self.kept.pop(name)
        await kept.stop(signal.SIGINT if name.startswith("node") else signal.SIGTERM, STOP_S)

    async def consoles(self) -> str:
        """Where a person looks, one line each: pages that answer here, and commands where there is no page.

        Debian's Prometheus has only its old pages, and its Alertmanager none.
        """
        ports = self.ports
        prometheus = f"http://{HOST}:{ports.prometheus}"
        alerts = f"{prometheus}/alerts"
        if not await _answers(alerts):
            alerts = f"{prometheus}/classic/alerts"
        chat = f"https://{HOST}:{ports.tls}/chat/" if self._served else f"http://{HOST}:{ports.public}/chat/"
        rows = (
            ("chat", chat),
            ("nodes as HAProxy sees them", f"http://{HOST}:{ports.haproxy}/stats"),
            ("alarms, queries, targets", alerts),
            ("who is told", f"amtool --alertmanager.url=http://{HOST}:{ports.alertmanager} alert"),
            ("broker", f"REDISCLI_AUTH=… redis-cli -p {ports.broker} --user operator"),
            ("take a node out", f"echo 'show servers state' | socat - {parts.balancer_socket(ports.public)}"),
        )
        width = max(len(what) for what, _ in rows)
        return "\n".join(f"{what.ljust(width)}  {where}" for what, where in rows)

    def table(self) -> str:
        """What runs, where, and where its log is."""
        rows = [("part", "address", "pid", "log")]
        for name, (part, kept) in self.kept.items():
            rows.append((name, part.address, str(kept.process.pid if kept.process else "-"), str(self.log(name))))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


async def _answers(url: str) -> bool:
    try:
        timeout = aiohttp.ClientTimeout(total=2)
        async with aiohttp.ClientSession(timeout=timeout) as http, http.get(url) as answer:
            return answer.status == 200
    except (aiohttp.ClientError, OSError, TimeoutError):
        return False


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    writer.close()
    return True


async def _pongs(url: str) -> bool:
    """A broker that serves says, to a stranger, that it wants a name first; while it loads it says that."""
    try:
        reader, writer = await asyncio.open_connection(HOST, int(url.rpartition(":")[2]))
        writer.write(b"PING\r\n")
        answer = await asyncio.wait_for(reader.readline(), 2)
        writer.close()
        return answer.startswith(b"-NOAUTH")
    except (OSError, TimeoutError):
        return False


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as exc:
            raise StackError(f"port {port} is taken: stop who listens there, or choose others with --ports") from exc
