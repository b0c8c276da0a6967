"""A script of broker_config's on one lane: called by its digest, and loaded where the server does not know it."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import broker_config
from gateway.broker.connection import Arg
from gateway.broker.errors import BrokerRefused, Fault, fault_of
from gateway.broker.lane import Lane


class Script:
    """For calls that do the same when they are sent twice. Errors: BrokerGone, BrokerRefused."""

    __slots__ = ("_lane", "_sha", "_source")

    def __init__(self, name: str, lane: Lane) -> None:
        self._lane = lane
        self._source = broker_config.script(name)
        self._sha = b""

    async def ask(self, keys: Sequence[bytes], *arguments: Arg) -> Any:
        """Its reply."""
        return await self._reply(self._lane.ask, keys, arguments)

    async def ask_master(self, keys: Sequence[bytes], *arguments: Arg) -> Any:
        """Its reply, by a server that is a master as it replies: for scripts that only read."""
        return await self._reply(self._lane.ask_master, keys, arguments)

    async def _reply(self, ask: Callable[..., Awaitable[Any]], keys: Sequence[bytes], arguments: Sequence[Arg]) -> Any:
        while True:
            try:
                return await ask("EVALSHA", self._sha, len(keys), *keys, *arguments)
            except BrokerRefused as exc:
                if fault_of(exc.code) is not Fault.LOAD:
                    raise
                self._sha = await self._lane.ask("SCRIPT", "LOAD", self._source)
