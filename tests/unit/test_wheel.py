"""Who is quiet is pinged within ping_s of its last byte, always; who stays silent for as long again is dead."""

from typing import Any, cast

import pytest

from gateway.core.closes import Close
from gateway.edge.wheel import SLOTS, TURNS_PER_PING, Wheel
from gateway.settings.model import Settings
from gateway.telemetry.clock import Clock
from gateway.telemetry.metrics import Metrics

PING_S = 25.0
TURN_S = PING_S / TURNS_PER_PING


class Quiet:
    """As much of a connection as the wheel looks at."""

    def __init__(self, *, held: bool = False, waiting: int = 0) -> None:
        self.closing: Close | None = None
        self.held = held
        self.waiting = waiting
        self.quiet_looks = 0
        self.slot = 0
        self.pinged_at: list[float] = []
        self.dead_at: float | None = None
        self.now = 0.0

    def stalled(self, now: float, stall_s: float) -> bool:
        return False

    def waiting_bytes(self) -> int:
        return self.waiting

    def look_for_end(self) -> None:
        assert self.held

    def ask_for_life(self) -> None:
        self.pinged_at.append(self.now)

    def end(self, close: Close) -> None:
        assert close is Close.DEAD
        self.closing, self.dead_at = close, self.now


def turn(connection: Quiet, seconds: float, answers: bool, *, first_look_s: float, last_byte_s: float) -> float:
    """The wheel turns for so long; the last byte came at `last_byte_s`, then one for each ping, if it answers."""
    wheel = Wheel(Settings(ping_s=PING_S), Clock(), Metrics())
    look_s, longest_s, byte_s, spoken = first_look_s, 0.0, last_byte_s, False
    while look_s <= seconds:
        if not spoken and last_byte_s <= look_s:
            connection.quiet_looks, spoken = 0, True
        connection.now = look_s
        pings = len(connection.pinged_at)
        wheel._look(cast(Any, connection), look_s)
        if len(connection.pinged_at) > pings:
            longest_s = max(longest_s, look_s - byte_s)
            if answers:
                connection.quiet_looks, byte_s = 0, look_s
        look_s += SLOTS * TURN_S
    return longest_s


@pytest.mark.parametrize("slot", range(SLOTS))
@pytest.mark.parametrize("last_byte_s", [0.0, 0.5, 6.0, 11.99, 12.0, 12.01, 17.3])
def test_it_is_pinged_within_ping_s_of_its_last_byte(slot: int, last_byte_s: float) -> None:
    """Whichever slot it has, and whenever that byte came: HAProxy's `timeout tunnel` counts from it as well."""
    connection = Quiet()
    longest_s = turn(connection, 200, True, first_look_s=(slot + 1) * TURN_S, last_byte_s=last_byte_s)
    assert 0 < longest_s < PING_S
    assert len(connection.pinged_at) >= 6 and connection.dead_at is None


@pytest.mark.parametrize("slot", range(SLOTS))
def test_it_is_dead_when_it_was_silent_for_as_long_again(slot: int) -> None:
    connection = Quiet()
    turn(connection, 200, False, first_look_s=(slot + 1) * TURN_S, last_byte_s=0.0)
    (pinged_at,) = connection.pinged_at
    assert connection.dead_at is not None
    assert 0.9 * PING_S < connection.dead_at - pinged_at <= PING_S


@pytest.mark.parametrize("connection", [Quiet(held=True), Quiet(waiting=1)], ids=["held", "waiting"])
def test_whose_silence_means_nothing_is_not_judged(connection: Quiet) -> None:
    """Its socket is not read, or a ping would wait behind the rest."""
    turn(connection, 200, False, first_look_s=1.0, last_byte_s=0.0)
    assert connection.pinged_at == [] and connection.dead_at is None
