"""Who is there when, who acts when: a pure function of the seed, the shape and the rate. No clock, no I/O."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from loadtest.shapes import LoadTestShape

# A shape that never ends would be asked for ever: a week of ticks.
TICKS_MAX = 7 * 24 * 3600

Stay = tuple[float, float]  # from, until: seconds since the run began


class BadPlan(Exception):
    """The options or the shape make no run; the text says why."""


@dataclass(frozen=True)
class Population:
    """When each user is there. User 0 comes first and goes last."""

    stays: tuple[tuple[Stay, ...], ...]
    end_s: float

    @property
    def size(self) -> int:
        return len(self.stays)

    def present(self, at_s: float) -> int:
        """How many should be there at this time."""
        return sum(any(start <= at_s < stop for start, stop in stays) for stays in self.stays)


def population(shape: LoadTestShape, end_s: float | None = None) -> Population:
    """Ask the shape once for every second and follow it: `spawn_rate` is also the rate of leaving."""
    corners, stop_s = _curve(shape, end_s)
    opened: list[float] = []
    stays: list[list[Stay]] = []
    for (from_s, low), (to_s, high) in pairwise(corners):
        slope = (high - low) / (to_s - from_s) if to_s > from_s else 0.0
        # The number present is above `user` from the moment the curve passes `user` upwards.
        while len(opened) < high:
            user = len(opened)
            start = max(from_s, from_s + (user - low) / slope)
            opened.append(start)
            if user == len(stays):
                stays.append([])
        while len(opened) > math.ceil(high):
            user = len(opened) - 1
            until = min(to_s, from_s + (user - low) / slope)
            stays[user].append((opened.pop(), until))
    while opened:
        user = len(opened) - 1
        stays[user].append((opened.pop(), stop_s))
    return Population(tuple(tuple(s for s in user if s[1] > s[0]) for user in stays), stop_s)


def _curve(shape: LoadTestShape, end_s: float | None) -> tuple[list[tuple[float, float]], float]:
    """Corners (second, users) of the number of users over time, and when the run ends."""
    corners = [(0.0, 0.0)]
    users = 0.0
    second = 0
    while end_s is None or second < end_s:
        shape.run_time_s = float(second)
        tick = shape.tick()
        if tick is None:
            return corners, float(second)
        target, rate = tick
        if target < 0 or rate <= 0 or not math.isfinite(rate):
            raise BadPlan(f"the shape's tick at {second} s gave {tick!r}: users from 0 and a rate above 0, please")
        step = max(-rate, min(rate, target - users))
        # Where the target is reached within the second the curve has a corner.
        # Rounded, so that 0.1 + 0.2 users are not one user more than 0.3.
        users = round(users + step, 9)
        corners.append((second + abs(step) / rate, users))
        second += 1
        if corners[-1][0] < second:
            corners.append((float(second), users))
        if second > TICKS_MAX:
            raise BadPlan("the shape never ends: give --run-time, or return None from tick")
    return corners, end_s


def actions(seed: int, user: int, stays: Sequence[Stay], rate: float) -> Iterator[float]:
    """The times at which a user acts: a Poisson process of `rate` per second while the user is there."""
    if rate <= 0:
        return
    random = Random(f"{seed}:actions:{user}")
    for start, stop in stays:
        at_s = start + random.expovariate(rate)
        while at_s < stop:
            yield at_s
            at_s += random.expovariate(rate)


def deal(weights: Sequence[int], seats: Sequence[int | None], users: int, rooms: int, rooms_each: int = 1) -> list[int]:
    """Which class each user is of. Rooms fill evenly: user i sits in so many of them from i * rooms_each on, counted
    round; classes with `seats` are dealt first.

    The others are dealt by weight, evenly (smooth weighted round robin), so that any stretch of users
    has them in proportion.
    """
    fixed = [kind for kind, count in enumerate(seats) for _ in range(count or 0)]
    by_weight = [0 if count is not None else weight for weight, count in zip(weights, seats, strict=True)]
    total = sum(by_weight)
    score = [0] * len(weights)
    dealt = []
    for user in range(users):
        seat = user * rooms_each // rooms
        if seat < len(fixed):
            dealt.append(fixed[seat])
            continue
        if total == 0:
            raise BadPlan(f"the scenario seats {len(fixed)} per room, {users} users in {rooms} rooms are more")
        score = [s + w for s, w in zip(score, by_weight, strict=True)]
        best = max(range(len(score)), key=score.__getitem__)
        score[best] -= total
        dealt.append(best)
    return dealt


def worker_of(user: int, rooms: int, processes: int, rooms_each: int = 1) -> int:
    """Which process runs a user: whole rooms where that can be, else every n-th user."""
    return (user % rooms if rooms >= processes and rooms_each == 1 else user) % processes
