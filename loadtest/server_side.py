"""What the server says about itself while the test runs: scrapes `/metrics` and makes figures of two scrapes.

Knows the published names of hiroba's and redis-exporter's metrics; of another server the usual `process_…`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from loadtest.spec import BadSpec

EVERY_S = 1.0
TIMEOUT_S = 3.0

# A figure and the metrics that may hold it: the first that a target has counts.
CPU = ("hiroba_process_cpu_seconds_total", "process_cpu_seconds_total")
MEMORY = ("hiroba_process_resident_bytes", "process_resident_memory_bytes")
DELIVERED = ("hiroba_entries_delivered_total",)
CONNECTIONS = ("hiroba_connections",)
BEHIND = ("hiroba_sessions_behind",)
BATCH_SUM = ("hiroba_deliver_batch_entries_sum",)
BATCH_COUNT = ("hiroba_deliver_batch_entries_count",)
CLOSES = "hiroba_closes_total"
REFUSED = "hiroba_handshakes_refused_total"
BROKER_CPU = ("redis_cpu_user_seconds_total", "redis_cpu_sys_seconds_total")


@dataclass
class Scrape:
    """One answer: values by name, summed over labels; and those that are told by reason."""

    values: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, Counter[str]] = field(default_factory=dict)

    def one(self, names: Iterable[str]) -> float | None:
        return next((self.values[name] for name in names if name in self.values), None)


@dataclass
class Target:
    url: str
    scrapes: list[tuple[float, Scrape]] = field(default_factory=list)  # seconds since the first one
    failures: int = 0

    def grew(self, names: Iterable[str]) -> float | None:
        """How much a counter grew during the run; None if the target has none."""
        if len(self.scrapes) < 2:
            return None
        begin, end = self.scrapes[0][1].one(names), self.scrapes[-1][1].one(names)
        # A counter that fell began again: its server was restarted.
        return None if begin is None or end is None else end - begin if end >= begin else end

    def series(self, names: Iterable[str]) -> list[float]:
        names = tuple(names)
        return [value for _, scrape in self.scrapes if (value := scrape.one(names)) is not None]


class ServerSide:
    """`watch` runs beside the test; `figures` when it is over."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.targets = [Target(url if "://" in url else f"http://{url}") for url in urls]

    async def check(self) -> None:
        """The first scrape. Raises BadSpec for a target that has no metrics."""
        async with _session() as session:
            for target in self.targets:
                try:
                    target.scrapes.append((0.0, await _scrape(session, target.url)))
                except (OSError, aiohttp.ClientError, TimeoutError, ValueError) as exc:
                    why = str(exc) or type(exc).__name__
                    raise BadSpec(f"--metrics {target.url} gives no metrics: {why}") from exc

    async def watch(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with _session() as session:
            while True:
                await asyncio.sleep(EVERY_S)
                await asyncio.gather(*(self._once(session, t, loop.time() - began) for t in self.targets))

    async def finish(self, lasted_s: float) -> None:
        """The last scrape, when all is said."""
        async with _session() as session:
            await asyncio.gather(*(self._once(session, target, lasted_s) for target in self.targets))

    def result(self) -> dict[str, Any] | None:
        """For the report: figures of all targets together, and each target's series."""
        if not self.targets:
            return None
        return {
            "figures": self._figures(),
            "closes": dict(self._reasons(CLOSES)),
            "refused": dict(self._reasons(REFUSED)),
            "targets": [_series_of(target) for target in self.targets],
        }

    def _figures(self) -> dict[str, float]:
        cpu_s, delivered = self._grew(CPU), self._grew(DELIVERED)
        entries, batches = self._grew(BATCH_SUM), self._grew(BATCH_COUNT)
        broker = [growth for t in self.targets for name in BROKER_CPU if (growth := t.grew((name,))) is not None]
        figures: dict[str, float | None] = {
            "cpu_s": cpu_s,
            "delivered": delivered,
            "cpu_per_delivery_us": cpu_s / delivered * 1e6 if cpu_s and delivered else None,
            "memory_per_connection_bytes": self._memory_per_connection(),
            "batch_entries_mean": entries / batches if entries and batches else None,
            "behind_max": self._peak(BEHIND),
            "connections_max": self._peak(CONNECTIONS),
            "broker_cpu_s": sum(broker) if broker else None,
            "broker_cpu_per_delivery_us": sum(broker) / delivered * 1e6 if broker and delivered else None,
        }
        return {name: round(value, 3) for name, value in figures.items() if value is not None}

    def _grew(self, names: Sequence[str]) -> float | None:
        grown = [growth for t in self.targets if (growth := t.grew(names)) is not None]
        return sum(grown) if grown else None

    def _peak(self, names: Sequence[str]) -> float | None:
        peaks = [max(series) for t in self.targets if (series := t.series(names))]
        return sum(peaks) if peaks else None

    def _memory_per_connection(self) -> float | None:
        """Growth of the resident memory over growth of the connections: an upper bound, messages included."""
        grown = connections = 0.0
        for target in self.targets:
            memory, held = target.series(MEMORY), target.series(CONNECTIONS)
            if memory and held:
                grown += max(memory) - memory[0]
                connections += max(held) - held[0]
        return grown / connections if connections > 0 else None

    def _reasons(self, name: str) -> Counter[str]:
        total: Counter[str] = Counter()
        for target in self.targets:
            begin = target.scrapes[0][1].reasons.get(name, Counter())
            total += target.scrapes[-1][1].reasons.get(name, Counter()) - begin
        return Counter({reason: int(times) for reason, times in total.items()})

    async def _once(self, session: aiohttp.ClientSession, target: Target, at_s: float) -> None:
        try:
            target.scrapes.append((round(at_s, 2), await _scrape(session, target.url)))
        except (OSError, aiohttp.ClientError, TimeoutError, ValueError):
            target.failures += 1


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S))


async def _scrape(session: aiohttp.ClientSession, url: str) -> Scrape:
    async with session.get(url) as response:
        response.raise_for_status()
        text = await response.text()
    scrape = Scrape()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            scrape.values[sample.name] += sample.value  # type: ignore[assignment]
            if "reason" in sample.labels:
                reasons = scrape.reasons.setdefault(sample.name, Counter())
                reasons[sample.labels["reason"]] += sample.value  # type: ignore[assignment]
    if not scrape.values:
        raise ValueError("the answer holds no metric")
    return scrape


def _series_of(target: Target) -> dict[str, Any]:
    """CPU share per second, connections, sessions behind, memory: what the report draws."""
    rows: dict[str, list[float | None]] = {
        "at_s": [],
        "cpu_share": [],
        "connections": [],
        "behind": [],
        "memory_mb": [],
    }
    before: tuple[float, float | None] = (0.0, None)
    for at_s, scrape in target.scrapes:
        cpu_s, memory = scrape.one(CPU), scrape.one(MEMORY)
        lasted = at_s - before[0]
        share = (cpu_s - before[1]) / lasted if cpu_s is not None and before[1] is not None and lasted > 0 else None
        before = (at_s, cpu_s)
        rows["at_s"].append(at_s)
        rows["cpu_share"].append(None if share is None else round(max(share, 0.0), 3))
        rows["connections"].append(scrape.one(CONNECTIONS))
        rows["behind"].append(scrape.one(BEHIND))
        rows["memory_mb"].append(None if memory is None else round(memory / 1e6, 1))
    return {"url": target.url, "failures": target.failures, "series": rows}
