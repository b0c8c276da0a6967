"""Waiting for a condition with a budget: the only place where a test sleeps."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

import aiohttp
import redis.exceptions

T = TypeVar("T")

# Nobody answers, or no longer: for a condition that means "not yet".
NOT_YET = (OSError, redis.exceptions.ConnectionError, aiohttp.ClientConnectionError)

# Time limits are at least ten times what is expected, so that a busy machine fails no test.
BUDGET_S = 20.0


@overload
async def until(condition: Callable[[], Awaitable[T]], what: str, within_s: float = ..., every_s: float = ...) -> T: ...
@overload
async def until(condition: Callable[[], T], what: str, within_s: float = ..., every_s: float = ...) -> T: ...
async def until(condition: Callable[[], Any], what: str, within_s: float = BUDGET_S, every_s: float = 0.01) -> Any:
    """The first true value of `condition` (plain or async).

    Raises AssertionError with `what` and the last value when the budget is used up. A connection error of the
    condition means "not yet"; any other exception goes through at once.
    """
    deadline = time.monotonic() + within_s
    last: Any = None
    while True:
        try:
            value = condition()
            last = await value if inspect.isawaitable(value) else value
        except NOT_YET as exc:
            last = exc
        else:
            if last:
                return last
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s:g} s: {what}; last seen: {last!r}")
        await asyncio.sleep(every_s)
