"""Connections that say nothing: who opens one and asks for nothing in time is cut off. WebSockets are the wheel's."""

from collections.abc import Iterable

from aiohttp.web_protocol import RequestHandler

from gateway.clock import Clock
from gateway.metrics import Metrics


class Silent:
    """Since when those are here from whom no whole request came: not a byte, or its head a byte at a time."""

    def __init__(self, timeout_s: float, clock: Clock, metrics: Metrics) -> None:
        self._timeout_s = timeout_s
        self._clock = clock
        self._metrics = metrics
        self._since: dict[RequestHandler, float] = {}

    def judge(self, connections: Iterable[RequestHandler]) -> None:
        """Look at the public port's HTTP connections; called again and again. A WebSocket is none any more."""
        now = self._clock.now()
        since = {each: self._since.get(each, now) for each in connections if not each._request_count}
        for connection, came_at in since.items():
            if now - came_at > self._timeout_s:
                self._metrics.silent += 1
                connection.force_close()
        self._since = since
