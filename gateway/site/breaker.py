"""A circuit breaker: who fails again and again is left in peace for a while, then asked once. No clock of its own."""

# Failures in a row after which the site is left in peace, and for how long.
FAILURES_MAX = 5
RETRY_S = 2.0
# Of a proxy in front of it, or its own: away, or busy. Any other status may be one client's doing, who must not cost
# the others anything.
AWAY = (429, 502, 503, 504)


class Breaker:
    """Closed: everybody may ask. Open, after `failures_max` failures in a row: nobody, until `retry_s` have passed;
    then one, on whose answer it closes or waits again."""

    __slots__ = ("_asked_at", "_failures", "_failures_max", "_retry_s")

    def __init__(self, failures_max: int, retry_s: float) -> None:
        self._failures_max = failures_max
        self._retry_s = retry_s
        # In a row.
        self._failures = 0
        # When one was last let through; of an open one.
        self._asked_at = 0.0

    @property
    def open(self) -> bool:
        return self._failures >= self._failures_max

    def may_ask(self, now: float) -> bool:
        """Whether the caller may; it owes `succeeded`, `failed` or `learned_nothing` then."""
        if not self.open:
            return True
        if now - self._asked_at < self._retry_s:
            return False
        self._asked_at = now
        return True

    def succeeded(self) -> bool:
        """Whether it was open."""
        was_open, self._failures = self.open, 0
        return was_open

    def failed(self, now: float) -> bool:
        """Whether it has opened by this."""
        was_open = self.open
        self._failures += 1
        self._asked_at = now
        return self.open and not was_open

    def learned_nothing(self) -> None:
        """It was the question's fault: the next one may ask at once, or one client could keep an open one open."""
        self._asked_at = float("-inf")
