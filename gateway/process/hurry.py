"""A step that gives way to an event: what drains a node, or serves, until somebody says otherwise."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def unless(event: asyncio.Event, step: Coroutine[Any, Any, T]) -> T | None:
    """Runs `step` to its end and gives its result or exception; or None: the event came first, the step is
    cancelled and over. A step whose event came before is not begun."""
    if event.is_set():
        step.close()
        return None
    task = asyncio.create_task(step)
    told = asyncio.create_task(event.wait())
    try:
        await asyncio.wait((task, told), return_when=asyncio.FIRST_COMPLETED)
    finally:
        told.cancel()
        task.cancel()  # does nothing to a task that is done
    try:
        return await task
    except asyncio.CancelledError:
        return None
