"""What was answered to requests of the API that came with an Idempotency-Key: kept in the broker, so that whichever
node is asked again gives the same answer, or knows that another request had the key."""

from typing import Any

from gateway.broker.connection import Arg
from gateway.broker.errors import BrokerGone
from gateway.broker.keys import Keys
from gateway.broker.lane import Lane
from gateway.core.appends import Once
from gateway.settings.model import Settings


class Taken(Exception):
    """Another request came with this key before."""


class Answers:
    """Wait for the broker as long as it takes: the caller brings a deadline. Raise BrokerRefused."""

    def __init__(self, keys: Keys, lane: Lane, settings: Settings) -> None:
        self._keys = keys
        self._lane = lane
        self._kept_s = max(1, int(settings.idempotency_s))

    async def claim(self, once: Once) -> bytes | None:
        """Say that this request is the one with its key. What was answered to it before; None: nothing yet, it is to be
        done, perhaps for the second time. Raises Taken."""
        mark = once.mark.encode()
        known = await self._ask("SET", self._keys.asked(once.key), mark, "NX", "GET", "EX", self._kept_s)
        former, _, answer = (known or mark).partition(b"\n")
        if former != mark:
            raise Taken
        return answer or None

    async def keep(self, once: Once, answer: bytes) -> None:
        """From now on it is answered so."""
        value = b"%b\n%b" % (once.mark.encode(), answer)
        await self._ask("SET", self._keys.asked(once.key), value, "EX", self._kept_s)

    async def _ask(self, *command: Arg) -> Any:
        while True:
            await self._lane.up()
            try:
                return await self._lane.ask(*command)
            except BrokerGone:  # asked twice, it is the same
                continue
