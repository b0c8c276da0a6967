"""Waiting for the proof of the road, by people who do not wait for ever."""

import asyncio
import gc
from types import SimpleNamespace
from typing import Any

from gateway.broker.probe import Probe
from gateway.core.entry import Entry, EntryId


def unproven() -> Probe:
    clock: Any = SimpleNamespace(now=lambda: 1.0)
    publisher: Any = None
    return Probe("node", b"probe", publisher, clock, 5.0, 100, whole=lambda: True, reconnect=lambda reason: None)


def come_back(probe: Probe, n: int, sender: str = "node") -> None:
    probe.deliver([Entry(EntryId(1, n), sender, b"", b"null")])


def futures() -> int:
    gc.collect()
    return sum(isinstance(each, asyncio.Future) for each in gc.get_objects())


async def test_who_stops_waiting_for_a_proof_leaves_nothing_behind() -> None:
    """While the broker is away each refused handshake left 140 bytes, for as long as it stayed away."""
    probe, before = unproven(), futures()
    waiting = [asyncio.create_task(probe.proof()) for _ in range(1_000)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    del waiting, task
    await asyncio.sleep(0)  # the loop lets go of what gather() was told
    assert futures() - before < 100


async def test_a_proof_wakes_everybody_who_waits() -> None:
    probe = unproven()
    waiting = [asyncio.create_task(probe.proof()) for _ in range(10)]
    await asyncio.sleep(0)
    probe.feed.hear(b"1-1")
    come_back(probe, 1, "another node")
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    probe.feed.hear(b"1-2")
    come_back(probe, 2)
    await asyncio.gather(*waiting)


def test_a_probe_whose_own_bell_was_not_heard_proves_nothing() -> None:
    """The sweep reads the probe's log too, and stood in for a doorbell that was silent."""
    probe = unproven()
    probe.feed.hear(b"1-1")
    come_back(probe, 2)
    assert not probe.proven
    probe.feed.hear(b"!1-3")
    come_back(probe, 3)
    assert probe.proven


async def test_a_bell_that_comes_after_its_probe_proves_the_road_at_the_next_turn() -> None:
    probe = unproven()
    publisher: Any = SimpleNamespace(offer=lambda *of: None)
    probe._publisher = publisher
    come_back(probe, 1)
    probe.turn()
    assert not probe.proven
    probe.feed.hear(b"1-1")
    probe.turn()
    assert probe.proven


def test_a_road_of_which_a_connection_was_lost_is_to_be_proven_again() -> None:
    probe = unproven()
    for n in (1, 2):
        probe.feed.hear(f"1-{n}".encode())
        come_back(probe, n)
        assert probe.proven
        probe.doubt()
        assert not probe.proven
    assert probe.age_s() == 0


def test_nothing_is_proven_while_a_connection_is_down() -> None:
    probe = unproven()
    probe._whole = lambda: False
    probe.feed.hear(b"1-1")
    come_back(probe, 1)
    assert not probe.proven
