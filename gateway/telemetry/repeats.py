"""So many log lines of one kind and no more: whoever can repeat what is logged must not fill a disk by it.

A broker that refuses everything is met by every room, a client's mistake by every client: 1,000 rooms and a full disk
were 15,444 lines in a minute. The first lines of a kind say what it is; how often it was is what metrics count.
"""

import re
import time
from collections.abc import Callable

import structlog
from structlog.typing import EventDict, WrappedLogger

# Lines of one kind within a period, each with facts of its own: enough to see whether it is one room or all.
LINES_MAX = 20
PERIOD_S = 60.0
# Kinds remembered. Modules have some fifty; a library that puts its facts into its text makes more.
KINDS_MAX = 500


class Repeats:
    """A structlog processor. A kind is the event's text, or its field `kind`, which is no part of the line.

    The last line that is let through says that more are left out; the first of the next period, how many there were.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        # When the period of each kind began, and its lines since. Who was quiet longest stands first.
        self._kinds: dict[str, tuple[float, int]] = {}

    def __call__(self, _logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        kind = re.sub(r"\d+", "#", str(event.pop("kind", None) or event.get("event", "")))
        if method == "debug":  # asked for
            return event
        now = self._now()
        began, lines = self._kinds.pop(kind, (now, 0))
        left_out = 0
        if now - began >= PERIOD_S:
            left_out, began, lines = max(0, lines - LINES_MAX), now, 0
        elif not lines and len(self._kinds) >= KINDS_MAX:
            del self._kinds[next(iter(self._kinds))]
        self._kinds[kind] = began, lines + 1
        if lines >= LINES_MAX:
            raise structlog.DropEvent
        if left_out:
            event["left_out"] = left_out
        if lines + 1 == LINES_MAX:
            event["more"] = f"left out for {began + PERIOD_S - now:.0f} s"
        return event
