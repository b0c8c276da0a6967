"""A token bucket: how fast one connection may speak. The caller brings the clock."""


class TokenBucket:
    """`rate` tokens a second. `burst` of them are saved up while nothing waits; `take` may go into debt."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = now

    def rest(self, now: float) -> None:
        """Nothing waited until now: what was saved up beyond the burst is lost.

        Not to be called while something waits: then the tokens grow, so that who was held up for other reasons
        (the broker stood still) is no faster than its rate when it goes on.
        """
        self._fill(now)
        if self._tokens > self._burst:
            self._tokens = self._burst

    def wait_s(self, now: float) -> float:
        """Seconds until there is a token; 0.0: there is one."""
        if self._tokens >= 1:
            return 0.0  # what came since is not lost, and need not be known yet
        self._fill(now)
        return max(0.0, (1 - self._tokens) / self._rate)

    def take(self, tokens: float) -> None:
        """Take at least one. What is not there yet is owed, and the next one waits for it."""
        self._tokens -= tokens

    def give_back(self, tokens: float) -> None:
        """What was taken is paid otherwise."""
        self._tokens += tokens

    def _fill(self, now: float) -> None:
        """A clock that steps back adds nothing."""
        if now > self._at:
            self._tokens += (now - self._at) * self._rate
            self._at = now
