"""How many users there should be, and when: Locust's `LoadTestShape` and the built-in shapes. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

Tick = tuple[int, float]


class LoadTestShape:
    """Subclass it in a scenario file and give it `tick`.

    The plan asks once for every second before the run begins, so `tick` may depend on `get_run_time()` and
    nothing else; two runs with one seed are then the same run.
    """

    run_time_s = 0.0

    def get_run_time(self) -> float:
        """Seconds since the run began."""
        return self.run_time_s

    def tick(self) -> Tick | None:
        """(users, users started or stopped per second); None ends the run."""
        raise NotImplementedError("a LoadTestShape needs a tick method")


@dataclass
class Built(LoadTestShape):
    """Base of the built-in ones: they know what the command line asked for."""

    users: int
    spawn_rate: float
    duration_s: float

    def tick(self) -> Tick | None:
        if self.run_time_s >= self.duration_s:
            return None
        return self.target(self.run_time_s / self.duration_s)

    def target(self, share: float) -> Tick:
        """Users and spawn rate when this share (0 to 1) of the run is over."""
        raise NotImplementedError


@dataclass
class Constant(Built):
    """All users, as fast as --spawn-rate lets them in."""

    def target(self, share: float) -> Tick:
        return self.users, self.spawn_rate


@dataclass
class Ramp(Built):
    """From none to all in a straight line over `until` of the run."""

    until: float = 1.0

    def target(self, share: float) -> Tick:
        return self.users, self.users / (self.duration_s * self.until)


@dataclass
class Steps(Built):
    """`count` equal steps: shows at which one the server begins to suffer."""

    count: int = 5

    def target(self, share: float) -> Tick:
        step = min(int(share * self.count) + 1, self.count)
        return math.ceil(self.users * step / self.count), self.spawn_rate


@dataclass
class Spike(Built):
    """A `base` share of the users, and all of them between `begin` and `end` of the run."""

    base: float = 0.2
    begin: float = 0.4
    end: float = 0.6

    def target(self, share: float) -> Tick:
        high = self.begin <= share < self.end
        return (self.users if high else math.ceil(self.users * self.base)), self.spawn_rate


SHAPES: dict[str, Callable[..., Built]] = {
    "constant": Constant,
    "ramp": Ramp,
    "steps": Steps,
    "spike": Spike,
}
