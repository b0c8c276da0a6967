"""The run's own metrics for Prometheus (`hiroba_loadtest_…`), so that load and server stand on one dashboard."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, generate_latest

from loadtest.timeline import Timeline


class Exporter:
    """An asynchronous context: serves /metrics at `host` while the run lasts; port 0: it does not."""

    def __init__(self, host: str, port: int, run: str) -> None:
        self._host, self._port = host, port
        # Why it could not; empty where it could.
        self.missing = ""
        registry = self._registry = CollectorRegistry()
        self._runner: web.AppRunner | None = None
        self._seen = Counts()
        info = Gauge("hiroba_loadtest_info", "The run that is on, always 1.", ["run"], registry=registry)
        info.labels(run).set(1)
        self._users = Gauge("hiroba_loadtest_users", "Users connected now.", registry=registry)
        self._planned = Gauge("hiroba_loadtest_users_planned", "Users that should be connected now.", registry=registry)
        self._sent = Counter("hiroba_loadtest_sent", "Messages sent.", registry=registry)
        self._delivered = Counter("hiroba_loadtest_delivered", "Deliveries received and compared.", registry=registry)
        self._suspects = Gauge(
            "hiroba_loadtest_suspects", "Deliveries that were not simply the room's next.", registry=registry
        )
        self._latency = Gauge(
            "hiroba_loadtest_latency_seconds",
            "Latency from the intended time, of the last second.",
            ["quantile"],
            registry=registry,
        )
        self._cpu = Gauge(
            "hiroba_loadtest_cpu_share", "CPU of the busiest worker, as a share of a core.", registry=registry
        )
        self._lag = Gauge(
            "hiroba_loadtest_lag_seconds", "Event-loop lag of the workers, p99 of the last second.", registry=registry
        )

    async def __aenter__(self) -> Self:
        if not self._port:
            return self
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as exc:
            # Another run has the port, most often. That is no reason not to measure.
            self.missing = f"nothing can listen on {self._host}:{self._port} ({exc.strerror})"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def update(self, timeline: Timeline) -> None:
        now, sent, delivered = timeline.seconds[-1], timeline.tally()["sent"], timeline.delivered()
        self._users.set(now.users)
        self._planned.set(now.users_planned)
        self._sent.inc(sent - self._seen.sent)
        self._delivered.inc(delivered - self._seen.delivered)
        self._seen = Counts(sent, delivered)
        self._suspects.set(now.suspects)
        self._cpu.set(now.cpu_share)
        self._lag.set(now.lag_ms / 1000)
        for quantile, value_ms in (("0.5", now.p50_ms), ("0.95", now.p95_ms), ("0.99", now.p99_ms)):
            # Nothing delivered in this second: no latency, and that is not 0.
            self._latency.labels(quantile).set(float("nan") if value_ms is None else value_ms / 1000)

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


class Counts:
    """Counters as they were at the last update."""

    def __init__(self, sent: int = 0, delivered: int = 0) -> None:
        self.sent, self.delivered = sent, delivered
