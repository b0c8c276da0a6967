"""The doorbell: a sharded pub/sub message says how far a log grew. Losing one loses nothing: see the sweep."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from gateway.broker import refusals
from gateway.broker.errors import BrokerGone, BrokerRefused, missing_rule
from gateway.broker.lane import Lane
from gateway.telemetry.metrics import Metrics

# Channels in one call.
CHANNELS_PER_CALL = 512


class Doorbell:
    """The channels we listen at. `ring` is called for every append, `listens` when one may have gone unheard."""

    def __init__(
        self,
        lane: Lane,
        ring: Callable[[bytes, bytes], None],
        listens: Callable[[bytes], None],
        metrics: Metrics,
        timeout_s: float,
    ) -> None:
        self._lane = lane
        self._ring = ring
        self._listens = listens
        self._metrics = metrics
        self._timeout_s = timeout_s
        lane.on_up, lane.on_push, lane.on_stray = self._up, self._push, self._stray
        # Channel -> done once the broker confirmed it for the first time.
        self._channels: dict[bytes, asyncio.Future[None]] = {}

    async def subscribe(self, channels: Sequence[bytes]) -> None:
        """SSUBSCRIBE and wait for the confirmations, over a lost connection for the next one's. Raises BrokerRefused.

        A connection that confirms nothing within the broker's timeout is given up.
        """
        self.listen(channels)
        for confirmed in [self._channels[channel] for channel in channels]:  # they come together
            while not confirmed.done():
                await self._lane.up()
                connections = self._lane.connections
                await asyncio.wait((confirmed,), timeout=self._timeout_s)
                if not confirmed.done() and self._lane.connections == connections:
                    self._lane.drop(f"no answer to SSUBSCRIBE within {self._timeout_s:g} s")
            confirmed.result()

    def listen(self, channels: Iterable[bytes]) -> None:
        """SSUBSCRIBE to those of these that are new, and wait for nothing: `listens` tells of each."""
        new = [channel for channel in channels if channel not in self._channels]
        for channel in new:
            self._channels[channel] = asyncio.get_running_loop().create_future()
        self._tell("SSUBSCRIBE", new)

    def hears(self, channel: bytes) -> bool:
        """Whether the broker confirmed it, now or over a connection before: `listens` was called of it."""
        confirmed = self._channels.get(channel)
        return confirmed is not None and confirmed.done()

    def unsubscribe(self, channels: Iterable[bytes]) -> None:
        """SUNSUBSCRIBE. A ring that still comes finds nobody."""
        known = [channel for channel in channels if channel in self._channels]
        for channel in known:
            self._channels.pop(channel).cancel()
        self._tell("SUNSUBSCRIBE", known)

    def _up(self) -> None:
        """A new connection: subscribe to everything again."""
        self._tell("SSUBSCRIBE", list(self._channels))

    def _push(self, push: list[Any]) -> None:
        """One RESP3 push: smessage, ssubscribe or sunsubscribe."""
        kind, channel = push[0], push[1]
        if kind == b"smessage":
            self._metrics.doorbells += 1
            self._ring(channel, push[2])
        elif kind == b"ssubscribe":
            confirmed = self._channels.get(channel)
            if confirmed is not None and not confirmed.done():
                confirmed.set_result(None)
            self._listens(channel)  # what was appended until now rang for nobody

    def _stray(self, refused: BrokerRefused) -> None:
        """SSUBSCRIBE succeeds by push but fails by an ordinary reply, which does not say for which channel."""
        refusals.tell(str(refused))
        if missing_rule(str(refused)) == "+sunsubscribe":  # no joiner's business
            return
        for channel, confirmed in list(self._channels.items()):
            if not confirmed.done():
                confirmed.set_exception(refused)
                confirmed.exception()  # the joiner may have given up
                del self._channels[channel]

    def _tell(self, command: str, channels: list[bytes]) -> None:
        with suppress(BrokerGone):  # _up asks again for all of them
            for at in range(0, len(channels), CHANNELS_PER_CALL):
                self._lane.tell(command, *channels[at : at + CHANNELS_PER_CALL])
