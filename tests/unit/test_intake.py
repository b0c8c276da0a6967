"""What an intake does beside serving: bugs of ours, waits that end with their client, what is no excess."""

import asyncio
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.core.closes import Close
from gateway.core.inbound import Frame
from gateway.core.wires import PLAIN
from gateway.edge import intake as intakes
from gateway.edge.context import Context
from gateway.edge.intake import Intake
from gateway.settings.model import Settings
from gateway.telemetry import clock as clocks
from gateway.telemetry.clock import TICK_S, Clock
from gateway.telemetry.metrics import Metrics
from tests.support.raw import frame
from tests.support.until import until


class Someone:
    """As much of a connection as its intake knows."""

    def __init__(self) -> None:
        self.id = "s"
        self.wire = PLAIN
        self.transport = SimpleNamespace(get_extra_info=lambda name: None)
        self.opened_at = intakes.time.monotonic()
        self.in_flight = 0
        self.requests = None
        self.closing: Close | None = None
        self.waiting = 0
        self.heard: list[bytes] = []
        self.is_read = True
        self.intake: Intake | None = None
        self.opened = asyncio.Event()

    def waiting_bytes(self) -> int:
        return self.waiting

    def hear(self, frame: Frame) -> None:
        self.heard.append(frame.payload)

    def stop_reading(self) -> None:
        self.is_read = False

    def read_on(self) -> None:
        self.is_read = True

    async def window(self) -> None:
        await self.opened.wait()

    async def drained(self) -> None:
        await self.opened.wait()

    def end(self, close: Close, text: str | None = None) -> None:
        self.closing = close
        if self.intake is not None:
            self.intake.end()


class Publisher:
    """Full, or not."""

    def __init__(self) -> None:
        self.is_full = False

    def full(self, sender: str) -> bool:
        return self.is_full

    async def space(self, sender: str) -> None:
        await asyncio.Event().wait()


class Desk:
    """A client, its intake, and what they stand on."""

    def __init__(self, client: Someone, **settings: Any) -> None:
        self.client = client
        self.publisher = Publisher()
        self.clock = Clock()
        self.metrics = Metrics()
        self.tasks: list[asyncio.Task[None]] = []
        broker, nobody = SimpleNamespace(publisher=self.publisher), cast(Any, None)
        context = Context(
            "n",
            Settings(**settings),
            cast(Any, broker),
            nobody,
            nobody,
            nobody,
            nobody,
            self.clock,
            self.metrics,
            nobody,
            self.keep,
        )
        self.intake = client.intake = Intake(cast(Any, client), context)

    def keep(self, name: str, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        self.tasks.append(asyncio.create_task(work, name=name))
        return self.tasks[-1]


def test_a_bug_ends_its_client_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """It is logged once, and nobody else notices."""

    class Buggy(Someone):
        def hear(self, frame: Frame) -> None:
            raise ZeroDivisionError("a bug")

    desk = Desk(Buggy())
    desk.intake.take(frame(b"") * 2)
    assert desk.client.closing is Close.ERROR
    assert capsys.readouterr().out.count("ZeroDivisionError: a bug") == 1


@pytest.mark.parametrize("why", ["its window", "space in the publisher", "its socket", "the rate"])
async def test_who_waits_for_a_client_that_ended_waits_no_more(why: str) -> None:
    """It waited until the publisher's queue moved, or for its rate: long after its socket was closed."""
    desk = Desk(Someone(), publish_window=1, messages_per_s=0.001, messages_burst=1)
    desk.client.in_flight = why == "its window"
    desk.publisher.is_full = why == "space in the publisher"
    desk.client.waiting = 10**9 if why == "its socket" else 0
    desk.intake.take(frame(b"one") + frame(b"two"))
    (task,) = desk.tasks
    for _ in range(3):
        await asyncio.sleep(0)
    assert desk.intake.held and not task.done()
    desk.client.end(Close.LOST)
    await until(task.done, "its task ends")
    assert not desk.intake.held
    assert desk.client.heard == ([b"one"] if why == "the rate" else [])


class World:
    """Real time, owned by the test."""

    def __init__(self) -> None:
        self.at = 1_000.0

    def monotonic(self) -> float:
        return self.at


async def test_what_waited_while_the_broker_stood_still_is_no_excess_however_busy_we_are_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All who were held go on at once when it is back: turns of the loop take long, and what waited comes late."""
    world = World()
    for module in (clocks, intakes):
        monkeypatch.setattr(module, "time", world)
    desk = Desk(Someone(), publish_window=1, messages_per_s=20, messages_burst=5)
    desk.client.in_flight = 1
    desk.intake.take(frame(b"first"))
    for _ in range(50):  # the broker stands still
        world.at += TICK_S
        desk.clock._tick(world.at)
    desk.client.in_flight = 0
    desk.client.opened.set()
    await until(lambda: desk.client.is_read, "it is read again")
    world.at += 0.8  # of this turn
    desk.clock._tick(world.at)
    desk.intake.take(b"".join(frame(b"%d" % n) for n in range(60)))
    assert desk.client.heard == [b"first", *(b"%d" % n for n in range(60))]
    assert not desk.metrics.slowed
    # And then it is as before: who was quiet for long may send a burst.
    for _ in range(100):
        world.at += TICK_S
        desk.clock._tick(world.at)
    desk.intake.take(frame(b"x") * 20)
    assert desk.client.heard.count(b"x") == 5
    desk.client.end(Close.LOST)


@pytest.mark.parametrize("messages_per_s", [0, 20])
async def test_who_joined_nothing_for_long_saved_up_no_more_joins_than_it_may_at_once(
    monkeypatch: pytest.MonkeyPatch, messages_per_s: float
) -> None:
    """Whatever its messages may: with no limit on those, an hour's joins came at once."""
    world = World()
    for module in (clocks, intakes):
        monkeypatch.setattr(module, "time", world)

    class Joiner(Someone):
        def hear(self, frame: Frame) -> None:
            super().hear(frame)
            assert self.intake is not None
            self.intake.charge_join()

    desk = Desk(Joiner(), messages_per_s=messages_per_s, messages_burst=100, joins_per_s=1, rooms_per_connection_max=10)
    desk.intake.take(frame(b"before") * 9)
    for _ in range(36_000):
        world.at += TICK_S
        desk.clock._tick(world.at)
    desk.intake.take(frame(b"join") * 50)
    assert desk.client.heard.count(b"join") == 10
    desk.client.end(Close.LOST)
