"""A second opinion on our queries: PromQL as far as we use it, worked out from raw /metrics pages. Not a Prometheus.

A rate here is what a counter gained between two pages, by the window; Prometheus finds the same from its own samples.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

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
        return self._with(other, lambda a, b: a / b if b else float("nan"))

    def __gt__(self, other: float) -> "Vector":  # type: ignore[override]
        return Vector({key: value for key, value in self.items() if value > other})

    def __or__(self, other: "Vector") -> "Vector":  # type: ignore[override]
        return Vector({**other, **self})


@dataclass(frozen=True)
class Observed:
    """`at_first`, `before` and `after`: the pages when the first scrape came, before the load, and now."""

    at_first: Page
    before: Page
    after: Page
    # Seconds of $__rate_interval: since `before`. A longer window began before anything did.
    window_s: int
    now: float
    # Recorded metric -> its expression.
    rules: Mapping[str, str]

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
        if name in self.rules:
            return Vector({key: value for key, value in self.evaluate(self.rules[name]).items() if fits(key, matchers)})
        return Vector({key: value for (n, key), value in self.after.items() if n == name and fits(key, matchers)})

    def _increase(self, selected: tuple[str, str, str]) -> Vector:
        name, matchers, window = selected
        start = self.before if _seconds(window) <= self.window_s else self.at_first
        return Vector(
            {
                key: value - start[name, key]
                for (n, key), value in self.after.items()
                if n == name and fits(key, matchers) and (name, key) in start
            }
        )

    def _rate(self, selected: tuple[str, str, str]) -> Vector:
        return self._increase(selected) / _seconds(selected[2])


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
