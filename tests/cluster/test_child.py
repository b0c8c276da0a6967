"""Child processes that are kept: started again with growing pauses, ended within a budget."""

import asyncio
import signal
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable

import psutil
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from gateway.process.child import Backoff, Kept, end, exit_text, spawn
from gateway.process.hurry import unless
from tests.support.process import alive
from tests.support.until import until

QUICK = Backoff(first_s=0.01, cap_s=0.05)


def python(code: str) -> Callable[[], Awaitable[Process]]:
    return lambda: spawn([sys.executable, "-c", code])


@given(st.lists(st.floats(0, 29), max_size=60))
def test_pauses_double_up_to_the_cap_and_half_of_each_is_chance(lives_s: list[float]) -> None:
    backoff = Backoff(first_s=0.5, cap_s=15.0, calm_s=30.0)
    for deaths, lived_s in enumerate(lives_s):
        full_s = min(15.0, 0.5 * 2**deaths)
        assert full_s / 2 <= backoff.after(lived_s) <= full_s
    assert backoff.after(30.0) <= 0.5, "a long life counts as healthy"


async def test_a_child_that_dies_is_started_again_with_a_reason_in_the_log() -> None:
    kept = Kept("child", python("import sys; sys.exit(7)"), last_words=lambda: "no disk", backoff=QUICK)
    with structlog.testing.capture_logs() as lines:
        await kept.start()
        await until(lambda: kept.restarts >= 3, "three restarts")
        await kept.stop(signal.SIGTERM, 10)
    died = [line for line in lines if line["event"] == "child died"]
    assert len(died) >= 3
    assert {line["why"] for line in died} == {"exit code 7: no disk"}


async def test_a_child_that_hangs_is_killed_and_started_again_with_the_reason() -> None:
    """It has not ended and never will by itself."""

    async def hangs() -> str:
        return "it says nothing"

    kept = Kept("child", python("import time; time.sleep(600)"), hangs=hangs, backoff=QUICK)
    with structlog.testing.capture_logs() as lines:
        await kept.start()
        await until(lambda: kept.restarts >= 2, "two restarts")
        await kept.stop(signal.SIGTERM, 10)
    said = [(line["event"], line.get("why")) for line in lines]
    assert said[:3] == [
        ("child hangs and is killed", "it says nothing"),
        ("child died", "SIGKILL"),
        ("child runs again", None),
    ]


async def test_a_final_code_ends_the_keeping() -> None:
    kept = Kept("child", python("import sys; sys.exit(2)"), final_codes=[2], backoff=QUICK)
    async with asyncio.timeout(20):
        assert await (await kept.start()) == 2
    assert kept.restarts == 0


async def test_a_child_that_never_serves_again_is_tried_again_and_again() -> None:
    """The first start raises, for somebody is waiting; a later one is a death like any other."""
    healthy = True

    async def settle(child: Process) -> None:
        if not healthy:
            raise RuntimeError("the disk is full")

    kept = Kept("child", python("import time; time.sleep(600)"), settle=settle, backoff=QUICK)
    await kept.start()
    assert kept.process is not None
    healthy = False
    with structlog.testing.capture_logs() as lines:
        kept.process.kill()
        await until(lambda: len(lines) >= 3, "three deaths")
        healthy = True
        await until(lambda: lines[-1]["event"] == "child runs again", "it serves")
        await kept.stop(signal.SIGTERM, 10)
    assert [line["why"] for line in lines[:3]] == ["SIGKILL", "the disk is full", "the disk is full"]
    healthy = False
    with pytest.raises(RuntimeError, match="the disk is full"):
        await kept.start()
    await kept.stop(signal.SIGKILL, 10)


async def test_stopped_during_its_pause_it_stays_down() -> None:
    kept = Kept("child", python("pass"), backoff=Backoff(first_s=600, cap_s=600))
    with structlog.testing.capture_logs() as lines:
        await kept.start()
        await until(lambda: lines, "it died")
        assert await kept.stop(signal.SIGTERM, 10)
    assert kept.restarts == 0


async def test_stopped_at_any_moment_no_child_is_left() -> None:
    """A start that is interrupted half-way must not leave a process that nobody knows."""
    others = psutil.Process().children()
    for turns in range(60):
        kept = Kept("child", python("import time; time.sleep(600)"), backoff=QUICK)
        starting = asyncio.create_task(kept.start())
        for _ in range(turns):
            await asyncio.sleep(0)
        starting.cancel()
        await asyncio.wait([starting])
        await kept.stop(signal.SIGKILL, 10)
        left = [child for child in psutil.Process().children() if child not in others]
        assert [child for child in left if alive(child.pid)] == []


async def test_a_child_that_ignores_the_signal_is_killed_after_the_budget() -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); signal.pause()"
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", deaf, stdout=asyncio.subprocess.PIPE)
    assert child.stdout is not None
    await child.stdout.readline()
    began = time.monotonic()
    assert not await end(child, signal.SIGTERM, 0.2)
    assert time.monotonic() - began >= 0.2
    assert not alive(child.pid)
    assert exit_text(child.returncode or 0) == "SIGKILL"


@pytest.mark.parametrize("code, text", [(0, "exit code 0"), (3, "exit code 3"), (-15, "SIGTERM"), (-40, "signal 40")])
def test_an_exit_is_named(code: int, text: str) -> None:
    assert exit_text(code) == text


async def test_unless_gives_way_to_its_event() -> None:
    event, over = asyncio.Event(), asyncio.Event()

    async def step() -> int:
        try:
            await asyncio.Event().wait()
        finally:
            over.set()
        return 1

    running = asyncio.create_task(unless(event, step()))
    await asyncio.sleep(0)
    event.set()
    assert await running is None
    assert over.is_set()
    assert await unless(event, step()) is None
    assert await unless(asyncio.Event(), asyncio.sleep(0, result=5)) == 5
    with pytest.raises(ZeroDivisionError):
        await unless(asyncio.Event(), _fails())


async def _fails() -> None:
    raise ZeroDivisionError
