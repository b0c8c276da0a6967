"""The run second by second, all workers together; and its histograms, merged without loss. No I/O."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from loadtest.channel import Tick
from loadtest.histogram import Histogram


@dataclass
class Second:
    """One second of the run. Times in milliseconds; None: nothing was delivered."""

    second: int
    users: int = 0
    users_planned: int = 0
    sent_per_s: float = 0.0
    delivered_per_s: float = 0.0
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    max_ms: float | None = None
    connects_per_s: float = 0.0
    suspects: int = 0
    cpu_share: float = 0.0  # of the busiest worker, of one core
    lag_ms: float = 0.0  # p99 of the event loops' lag
    settling: bool = False


@dataclass
class _Open:
    """A second that not all workers have told about yet."""

    ticks: dict[int, Tick] = field(default_factory=dict)


class Timeline:
    """`slow` names the user classes that read slowly on purpose. That says nothing about the server's
    speed for the others: they have a row of their own, the totals are without them."""

    def __init__(self, workers: int, slow: frozenset[str] = frozenset()) -> None:
        self.seconds: list[Second] = []
        self.latency: dict[str, Histogram] = {}
        self.service: dict[str, Histogram] = {}
        self.connect = Histogram()
        self.slip = Histogram()
        self.lag = Histogram()
        self.slow = slow
        self._present_workers = set(range(workers))
        self._last: dict[int, Tick] = {}
        self._before: dict[int, Tick] = {}
        self._open: dict[int, _Open] = {}

    def add(self, worker: int, tick: Tick) -> bool:
        """True when this tick completed a second."""
        for name, sparse in tick.latency.items():
            self.latency.setdefault(name, Histogram()).put(sparse)
        for name, sparse in tick.service.items():
            self.service.setdefault(name, Histogram()).put(sparse)
        self.connect.put(tick.connect)
        self.slip.put(tick.slip)
        self.lag.put(tick.lag)
        self._last[worker] = tick
        if tick.final:
            return self.gone(worker)
        self._open.setdefault(tick.number, _Open()).ticks[worker] = tick
        return self._close_complete()

    def gone(self, worker: int) -> bool:
        """A worker finished or died: don't wait for its ticks. True when that completed a second."""
        self._present_workers.discard(worker)
        return self._close_complete()

    def total(self, of: dict[str, Histogram]) -> Histogram:
        """All scenarios together, without those that are slow on purpose."""
        total = Histogram()
        for name, histogram in of.items():
            if name not in self.slow:
                total.add(histogram)
        return total

    def tally(self) -> Counter[str]:
        return sum((tick.tally for tick in self._last.values()), Counter())

    def delivered(self) -> int:
        return sum(tick.delivered for tick in self._last.values())

    def as_rows(self) -> list[dict[str, Any]]:
        return [asdict(second) for second in self.seconds]

    def _close_complete(self) -> bool:
        closed = False
        for number in sorted(self._open):
            ticks = self._open[number].ticks
            if self._present_workers - ticks.keys():
                break
            self.seconds.append(self._second(number, ticks))
            del self._open[number]
            closed = True
        return closed

    def _second(self, number: int, ticks: dict[int, Tick]) -> Second:
        latency, lag = Histogram(), Histogram()
        sent = delivered = connects = 0.0
        for worker, tick in ticks.items():
            before = self._before.get(worker)
            lasted = tick.second - (before.second if before else 0.0)
            share = 1 / lasted if lasted > 0.05 else 0.0
            tally = before.tally if before else Counter()
            sent += share * (tick.tally["sent"] - tally["sent"])
            connects += share * (tick.tally["connected"] - tally["connected"])
            delivered += share * (tick.delivered - (before.delivered if before else 0))
            self._before[worker] = tick
            for name, sparse in tick.latency.items():
                if name not in self.slow:
                    latency.put(sparse)
            lag.put(tick.lag)
        now = ticks.values()
        return Second(
            second=number,
            users=sum(t.present for t in now),
            users_planned=max((t.planned_present for t in now), default=0),
            sent_per_s=round(sent, 1),
            delivered_per_s=round(delivered, 1),
            p50_ms=latency.percentile_ms(50),
            p95_ms=latency.percentile_ms(95),
            p99_ms=latency.percentile_ms(99),
            max_ms=latency.percentile_ms(100),
            connects_per_s=round(connects, 1),
            suspects=sum(t.suspects for t in now),
            cpu_share=round(max((t.cpu_share for t in now), default=0.0), 3),
            lag_ms=lag.percentile_ms(99) or 0.0,
            settling=any(t.settling for t in now),
        )
