"""How long calls gather: not at all when idle, gather_s apart, longer as the loop gets busier."""

import asyncio
import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.broker import pace as paces
from gateway.broker.pace import BUSY_SHARE, IDLE_SHARE, MEASURE_S, Pace


class Machine:
    """Time and CPU, owned by the test."""

    def __init__(self) -> None:
        self.at = self.cpu = 1_000.0

    def monotonic(self) -> float:
        return self.at

    def demand_s(self) -> float:
        return self.cpu

    def replace(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(paces, "time", self)
        patch.setattr(paces, "demand_s", self.demand_s)

    def work(self, pace: Pace, seconds: float, share: float) -> None:
        """The thread had this share of a core for so long, then a call goes."""
        self.at += seconds
        self.cpu += seconds * share
        turn = pace.turn()
        with pytest.raises(StopIteration):  # at once: enough time has passed
            turn.send(None)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    machine.replace(monkeypatch)
    return machine


def test_the_first_call_goes_at_once(machine: Machine) -> None:
    machine.work(Pace(1.0, 1.0), 0.0, 0.0)


async def test_the_next_call_waits_for_company(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until `gather_s` after the one before: no more and no less."""
    pace = Pace(1.0, 1.0)
    machine.work(pace, 0.0, 0.0)
    machine.at += 0.9
    slept_s = []

    async def sleep(seconds: float) -> None:
        slept_s.append(seconds)
        machine.at += seconds

    monkeypatch.setattr(paces.asyncio, "sleep", sleep)
    monkeypatch.setattr(asyncio.get_running_loop(), "time", machine.monotonic)
    await pace.turn()
    assert slept_s == [pytest.approx(0.1)]


async def test_calls_are_gather_s_apart() -> None:
    pace = Pace(0.02, 0.02)
    at = []
    for _ in range(4):
        await pace.turn()
        at.append(time.monotonic())
    # A timer of the loop may come a millisecond early: its clock is rounded.
    assert all(later - earlier >= 0.018 for earlier, later in pairwise(at))


def test_a_busy_loop_gathers_longer_and_an_idle_one_shorter_again(machine: Machine) -> None:
    pace = Pace(0.002, 0.02)
    for _ in range(100):
        machine.work(pace, MEASURE_S, 1.0)
    assert pace.gather_s == pytest.approx(0.02, rel=0.01)
    for _ in range(100):
        machine.work(pace, MEASURE_S, 0.1)
    assert pace.gather_s == pytest.approx(0.002, rel=0.01)


def test_between_idle_and_busy_the_wait_is_in_proportion(machine: Machine) -> None:
    waits = []
    for share in (IDLE_SHARE, (IDLE_SHARE + BUSY_SHARE) / 2, BUSY_SHARE):
        pace = Pace(0.002, 0.02)
        for _ in range(100):
            machine.work(pace, MEASURE_S, share)
        waits.append(pace.gather_s)
    assert waits == [pytest.approx(0.002, rel=0.01), pytest.approx(0.011, rel=0.01), pytest.approx(0.02, rel=0.01)]


def test_one_slow_turn_is_no_load(machine: Machine) -> None:
    pace = Pace(0.002, 0.02)
    machine.work(pace, MEASURE_S, 1.0)
    assert pace.gather_s < 0.007


def test_waiting_for_the_core_is_demand_too() -> None:
    """Two processes on one core: each gets half of it and wants all of it."""
    if not Path("/proc/thread-self/schedstat").exists():
        pytest.skip("this system does not count who waits for a core")
    core = min(os.sched_getaffinity(0))
    script = (
        f"import os, time; os.sched_setaffinity(0, [{core}]); from gateway.broker.pace import demand_s\n"
        "print(flush=True); input()\n"
        "began, used, wanted = time.monotonic(), time.thread_time(), demand_s()\n"
        "while time.monotonic() < began + 1: pass\n"
        "print(time.thread_time() - used, demand_s() - wanted, time.monotonic() - began)"
    )
    pair = [
        subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for each in pair:
        assert each.stdout is not None
        each.stdout.readline()
    # Both at once: communicate() of the first would let it run alone.
    for each in pair:
        assert each.stdin is not None
        each.stdin.write("\n")
        each.stdin.flush()
    for each in pair:
        used_s, wanted_s, wall_s = map(float, each.communicate(timeout=30)[0].split())
        assert used_s < 0.8 * wall_s
        assert wanted_s > 0.9 * wall_s


@given(
    st.floats(0, 0.1),
    st.floats(0, 0.1),
    st.lists(st.tuples(st.floats(0.2, 1e4), st.floats(0, 1.5)), max_size=30),
)
def test_the_wait_stays_between_its_bounds(
    gather_s: float, gather_max_s: float, turns: list[tuple[float, float]]
) -> None:
    """Whatever the clocks say; a maximum below the minimum is the minimum."""
    machine = Machine()
    with pytest.MonkeyPatch.context() as patch:
        machine.replace(patch)
        pace = Pace(gather_s, gather_max_s)
        for seconds, share in turns:
            machine.work(pace, seconds, share)
            assert gather_s - 1e-12 <= pace.gather_s <= max(gather_s, gather_max_s) + 1e-12
