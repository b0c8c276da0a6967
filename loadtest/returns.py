"""How users come back whose connection ended without their doing: when they try, and how long they were away.

An absence lasts from the end of the connection to the next 101. No sockets, no clock.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from loadtest.histogram import Histogram

# Pauses before another attempt to connect: the first and the longest; jittered by half.
RETRY_S = 0.25
RETRY_MAX_S = 5.0


@dataclass(slots=True)
class Returned:
    """Those who came back after one close code; a value each, in microseconds."""

    away_us: array[int] = field(default_factory=lambda: array("q"))
    # Beyond the `after_s` of the server's `reconnect`: only of those who were told one.
    overdue_us: array[int] = field(default_factory=lambda: array("q"))


# By close code; 1006: the connection ended without one.
Returns = dict[int, Returned]


@dataclass(slots=True)
class WayBack:
    """One user's. Times in microseconds of the run's clock."""

    retry_s: float = 0.0
    # v1: the server wants nobody before this time.
    asked_us: int | None = None
    # Close code and time of the end; None: present, or away on purpose.
    ended: tuple[int, int] | None = None

    def asked(self, after_s: object, now_us: int) -> None:
        """`reconnect` was told."""
        self.asked_us = now_us + int((after_s if isinstance(after_s, int | float) else RETRY_S) * 1e6)

    def lost(self, code: int, now_us: int) -> None:
        self.ended = (code, now_us)
        self.retry_s = RETRY_S if self.asked_us is None else 0.0

    def failed(self) -> None:
        """An attempt was in vain."""
        self.retry_s = min(max(RETRY_S, self.retry_s * 2), RETRY_MAX_S)

    def pause_s(self, now_us: int, random: Random) -> float:
        """Before the next attempt: what the server asked for to the letter, our own patience jittered."""
        asked_s = 0.0 if self.asked_us is None else (self.asked_us - now_us) / 1e6
        return max(self.retry_s * random.uniform(0.5, 1.0), asked_s)

    def arrived(self, joined_us: int, returns: Returns) -> None:
        """The 101 was read, after an absence or the first time."""
        if self.ended is not None:
            code, ended_us = self.ended
            returned = returns.setdefault(code, Returned())
            returned.away_us.append(joined_us - ended_us)
            if self.asked_us is not None:
                returned.overdue_us.append(joined_us - self.asked_us)
        self.retry_s, self.asked_us, self.ended = 0.0, None, None


def together(workers: Iterable[Returns]) -> Returns:
    whole: Returns = {}
    for returns in workers:
        for code, returned in returns.items():
            sum_of = whole.setdefault(code, Returned())
            sum_of.away_us.extend(returned.away_us)
            sum_of.overdue_us.extend(returned.overdue_us)
    return whole


def away(returns: Returns) -> Histogram:
    return _histogram(returned.away_us for returned in returns.values())


def overdue(returns: Returns) -> Histogram:
    return _histogram(returned.overdue_us for returned in returns.values())


def rows(returns: Returns) -> list[dict[str, Any]]:
    """For the report: one row per close code."""
    return [
        {
            "code": code,
            "returned": len(returned.away_us),
            "asked": len(returned.overdue_us),
            "away_ms": _histogram([returned.away_us]).summary_ms(),
            "overdue_ms": _histogram([returned.overdue_us]).summary_ms(),
        }
        for code, returned in sorted(returns.items())
    ]


def _histogram(times_us: Iterable[array[int]]) -> Histogram:
    histogram = Histogram()
    for times in times_us:
        histogram.record(times)
    return histogram
