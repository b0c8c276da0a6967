"""HTTP connections that stand still: no whole request comes, or no answer is taken. WebSockets are the wheel's."""

from collections.abc import Iterable

from aiohttp.web_protocol import RequestHandler

from gateway.clock import Clock
from gateway.metrics import Metrics


class Silent:
    """Who asks for nothing (not a byte, or a head byte by byte), or takes nothing of what it asked for, is cut off."""

    def __init__(self, timeout_s: float, clock: Clock, metrics: Metrics) -> None:
        self._timeout_s = timeout_s
        self._clock = clock
        self._metrics = metrics
        # What still waits in the connection's buffer, and since when.
        self._still: dict[RequestHandler, tuple[int, float]] = {}

    def judge(self, connections: Iterable[RequestHandler]) -> None:
        """Look at the public port's HTTP connections; called again and again. A WebSocket is none any more."""
        now = self._clock.now()
        before, self._still = self._still, {}
        for connection in connections:
            transport = connection.transport
            waiting = transport.get_write_buffer_size() if transport is not None else 0
            if connection._request_count and not waiting:
                continue  # being answered, or idle between two requests: both have bounds of their own
            bytes_then, since = before.get(connection, (waiting, now))
            if bytes_then != waiting:
                since = now
            elif now - since > self._timeout_s:
                self._metrics.silent += 1
                if transport is not None:
                    transport.abort()
                continue
            self._still[connection] = waiting, since
