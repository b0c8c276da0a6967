"""The raw result of a run as JSON, schema `hiroba-loadtest/1`: see docs/load-testing.md. No files here."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from loadtest.crew import Crew
from loadtest.histogram import PERCENTILES, Histogram
from loadtest.judge import Counts, judge
from loadtest.returns import Returns, away, overdue, rows
from loadtest.spec import Spec
from loadtest.thresholds import KINDS, Threshold
from loadtest.timeline import Timeline
from loadtest.verdict import Outcome, reach

SCHEMA = "hiroba-loadtest/1"
LIBRARIES = ("uvloop", "numpy", "hdrhistogram")
ROOMS_SHOWN_MAX = 20


def result_of(
    spec: Spec,
    crew: Crew,
    thresholds: Sequence[Threshold],
    speaks: bool,
    command: str,
    began: datetime,
    server: dict[str, Any] | None,
) -> dict[str, Any]:
    """Judge the run and put everything that was measured into one object, the verdict first."""
    timeline, tally = crew.timeline, crew.tally()
    counts, rooms = judge(crew.rooms)
    latency, service = timeline.total(timeline.latency), timeline.total(timeline.service)
    outcome = Outcome(
        counts=counts,
        planned=tally["planned"],
        sent=tally["sent"],
        unsent=tally["unsent"],
        not_begun=tally["not_begun"],
        not_resumable=tally["not_resumable"],
        speaks=speaks,
        connected=tally["connected"],
        users=spec.users,
        never_in=tally["never_in"],
        latency_p99_ms=latency.percentile_ms(99),
        cpu_share=_busy(timeline),
        lag_p99_ms=timeline.lag.percentile_ms(99),
        slip_p99_ms=timeline.slip.percentile_ms(99),
        refusals=crew.refusals(),
        closes=crew.closes(),
        errors=crew.errors(),
        dead=crew.dead,
        interrupted=crew.interrupted,
    )
    returns = crew.returns()
    numbers = _counts(counts, tally, outcome)
    rates = _rates(timeline)
    times = _times(latency, service, timeline.connect, returns)
    values = _values(numbers, rates, times, server)
    verdict = reach(outcome, thresholds, values)
    return {
        "schema": SCHEMA,
        "verdict": verdict.verdict,
        "headline": verdict.headline,
        "reasons": verdict.reasons,
        "notes": verdict.notes,
        "model": _model(spec),
        "counts": numbers,
        "latency_ms": times["latency"],
        "service_ms": times["service"],
        "connect_ms": times["connect"],
        "away_ms": times["away"],
        "overdue_ms": times["overdue"],
        "rates": rates,
        "thresholds": [{"text": t.text, "crossed": t.crossed(values)} for t in thresholds],
        "scenarios": _scenarios(crew),
        "rooms_with_violations": {name: vars(c) for name, c in list(rooms.items())[:ROOMS_SHOWN_MAX]},
        "closes": dict(outcome.closes),
        "returns": rows(returns),
        "refusals": dict(outcome.refusals),
        "errors": dict(outcome.errors),
        "generator": _generator(crew, outcome),
        "server": server,
        "timeline": timeline.as_rows(),
        "spectrum": {"latency": latency.spectrum(), "service": service.spectrum()},
        "histograms": {"latency": latency.encoded(), "service": service.encoded()},
        "run": spec.public() | {"command": command, "began": began.isoformat(timespec="seconds")},
        "environment": environment(),
    }


def environment() -> dict[str, Any]:
    """Where the generator ran; the server may be elsewhere."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def _busy(timeline: Timeline) -> float:
    """Mean CPU share of the busiest worker while the plan was running."""
    shares = [second.cpu_share for second in timeline.seconds if not second.settling]
    return sum(shares) / len(shares) if shares else 0.0


def _model(spec: Spec) -> str:
    if spec.rate is None:
        return "closed: each user acts, waits for the acknowledgement, pauses, acts again"
    return (
        f"open: {spec.rate:g} messages/s as planned, whatever the server does; latency from the planned time;"
        " wait_time is ignored"
    )


def _counts(counts: Counts, tally: Counter[str], outcome: Outcome) -> dict[str, int]:
    return {
        "sent": outcome.sent,
        "expected": counts.expected,
        "delivered": counts.delivered,
        "lost": counts.lost,
        "doubled": counts.doubled,
        "reordered": counts.reordered,
        "foreign": counts.foreign,
        "gaps": counts.gaps,
        "invented": counts.invented,
        "vanished": counts.vanished,
        "unconfirmed": counts.unconfirmed,
        "replayed": counts.replayed,
        "planned": outcome.planned,
        "unsent": outcome.unsent,
        "not_begun": outcome.not_begun,
        "connected": outcome.connected,
        "never_in": outcome.never_in,
        "resumed": tally["resumed"],
        "not_recovered": tally["not_recovered"],
        "refused": sum(outcome.refusals.values()),
        "closed": sum(outcome.closes.values()),
        "errors": sum(outcome.errors.values()),
    }


def _rates(timeline: Timeline) -> dict[str, float]:
    """Means and peaks over the seconds in which the plan was running."""
    running = [s for s in timeline.seconds if not s.settling]
    lasted = max(len(running), 1)
    return {
        "sent_per_s": round(sum(s.sent_per_s for s in running) / lasted, 1),
        "delivered_per_s": round(sum(s.delivered_per_s for s in running) / lasted, 1),
        "delivered_per_s_peak": max((s.delivered_per_s for s in running), default=0.0),
        "users_peak": max((s.users for s in timeline.seconds), default=0),
    }


def _times(
    latency: Histogram, service: Histogram, connect: Histogram, returns: Returns
) -> dict[str, dict[str, float | None]]:
    return {
        "latency": latency.summary_ms(),
        "service": service.summary_ms(),
        "connect": connect.summary_ms(),
        "away": away(returns).summary_ms(),
        "overdue": overdue(returns).summary_ms(),
    }


def _values(
    numbers: dict[str, int],
    rates: dict[str, float],
    times: dict[str, dict[str, float | None]],
    server: dict[str, Any] | None,
) -> dict[str, float | None]:
    """What a threshold may ask for."""
    values: dict[str, float | None] = {**numbers, **rates, **times["latency"]}
    for kind in KINDS:
        values |= {f"{kind}.{name}": value for name, value in times[kind].items()}
    return values | ((server or {}).get("figures") or {})


def _scenarios(crew: Crew) -> list[dict[str, Any]]:
    timeline = crew.timeline
    rows = []
    for name, users in sorted(crew.users_by_scenario().items()):
        latency = timeline.latency.get(name, Histogram())
        times = {p: latency.percentile_ms(at) for p, at in PERCENTILES.items()}
        rows.append(
            {
                "name": name,
                "users": users,
                "deliveries_timed": latency.total,
                "latency_ms": times | {"max": latency.percentile_ms(100)},
                "slow_on_purpose": name in timeline.slow,
            }
        )
    return rows


def _generator(crew: Crew, outcome: Outcome) -> dict[str, Any]:
    return {
        "workers": [
            {"cpu_share": round(d.cpu_s / max(d.wall_s, 1e-6), 3), "cpu_s": round(d.cpu_s, 2)} for d in crew.done
        ],
        "cpu_share": round(outcome.cpu_share, 3),
        "lag_ms": crew.timeline.lag.summary_ms(),
        "slip_ms": crew.timeline.slip.summary_ms(),
        "dead": list(crew.dead),
    }
