"""Which server is the master now: all sentinels are asked, the freshest answer counts. Connects to no master itself.

redis-py keeps the connections to the sentinels. What to make of their answers is decided here: its own `Sentinel` would
believe the first that says anything, and during a failover the first may be the last to know.
"""

import asyncio
from collections import Counter
from collections.abc import Collection
from functools import partial
from typing import Any

import redis.asyncio as redis
from redis.asyncio.sentinel import MasterNotFoundError

from gateway.broker.dial import Dial
from gateway.broker.errors import closed_meanwhile
from gateway.broker.pool import Pool
from gateway.settings.urls import SentinelUrl

# One sentinel's time for its answer: so many parts of the budget for a whole connect. A machine that died often took
# the master and a sentinel along, and that one is waited for at every connect.
ANSWER_SHARE = 4
# Once most have answered, the others have so long: one that is dead must not slow each look.
GRACE_S = 0.1
# One look is under way at a time; the second connection is for a look that begins while another is being cancelled.
CONNECTIONS_MAX = 2

Address = tuple[str, int]


class Sentinels:
    """The sentinels of one service. Asked anew each time; who asks while others wait gets the same answer."""

    def __init__(self, url: SentinelUrl, dial: Dial, timeout_s: float) -> None:
        self.service = url.service
        self._clients = [
            redis.Redis.from_pool(
                Pool(
                    partial(dial.open, host, port),
                    f"{host}:{port}",
                    CONNECTIONS_MAX,
                    timeout_s / ANSWER_SHARE,
                    username=url.sentinel_username,
                    password=url.sentinel_password,
                )
            )
            for host, port in url.sentinels
        ]
        self._addresses = [f"{host}:{port}" for host, port in url.sentinels]
        self._asking: asyncio.Task[Address] | None = None
        # Of the last failover that was heard of.
        self._epoch = 0

    def __str__(self) -> str:
        return f"{self.service} (sentinels {', '.join(self._addresses)})"

    async def master(self) -> Address:
        """The master's host and port. Raises MasterNotFoundError, whose text says what to look at."""
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask_all(), name="sentinels")
            self._asking.add_done_callback(self._asked)
        return await asyncio.shield(self._asking)

    def _asked(self, task: "asyncio.Task[Address]") -> None:
        self._asking = None
        if not task.cancelled():
            task.exception()  # everybody who asked may have left

    async def _ask_all(self) -> Address:
        asked = [asyncio.create_task(self._ask(sentinel), name="sentinel") for sentinel in self._clients]
        try:
            await _most(asked)
        finally:
            for task in asked:
                task.cancel()
            answers = await asyncio.gather(*asked, return_exceptions=True)
        states: dict[str, dict[str, Any]] = {}
        failures: dict[str, Exception] = {}
        for address, answer in zip(self._addresses, answers, strict=True):
            if isinstance(answer, asyncio.CancelledError):  # slower than the others
                continue
            if isinstance(answer, redis.RedisError | OSError):
                failures[address] = answer
            elif isinstance(answer, BaseException):
                raise answer
            else:
                states[address] = answer
        if not states:
            raise MasterNotFoundError(self._nobody_knows(failures))
        return self._freshest(states)

    async def _ask(self, sentinel: "redis.Redis") -> dict[str, Any]:
        answer: Any = sentinel.execute_command("SENTINEL MASTER", self.service)  # type: ignore[no-untyped-call]
        try:
            state: dict[str, Any] = await answer
        except RuntimeError as exc:
            if not closed_meanwhile(exc):
                raise
            raise redis.ConnectionError(str(exc)) from exc
        return state

    async def aclose(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(sentinel.aclose() for sentinel in self._clients))

    def _freshest(self, states: dict[str, dict[str, Any]]) -> Address:
        """A failover that won its vote has a higher epoch (`config-epoch`) than whatever was before it.

        A few that fell behind may be all that answer: only most of them can take back what was said before.
        """
        epoch = max(state["config-epoch"] for state in states.values())
        if epoch < self._epoch and 2 * len(states) <= len(self._addresses):
            raise MasterNotFoundError(
                f"only sentinels that do not know of the last failover answer: {', '.join(states)}; look at the others"
            )
        self._epoch = epoch
        fresh = {by: state for by, state in states.items() if state["config-epoch"] == epoch}
        votes = Counter((state["ip"], int(state["port"])) for state in fresh.values())
        (master, most), *others = votes.most_common()
        if others and others[0][1] == most:
            told = ", ".join(f"{by} says {state['ip']}:{state['port']}" for by, state in fresh.items())
            raise MasterNotFoundError(
                f"the sentinels disagree about the master of '{self.service}': {told}; "
                "look at SENTINEL MASTER on each, and whether all of them belong together"
            )
        if all(state["is_sdown"] or state["is_odown"] for state in fresh.values()):
            raise MasterNotFoundError(
                f"the master of '{self.service}', {master[0]}:{master[1]}, is down, say the sentinels, "
                "and none took its place yet; look at their log if it stays so"
            )
        return master

    def _nobody_knows(self, failures: dict[str, Exception]) -> str:
        texts = [str(failure) or type(failure).__name__ for failure in failures.values()]
        told = ", ".join(f"{address}: {text}" for address, text in zip(failures, texts, strict=True))
        if any("No such master" in text for text in texts):
            return f"no sentinel knows a service '{self.service}' ({told}); look at `sentinel monitor` in their files"
        if any(isinstance(failure, redis.AuthenticationError) for failure in failures.values()):
            return f"no sentinel lets us in ({told}); look at sentinel_username and sentinel_password in broker_url"
        return f"no sentinel answers ({told}); look at the sentinels, and at their addresses in broker_url"


async def _most(asked: Collection["asyncio.Task[dict[str, Any]]"]) -> None:
    """Wait until most have answered, and a little longer; while they have not, until all have failed or answered."""
    waiting = set(asked)
    while waiting:
        answered = sum(task.done() and task.exception() is None for task in asked)
        enough = 2 * answered > len(asked)
        done, waiting = await asyncio.wait(
            waiting, timeout=GRACE_S if enough else None, return_when=asyncio.FIRST_COMPLETED
        )
        if enough and not done:
            return
