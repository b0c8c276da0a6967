"""A node's connections to the broker, together: which, whether they are up, what is told when they are not."""

import asyncio
import re
from collections.abc import Callable

import structlog

from gateway.broker.endpoint import Endpoint
from gateway.broker.errors import BrokerGone
from gateway.broker.lane import Lane
from gateway.settings.model import Settings
from gateway.telemetry.metrics import Metrics

# A connection is silent when an answer takes so much of probe_s: before the probe, which can't tell which one it is.
SILENT_SHARE = 0.75
# Seconds between two looks at the sentinels. One that was deposed in order goes on taking writes until it is told
# (8 s), and all of them are lost.
WATCH_S = 0.5

# Reasons told of one absence; whatever goes on changing beyond that is told by `/readyz`.
REASONS_MAX = 10

_NUMBER_OR_LANE = re.compile(r"\d+|the \w+ lane")

log = structlog.get_logger()


class Lanes:
    """What it publishes over, reads over, hears the doorbell over, and asks for pages of older entries over."""

    def __init__(self, node: str, endpoint: Endpoint, settings: Settings, metrics: Metrics) -> None:
        # Called when one of them is up or down, or something else without which nothing works.
        self.on_up: Callable[[], None] = lambda: None
        self.on_down: Callable[[], None] = lambda: None
        self._endpoint = endpoint
        self._metrics = metrics
        # By lane, or by what nothing works without: why it is down.
        self._down: dict[str, str] = {}
        # The reasons told since the broker was last there, without their numbers and lanes.
        self._told: set[str] = set()
        silent_s = settings.probe_s * SILENT_SHARE
        self.all = tuple(
            Lane(name, node, endpoint, settings.broker_timeout_s, silent_s, self.changed)
            for name in ("publish", "read", "doorbell", "page")
        )
        self.publish, self.read, self.doorbell, self.page = self.all
        for lane in self.all:
            lane.on_demoted = self._demoted
        metrics.known("broker_reconnects", ("registry", *(lane.name for lane in self.all)))

    @property
    def whole(self) -> bool:
        """Whether all of them are up."""
        return all(lane.is_up for lane in self.all)

    @property
    def away(self) -> str | None:
        """Why there is no connection, the latest reasons; None: there is."""
        return "; ".join(dict.fromkeys(self._down.values())) or None

    def changed(self, name: str, down: str | None) -> None:
        """One line per change of state or of its reason, whichever lane meets it: retries must not fill the disk."""
        if down is None:
            self._down.pop(name, None)
            self.on_up()
            if not self._down and self._told:
                self._told.clear()
                log.info("broker is back", broker=str(self._endpoint))
            return
        self._metrics.broker_reconnects[name] += 1
        self.on_down()
        self._down[name] = down
        kind = _NUMBER_OR_LANE.sub("#", down)
        if kind in self._told or len(self._told) == REASONS_MAX:
            return
        event = "broker is still away, for another reason" if self._told else "broker is away: trying again"
        self._told.add(kind)
        log.warning(event, broker=str(self._endpoint), lane=name, reason=down)

    def drop(self, reason: str) -> None:
        """No probe came back over them."""
        self._metrics.probe_timeouts += 1
        for lane in self.all:
            lane.drop(reason)

    def _demoted(self, reason: str) -> None:
        """The server is a replica now. Connections that only read would stay with it for ever, and never be told."""
        for lane in self.all:
            lane.give_up(reason)

    async def watch(self) -> None:
        """Give up a server that is master no longer by the sentinels; where it is gone, wait no longer for the next."""
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                address = await self._endpoint.master()
            except BrokerGone:  # a lane that needs them says so
                continue
            for lane in self.all:
                if lane.address != address:
                    lane.give_up(f"{lane.address} is not the master any more: {address} is")
