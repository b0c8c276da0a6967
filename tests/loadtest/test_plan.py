"""Who is there when, and who acts when: pure functions, so properties say what they promise."""

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest import LoadTestShape
from loadtest.plan import BadPlan, actions, deal, population, worker_of
from loadtest.shapes import SHAPES, Constant, Spike, Steps

users = st.integers(1, 200)
rates = st.floats(0.5, 100)
lengths = st.integers(1, 60)


@given(st.sampled_from(sorted(SHAPES)), users, rates, lengths)
def test_a_shape_never_exceeds_its_users_and_users_come_in_order(
    name: str, users: int, rate: float, length: int
) -> None:
    plan = population(SHAPES[name](users, rate, float(length)), float(length))
    assert plan.size <= users
    assert plan.end_s == length
    for stays in plan.stays:
        assert all(0 <= start < stop <= length for start, stop in stays)
        assert all(before[1] <= after[0] for before, after in pairwise(stays))
    starts = [stays[0][0] for stays in plan.stays if stays]
    assert starts == sorted(starts)


@given(users, st.integers(1, 50), lengths)
def test_constant_lets_in_the_spawn_rate_and_no_more(users: int, rate: int, length: int) -> None:
    plan = population(Constant(users, float(rate), float(length)), float(length))
    for second in range(length):
        assert plan.present(second + 0.999_999) == min(users, rate * (second + 1))


@given(users, st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)), min_size=1, max_size=30))
def test_any_shape_is_followed_at_its_own_rate(users: int, ticks: list[tuple[int, int]]) -> None:
    """The number present moves towards each tick's target by at most its rate, and never past it."""

    @dataclass
    class Drawn(LoadTestShape):
        def tick(self) -> tuple[int, float] | None:
            second = int(self.get_run_time())
            return ticks[second] if second < len(ticks) else None

    plan = population(Drawn())
    assert plan.end_s == len(ticks)
    present = 0
    for second, (target, rate) in enumerate(ticks):
        step = max(-rate, min(rate, target - present))
        present += step
        if second + 1 < len(ticks):
            # A moment before the next tick takes hold; when falling, users leave towards the second's end.
            assert plan.present(second + 0.999_999_9) in (present, present + (step < 0))


@given(st.integers(), st.integers(0, 10_000), st.floats(0.1, 50))
def test_actions_are_a_pure_function_of_the_seed(seed: int, user: int, rate: float) -> None:
    stays = [(1.0, 3.0), (5.0, 9.0)]
    first, again = list(actions(seed, user, stays, rate)), list(actions(seed, user, stays, rate))
    assert first == again == sorted(first)
    assert all(any(start <= at < stop for start, stop in stays) for at in first)
    assert first != list(actions(seed + 1, user, stays, rate)) or len(first) < 2


def test_actions_come_at_the_rate_that_was_asked_for() -> None:
    counts = [len(list(actions(1, user, [(0.0, 100.0)], 2.0))) for user in range(200)]
    assert sum(counts) == pytest.approx(200 * 200, rel=0.02)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), users)
def test_classes_are_dealt_by_weight(weights: list[int], users: int) -> None:
    dealt = deal(weights, [None] * len(weights), users, 1)
    for kind, weight in enumerate(weights):
        assert abs(dealt.count(kind) - users * weight / sum(weights)) <= len(weights)


@given(st.integers(1, 20), st.integers(2, 20))
def test_every_room_has_its_seats(rooms: int, size: int) -> None:
    dealt = deal([1, 1], [1, None], rooms * size, rooms)
    for room in range(rooms):
        assert [dealt[user] for user in range(room, rooms * size, rooms)].count(0) == 1


def test_more_users_than_seats_is_no_plan() -> None:
    with pytest.raises(BadPlan, match="seats 1 per room"):
        deal([1], [1], 10, 2)


@given(st.integers(1, 8), users, st.integers(1, 50))
def test_workers_share_the_users_and_keep_rooms_whole(processes: int, users: int, rooms: int) -> None:
    worker = [worker_of(user, rooms, processes) for user in range(users)]
    assert set(worker) <= set(range(processes))
    if rooms >= processes:
        assert all(worker[user] == worker[user % rooms] for user in range(users))
    else:
        counts = [worker.count(n) for n in range(processes)]
        assert max(counts) - min(counts) <= 1


def test_a_shape_that_gives_nonsense_is_refused() -> None:
    @dataclass
    class Still(LoadTestShape):
        def tick(self) -> tuple[int, float]:
            return 10, 0.0

    with pytest.raises(BadPlan, match="rate above 0"):
        population(Still(), 5.0)


def test_steps_and_spike_reach_what_they_name() -> None:
    steps = population(Steps(10, 100.0, 50.0, count=5), 50.0)
    assert [steps.present(at) for at in (5, 15, 25, 35, 45)] == [2, 4, 6, 8, 10]
    spike = population(Spike(10, 100.0, 10.0), 10.0)
    assert [spike.present(at) for at in (2, 5, 8)] == [2, 10, 2]
