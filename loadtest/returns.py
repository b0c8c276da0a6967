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

# docs/protocol.md, "Coming back": full jitter below a step that doubles, short for as long as a cold start takes.
STEP_FIRST_S = 0.5
STEP_MAX_S = 5.0
MINUTE_S = 60.0
STEP_LATE_MAX_S = 30.0
# After so long a connection was good, and the next loss begins with the first step again.
STEADY_S = 10.0


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

    # In vain since `since_us`; the exponent of the next step.
    tries: int = 0
    # When the last good connection was lost, or the first try failed; None: neither.
    since_us: int | None = None
    # The server wants nobody before this time: `after_s` of `reconnect`, or Retry-After.
    not_before_us: int = 0
    # The former alone, for what is overdue.
    asked_us: int | None = None
    # When the 101 of the present or last connection was read.
    joined_us: int | None = None
    # Close code and time of the end; None: present, or away on purpose.
    ended: tuple[int, int] | None = None

    def asked(self, after_s: object, now_us: int) -> None:
        """`reconnect` was told."""
        after_s = after_s if isinstance(after_s, int | float) else 0
        self.asked_us = self.not_before_us = now_us + int(after_s * 1e6)

    def lost(self, code: int, now_us: int) -> None:
        self.ended = (code, now_us)
        if self.joined_us is None or now_us - self.joined_us > STEADY_S * 1e6:
            self.tries, self.since_us = 0, now_us
        else:
            self.failed(now_us)

    def left(self) -> None:
        """On purpose: whoever comes again comes for the first time."""
        self.tries, self.since_us, self.asked_us, self.ended = 0, None, None, None

    def failed(self, now_us: int, retry_after_s: float = 0.0) -> None:
        """A try was in vain; `retry_after_s` is what the answer asked for."""
        if self.since_us is None:
            self.since_us = now_us
        else:
            self.tries += 1
        self.not_before_us = max(self.not_before_us, now_us + int(retry_after_s * 1e6))

    def pause_s(self, now_us: int, random: Random) -> float:
        """Before the next try: none before the first of all, else what the server asked for and the jitter on top."""
        if self.since_us is None:
            return 0.0
        max_s = STEP_MAX_S if now_us - self.since_us < MINUTE_S * 1e6 else STEP_LATE_MAX_S
        # No float holds 2 to the 1,100th.
        step_s = min(STEP_FIRST_S * 2 ** min(self.tries, 10), max_s)
        return max(self.not_before_us - now_us, 0) / 1e6 + random.uniform(0, step_s)

    def arrived(self, joined_us: int, returns: Returns) -> None:
        """The 101 was read, after an absence or the first time."""
        if self.ended is not None:
            code, ended_us = self.ended
            returned = returns.setdefault(code, Returned())
            returned.away_us.append(joined_us - ended_us)
            if self.asked_us is not None:
                returned.overdue_us.append(joined_us - self.asked_us)
        self.joined_us, self.asked_us, self.ended = joined_us, None, None


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
