"""A row's outcome: its figures, its bars, and what they say together. Pure."""

from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["met", "missed", "invalid", "failed"]
FLOOR_P99_FACTOR = 2.5


@dataclass(frozen=True)
class Bar:
    """One promise: `value` must not be above `limit` (with `at_least`: not below)."""

    name: str
    value: float
    limit: float
    unit: str = ""
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        return f"{self.name} {sign} {figure(self.limit)}{self.unit}"


def p99_bar(p99_ms: float, reach_ms: float, floor_p99_ms: float) -> Bar:
    """A machine on which the floor itself is slow raises the bar: max(reach, 2.5 × the floor's p99)."""
    return Bar("p99", p99_ms, max(reach_ms, FLOOR_P99_FACTOR * floor_p99_ms), " ms")


@dataclass
class Row:
    """What is printed of a row. Figures that a row does not have stay None."""

    name: str
    work: str
    node_us: float | None = None
    floor_us: float | None = None
    broker_us: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    floor_p99_ms: float | None = None
    figure: str = ""  # what the columns do not say
    bars: list[Bar] = field(default_factory=list)
    lost: int = 0
    doubled: int = 0
    wrongs: list[str] = field(default_factory=list)  # lost, doubled, cut, …: any of them fails the row
    driver_share: float = 0.0  # the highest of its runs
    invalid: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def multiple(self) -> float | None:
        return self.node_us / self.floor_us if self.node_us and self.floor_us else None

    @property
    def verdict(self) -> Verdict:
        """A wrong delivery outweighs everything; a driver at its limit, every figure."""
        if self.wrongs:
            return "failed"
        if self.invalid:
            return "invalid"
        return "met" if all(bar.met for bar in self.bars) else "missed"


def figure(value: float | None) -> str:
    """Three significant digits, thousands with commas; a dash for what there is not."""
    if value is None:
        return "–"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
