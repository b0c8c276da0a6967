"""Times as HdrHistogram counts: recorded by the array, merged without loss. No clock.

The bucket layout is HdrHistogram's own (1 microsecond to 1 hour, 3 significant digits); numpy fills it,
because a Python call per sample would cost more than a delivery may.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

Counts = NDArray[np.int64]

TIME_MAX_US = 3_600_000_000
_DIGITS = 3
_SUB_BUCKET_BITS = 11  # 2,048 sub-buckets hold three significant digits
_HALF = 1 << (_SUB_BUCKET_BITS - 1)
_SLOTS = (TIME_MAX_US.bit_length() - _SUB_BUCKET_BITS + 2) * _HALF

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p999": 99.9, "p9999": 99.99}


class Histogram:
    """Counts of times in microseconds."""

    def __init__(self) -> None:
        self.counts: Counts = np.zeros(_SLOTS, np.int64)

    def record(self, times_us: Iterable[int] | Counts) -> None:
        """Times below 1 us count as 1 us (clocks of two threads may disagree by that), above 1 h as 1 h."""
        times = np.asarray(times_us, np.int64)
        if times.size:
            self.counts += np.bincount(_slots_of(times.clip(1, TIME_MAX_US)), minlength=_SLOTS)

    def add(self, other: Histogram) -> None:
        self.counts += other.counts

    def take(self) -> Sparse:
        """What was recorded since the last take, as slots and counts; the histogram is empty then."""
        slots = np.flatnonzero(self.counts)
        sparse = (slots, self.counts[slots])
        self.counts[slots] = 0
        return sparse

    def put(self, sparse: Sparse) -> None:
        slots, counts = sparse
        self.counts[slots] += counts

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    def percentile_ms(self, percentile: float) -> float | None:
        """None when nothing was recorded: unknown is not 0."""
        total = self.total
        if total == 0:
            return None
        rank = max(1, int(np.ceil(percentile / 100 * total - 1e-9)))
        slot = int(np.searchsorted(np.cumsum(self.counts), rank))
        return _highest_us(slot) / 1000

    def summary_ms(self) -> dict[str, float | None]:
        """p50 ... p9999, max and mean in milliseconds."""
        summary = {name: self.percentile_ms(percent) for name, percent in PERCENTILES.items()}
        return summary | {"max": self.percentile_ms(100.0), "mean": self._mean_ms()}

    def spectrum(self) -> list[tuple[float, float]]:
        """(percentile, milliseconds) of every step, HdrHistogram's five ticks per half distance."""
        hdr = self.to_hdr()
        steps = hdr.get_percentile_iterator(5) if self.total else ()
        return [(s.percentile_level_iterated_to, s.value_iterated_to / 1000) for s in steps]

    def to_hdr(self) -> Any:
        """The same counts in the `hdrhistogram` library's own object."""
        hdr = HdrHistogram(1, TIME_MAX_US, _DIGITS)
        for slot in np.flatnonzero(self.counts):
            hdr.record_value(_highest_us(int(slot)), int(self.counts[slot]))
        return hdr

    def encoded(self) -> str:
        """HdrHistogram's compressed V2 text: any HdrHistogram tool reads it."""
        return str(self.to_hdr().encode().decode())

    def _mean_ms(self) -> float | None:
        slots = np.flatnonzero(self.counts)
        if not slots.size:
            return None
        middles = [(_lowest_us(int(s)) + _highest_us(int(s))) / 2 for s in slots]
        return round(float(np.average(middles, weights=self.counts[slots])) / 1000, 3)


# Slots with a count, and the counts: how a histogram travels between processes.
Sparse = tuple[Counts, Counts]


def _slots_of(times: Counts) -> Counts:
    # frexp's exponent is the bit length: exact below 2**53.
    bucket = np.maximum(np.frexp(times.astype(np.float64))[1].astype(np.int64) - _SUB_BUCKET_BITS, 0)
    slots: Counts = (bucket << (_SUB_BUCKET_BITS - 1)) + (times >> bucket)
    return slots


def _lowest_us(slot: int) -> int:
    bucket, sub = divmod(slot, _HALF)
    if bucket == 0:
        return sub
    return (sub + _HALF) << (bucket - 1)


def _highest_us(slot: int) -> int:
    bucket = slot // _HALF
    return _lowest_us(slot) + (1 << max(bucket - 1, 0)) - 1
