"""Keys that somebody else publishes at a URL, as a JWK set: kept for a time, asked for anew when one is missing."""

import asyncio
import json
import time

import structlog

from gateway.auth.denied import Denied
from gateway.auth.keys import BadKey, Key, keys_in
from gateway.site.asking import Asker, Unanswered

# Between two questions, whatever tokens come: anybody can invent a `kid`.
ASK_AGAIN_S = 5.0

log = structlog.get_logger()


class Jwks:
    """The keys at `token_jwks_url`. While nobody answers there, those last known stay."""

    def __init__(self, asker: Asker, url: str, cache_s: float, timeout_s: float) -> None:
        self._asker = asker
        self._url = url
        self._cache_s = cache_s
        self._timeout_s = timeout_s
        self._keys: list[Key] | None = None
        # By the monotonic clock: of the last answer, and of the end of the last question.
        self._known_at = float("-inf")
        self._asked_at = float("-inf")
        # The question under way: all who need its answer wait for it, and for no other.
        self._asking: asyncio.Task[None] | None = None
        self._failed = False

    async def keys(self, *, missing: bool = False) -> list[Key]:
        """Those that there are. `missing`: one was not among them, so they may have changed. Raises Denied `keys`."""
        if missing or time.monotonic() - self._known_at > self._cache_s:
            if self._asking is None and time.monotonic() - self._asked_at > ASK_AGAIN_S:
                self._asking = asyncio.create_task(self._ask(), name="ask for keys")
                self._asking.add_done_callback(self._asked)
            # Where it was silent last time, nobody waits for it who may go on by what is known.
            if self._asking is not None and (missing or self._keys is None or not self._failed):
                await asyncio.shield(self._asking)
        if self._keys is None:
            raise Denied("keys", "the keys that tokens are held against can't be had at present: try again later")
        return self._keys

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    def _asked(self, _: object) -> None:
        self._asking, self._asked_at = None, time.monotonic()

    async def _ask(self) -> None:
        try:
            status, body = await self._asker.get(self._url, {}, self._timeout_s)
            if status != 200:
                raise Unanswered(f"it answers {status}")
            self._keys = keys_in(json.loads(body), secrets=False)
        except (Unanswered, BadKey, ValueError, RecursionError) as exc:
            why = exc.args[0] if isinstance(exc, Unanswered | BadKey) else "its answer is no JSON"
            if not self._failed:
                log.error("the keys at token_jwks_url can't be had", why=why, known=len(self._keys or ()))
            self._failed = True
            return
        self._known_at = time.monotonic()
        if self._failed:
            log.info("the keys at token_jwks_url can be had again")
        self._failed = False
