"""`--fail-if 'p99 > 200ms'`: what the owner demands of a run. Pure."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from loadtest.histogram import PERCENTILES
from loadtest.spec import BadSpec

_FORM = re.compile(r"\s*([a-z_.0-9]+)\s*(>=|<=|>|<|==|!=)\s*([0-9.]+)\s*(us|ms|s|%)?\s*")
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}
_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0, None: 1.0}
_TIMES = (*PERCENTILES, "max", "mean")
# Beside the latency, whose names stand alone.
KINDS = ("service", "connect", "away", "overdue")
TIMES = (*_TIMES, *(f"{kind}.{name}" for kind in KINDS for name in _TIMES))
NUMBERS = (
    "sent",
    "expected",
    "delivered",
    "lost",
    "doubled",
    "reordered",
    "foreign",
    "gaps",
    "unsent",
    "errors",
    "refused",
    "closed",
    "sent_per_s",
    "delivered_per_s",
    "cpu_per_delivery_us",
    "memory_per_connection_bytes",
)


@dataclass(frozen=True)
class Threshold:
    """The run fails if this is so. Times in milliseconds, everything else a plain number."""

    text: str
    name: str
    comparison: str
    bound: float

    def crossed(self, values: Mapping[str, float | None]) -> bool:
        """Unknown is never within bounds: nobody can promise what was not measured."""
        value = values.get(self.name)
        return value is None or _COMPARE[self.comparison](value, self.bound)

    def told(self, values: Mapping[str, float | None]) -> str:
        value = values.get(self.name)
        unit = " ms" if self.name in TIMES else ""
        return f"{self.text} (it was {'not measured' if value is None else f'{value:,.6g}{unit}'})"


def read_threshold(text: str) -> Threshold:
    form = _FORM.fullmatch(text)
    if form is None:
        raise BadSpec(f"--fail-if {text!r}: write it as 'p99 > 200ms' or 'lost > 0'")
    name, comparison, number, unit = form.groups()
    if name not in TIMES and name not in NUMBERS:
        near = get_close_matches(name, [*TIMES, *NUMBERS], 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join((*_TIMES, *NUMBERS))}"
        raise BadSpec(f"--fail-if {text!r}: unknown measure {name!r}: {hint}")
    if unit and (name in TIMES) == (unit == "%"):
        raise BadSpec(f"--fail-if {text!r}: {name} is not measured in {unit}")
    try:
        bound = float(number)
    except ValueError:
        raise BadSpec(f"--fail-if {text!r}: {number!r} is no number") from None
    return Threshold(text.strip(), name, comparison, bound * _MS[unit] if name in TIMES else bound)
