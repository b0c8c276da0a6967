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
    return Probe("node", b"probe", publisher, clock, period_s=5.0, reconnect=lambda reason: None)


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
    probe.deliver([Entry(EntryId(1, 1), "another node", "", b"null")])
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    probe.deliver([Entry(EntryId(1, 2), "node", "", b"null")])
    await asyncio.gather(*waiting)
