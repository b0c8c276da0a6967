"""A second opinion on our queries: PromQL as far as we use it, worked out from raw /metrics pages. Not a Prometheus.

Given the pages that Prometheus was handed, and when, the result is Prometheus' own to the last digits or so.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]
# Everything that one moment's pages say: (metric, labels) -> value.
Page = dict[tuple[str, Labels], float]

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
MATCHER = re.compile(rf'({NAME})\s*(=~|!~|!=|=)\s*"([^"]*)"')
AGGREGATION = re.compile(r"\b(sum|max|min)\b\s*(?:by\s*\(([^)]*)\))?\s*\(")
SELECTOR = re.compile(rf"(?<![\w\"'])({NAME})(\{{[^}}]*\}})?(?:\[(\w+)\])?(?!\s*\(|[\w\"'(])")
UNITS = {"s": 1, "m": 60, "h": 3600}


def page(text: str, **labels: str) -> Page:
    """A /metrics text; `labels` are what a scrape adds (job, instance)."""
    return {
        (sample.name, frozenset({**sample.labels, **labels}.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def selectors(expr: str) -> set[str]:
    """The metric names in an expression; its labels, functions and keywords are none."""
    bare = re.sub(r'\{[^}]*\}|\[[^\]]*\]|"[^"]*"', " ", expr)
    bare = re.sub(r"\b(by|on|ignoring|without|group_left|group_right)\s*\([^)]*\)", " ", bare)
    words = {match[1] for match in re.finditer(rf"(?<![\w.])({NAME})(?!\s*\()\b", bare)}
    return words - {"and", "or", "unless", "by", "on", "ignoring", "without", "sum", "max", "min", "bool"}


class Vector(dict[Labels, float]):
    """An instant vector, without metric names: they are dropped where something is worked out, and we compare there."""

    def _with(self, other: "Vector | float", work: Callable[[float, float], float]) -> "Vector":
        if isinstance(other, Vector):
            return Vector({key: work(value, other[key]) for key, value in self.items() if key in other})
        return Vector({key: work(value, other) for key, value in self.items()})

    def __add__(self, other: "Vector | float") -> "Vector":
        return self._with(other, lambda a, b: a + b)

    def __sub__(self, other: "Vector | float") -> "Vector":
        return self._with(other, lambda a, b: a - b)

    def __rsub__(self, other: float) -> "Vector":
        return self._with(other, lambda a, b: b - a)

    def __truediv__(self, other: "Vector | float") -> "Vector":
        return self._with(other, _quotient)

    def __gt__(self, other: float) -> "Vector":  # type: ignore[override]
        return Vector({key: value for key, value in self.items() if value > other})

    def __or__(self, other: "Vector") -> "Vector":  # type: ignore[override]
        return Vector({**other, **self})


@dataclass(frozen=True)
class Observed:
    """What Prometheus knows at `now`."""

    # Each series' samples, oldest first: when (Unix seconds), and its value.
    samples: Mapping[tuple[str, Labels], Sequence[tuple[float, float]]]
    # What the targets' last pages say.
    latest: Page
    # Recorded metric -> what Prometheus has of it.
    recorded: Mapping[str, Vector]
    now: float
    # Prometheus changed how it guesses what a counter did between the window's start and its first sample, when that
    # lies more than a scrape behind: False is 2.42's way, True is 3's.
    short_start: bool = False

    def evaluate(self, expr: str) -> Vector:
        """Raises SyntaxError or NameError for PromQL that is not ours."""
        python = AGGREGATION.sub(lambda m: f"aggregate('{m[1]}', '{m[2] or ''}')(", " ".join(expr.split()))
        python = re.sub(r"\bor\b", "|", python)
        names: dict[str, object] = {
            "aggregate": aggregate, "rate": self._rate, "increase": self._increase, "time": lambda: self.now,
            "histogram_quantile": histogram_quantile,
        }  # fmt: skip
        found: list[object] = []

        def replace(match: re.Match[str]) -> str:
            if match[1] in names or match[1] == "_":
                return match[0]
            found.append((match[1], match[2] or "", match[3]) if match[3] else self._select(match[1], match[2] or ""))
            return f"_[{len(found) - 1}]"

        outside = re.split(r"('[^']*')", python)
        outside[::2] = [SELECTOR.sub(replace, part) for part in outside[::2]]
        result = eval("".join(outside), {"__builtins__": {}, "_": found, **names})
        assert isinstance(result, Vector), expr
        return result

    def _select(self, name: str, matchers: str) -> Vector:
        if name in self.recorded:
            return Vector({key: value for key, value in self.recorded[name].items() if fits(key, matchers)})
        return Vector({key: value for (n, key), value in self.latest.items() if n == name and fits(key, matchers)})

    def _increase(self, selected: tuple[str, str, str]) -> Vector:
        return self._gained(selected, per_s=False)

    def _rate(self, selected: tuple[str, str, str]) -> Vector:
        return self._gained(selected, per_s=True)

    def _gained(self, selected: tuple[str, str, str], per_s: bool) -> Vector:
        name, matchers, window = selected
        since = self.now - _seconds(window)
        vector = Vector()
        for (n, key), samples in self.samples.items():
            if n == name and fits(key, matchers):
                within = [(at, value) for at, value in samples if since <= at <= self.now]
                if len(within) > 1:
                    factor = self._extrapolation(within, since)
                    vector[key] = _raw_increase(within) * (factor / _seconds(window) if per_s else factor)
        return vector

    def _extrapolation(self, samples: Sequence[tuple[float, float]], since: float) -> float:
        """Prometheus' extrapolatedRate (promql/functions.go): the samples' span, lengthened to the window's ends."""
        (first_at, first), (last_at, _) = samples[0], samples[-1]
        span_s, increase = last_at - first_at, _raw_increase(samples)
        step_s = span_s / (len(samples) - 1)
        start_s, end_s = first_at - since, self.now - last_at
        if self.short_start and start_s >= step_s * 1.1:
            start_s = step_s / 2
        if increase > 0 and first >= 0:
            # A counter can't have been below zero.
            start_s = min(start_s, span_s * (first / increase))
        ends = (end if end < step_s * 1.1 else step_s / 2 for end in (start_s, end_s))
        return (span_s + sum(ends)) / span_s


