"""The node's clock: runs with the loop, never back, and a pause of the process does not count."""

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry import clock as clocks
from gateway.telemetry.clock import PAUSE_S, TICK_S, Clock
from tests.support.until import until


class World:
    """Real time, owned by the test."""

    def __init__(self) -> None:
        self.at = 1_000.0

    def monotonic(self) -> float:
        return self.at


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(clocks, "time", world)
    return world


def turns_of(clock: Clock, world: World, seconds: float) -> None:
    """The loop turned, and its timer came after so long."""
    world.at += seconds
    clock._tick(world.at)


def test_time_passes_while_the_loop_turns(world: World) -> None:
    clock = Clock()
    began = clock.now()
    for _ in range(50):
        turns_of(clock, world, TICK_S)
    assert clock.now() - began == pytest.approx(50 * TICK_S)
    world.at += 0.04
    assert clock.now() - began == pytest.approx(50 * TICK_S + 0.04), "between two ticks too"


def test_what_comes_in_behind_a_pause_was_sent_since_it_began(world: World) -> None:
    """Whether the tick or the socket is served first when the process goes on; a second later it is over."""
    clock = Clock()
    turns_of(clock, world, TICK_S)
    assert clock.awake_at(world.at + 0.5) == world.at + 0.5, "no pause"
    began = world.at
    assert clock.awake_at(world.at + 6) == began
    turns_of(clock, world, 6)
    assert clock.awake_at(world.at + 0.5) == began
    turns_of(clock, world, TICK_S)
    for _ in range(20):
        turns_of(clock, world, TICK_S)
    assert clock.awake_at(world.at) == world.at


def test_a_pause_does_not_count(world: World) -> None:
    """SIGSTOP for an hour: nobody's deadline comes because of it."""
    clock = Clock()
    pauses: list[float] = []
    clock.on_pause.append(pauses.append)
    began = clock.now()
    turns_of(clock, world, 3_600)
    assert clock.now() - began <= PAUSE_S
    assert pauses == [pytest.approx(3_600, abs=PAUSE_S)]
    turns_of(clock, world, TICK_S)
    assert clock.now() - began <= PAUSE_S + 2 * TICK_S and len(pauses) == 1


def test_while_the_loop_is_late_time_stands_still(world: World) -> None:
    """What runs first after a pause, before the clock's own tick, must not see it either."""
    clock = Clock()
    began = clock.now()
    world.at += 3_600
    assert clock.now() - began <= PAUSE_S


def test_a_busy_loop_is_no_pause(world: World) -> None:
    lags: list[float] = []
    clock = Clock(lags.append)
    clock.on_pause.append(lambda paused_s: pytest.fail("half a second is work"))
    began = clock.now()
    turns_of(clock, world, 0.5)
    assert clock.now() - began == pytest.approx(0.5)
    turns_of(clock, world, TICK_S / 2)
    assert lags == [pytest.approx(0.5 - TICK_S), 0.0], "a timer that came early is not late by less than nothing"


@given(st.lists(st.tuples(st.floats(0, 2 * PAUSE_S), st.booleans()), max_size=40))
def test_time_never_steps_back(steps: list[tuple[float, bool]]) -> None:
    """Whoever looks at the clock in a long turn of the loop, before and after it is known to be a pause."""
    world = World()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clocks, "time", world)
        clock = Clock()
        last = clock.now()
        for seconds, ticks in steps:
            world.at += seconds
            for _ in range(2):
                assert clock.now() >= last - 1e-9
                last = clock.now()
                if ticks:
                    clock._tick(world.at)


async def test_the_clock_runs_with_a_real_loop() -> None:
    lags: list[float] = []
    clock = Clock(lags.append)
    # Real time is read first here and last below: whatever passes between two readings is on its side.
    began_real, began = time.monotonic(), clock.now()
    running = asyncio.create_task(clock.run())
    await until(lambda: len(lags) >= 3, "three ticks")
    running.cancel()
    passed_s, passed_real_s = clock.now() - began, time.monotonic() - began_real
    # Of two readings far from 0, the differences are exact to a few of the last bits only.
    assert 2 * TICK_S <= passed_s <= passed_real_s + 1e-9
    assert min(lags) >= 0
