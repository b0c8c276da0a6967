"""The highest rate that holds: steps up from a guess, then halves the gap. Knows nothing of servers."""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import Literal

Outcome = Literal["held", "broke", "driver"]
STEP = 1.6
GAP = 1.08  # the answer is at most 8 % too low
TRIALS_MAX = 10


@dataclass(frozen=True)
class Found:
    """`rate` held (0: none did). `limit` says what the next higher rate that was tried ran into."""

    rate: float
    limit: Outcome


def highest(trial: Callable[[float], Outcome], guess: float) -> Found:
    """Tries at most `TRIALS_MAX` rates; a rate that breaks is tried once more before it counts as broken."""
    held, broken, limit = 0.0, 0.0, "held"
    rate, trials, second_try = guess, 0, False
    while trials < TRIALS_MAX and not (held and broken and broken / held <= GAP):
        outcome = trial(rate)
        trials += 1
        if outcome == "held":
            held, second_try = rate, False
        elif outcome == "broke" and not second_try and held and not broken:
            second_try = True  # the first rate that broke decides the upper half: noise must not
            continue
        else:
            broken, limit, second_try = rate, outcome, False
        rate = _next(held, broken)
    return Found(held, limit)  # type: ignore[arg-type]  # it holds outcomes only


def _next(held: float, broken: float) -> float:
    if not broken:
        return held * STEP
    if not held:
        return broken / (2 * STEP)
    return sqrt(held * broken)