def _raw_increase(samples: Sequence[tuple[float, float]]) -> float:
    values = [value for _, value in samples]
    restarts = sum(before for before, after in pairwise(values) if after < before)
    return values[-1] - values[0] + restarts


def _quotient(a: float, b: float) -> float:
    return a / b if b else math.copysign(math.inf, a) if a else math.nan


def fits(labels: Labels, matchers: str) -> bool:
    """Whether labels are what `{a="b", c=~"d"}` asks for."""
    have = dict(labels)
    for label, operator, wanted in MATCHER.findall(matchers):
        value = have.get(label, "")
        same = re.fullmatch(wanted, value) is not None if "~" in operator else value == wanted
        if same == operator.startswith("!"):
            return False
    return True


def aggregate(how: str, by: str) -> Callable[[Vector], Vector]:
    kept = {label.strip() for label in by.split(",")} - {""}
    work = {"sum": sum, "max": max, "min": min}[how]

    def over(vector: Vector) -> Vector:
        groups: dict[Labels, list[float]] = {}
        for labels, value in vector.items():
            groups.setdefault(frozenset(pair for pair in labels if pair[0] in kept), []).append(value)
        return Vector({labels: work(values) for labels, values in groups.items()})

    return over


def histogram_quantile(q: float, buckets: Vector) -> Vector:
    """As Prometheus: linear between a bucket's bounds; the highest finite bound for what is beyond it."""
    series: dict[Labels, list[tuple[float, float]]] = {}
    for labels, count in buckets.items():
        bound = float(dict(labels)["le"])
        series.setdefault(frozenset(pair for pair in labels if pair[0] != "le"), []).append((bound, count))
    return Vector({labels: _quantile(q, sorted(counts)) for labels, counts in series.items()})


def _quantile(q: float, counts: list[tuple[float, float]]) -> float:
    total = counts[-1][1]
    if not total:
        return float("nan")
    low_bound, low = 0.0, 0.0
    for bound, count in counts:
        if count >= q * total:
            if bound == float("inf"):
                return low_bound
            return low_bound + (bound - low_bound) * (q * total - low) / (count - low) if count > low else bound
        low_bound, low = bound, count
    raise AssertionError("a histogram ends with +Inf")


def _seconds(window: str) -> int:
    return int(window[:-1]) * UNITS[window[-1]]
