"""The site is asked who comes: the hook `connect`. One request for all who come with the same cookie at once, and its
answer is kept for a while; a site that fails is left in peace, and whoever is known stays.
"""

import asyncio
import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import structlog

from gateway.auth.denied import Denied
from gateway.core.rights import BadRights, Rights
from gateway.core.user import BadUser, Grant, User
from gateway.settings.model import Settings
from gateway.site.asking import Asker, Unanswered
from gateway.site.breaker import AWAY, FAILURES_MAX, RETRY_S, Breaker
from gateway.telemetry.metrics import Metrics

# What an answer takes in memory beside its bytes, by far.
KNOWN_BYTES = 2_048
# What comes of a question, as hiroba_site_answers_total has it.
ANSWERS = ("user", "unknown", "forbidden", "failed", "kept", "stale")
# A refusal is kept so long: who signs in comes with another cookie, who is let in again with the same one.
REFUSED_S = 2.0

log = structlog.get_logger()


class Visitor(NamedTuple):
    """What a browser said that the site may know it by."""

    cookie: str
    authorization: str
    user_agent: str
    # Of the client, as far as trusted proxies tell.
    address: str


class _User(msgspec.Struct):
    id: str | int
    name: str | None = None
    info: Any = None


class _Answer(msgspec.Struct):
    user: _User
    rooms: dict[str, str] | None = None
    expires_at: float | None = None


class _Known(NamedTuple):
    """An answer, and when it came, by the monotonic clock."""

    outcome: Grant | Denied
    at: float
    bytes: int


_decode = msgspec.json.Decoder(_Answer).decode


class Site:
    """One per node."""

    def __init__(self, asker: Asker, settings: Settings, metrics: Metrics, url: str) -> None:
        metrics.known("site_answers", ANSWERS)
        self._answers = metrics.site_answers
        self._asker = asker
        self._url = url
        self._settings = settings
        self._rights = Rights.parse(settings.user_rights)
        # No cookie is kept, only what this key makes of it: a dump of this process holds none.
        self._key = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._known_bytes = 0
        self._asking: dict[bytes, asyncio.Task[Grant | Denied]] = {}
        self._space = asyncio.Semaphore(settings.site_requests_max)
        self._breaker = Breaker(FAILURES_MAX, RETRY_S)

    async def grant(self, visitor: Visitor) -> Grant:
        """By the site's word, or by what it said lately. Raises Denied."""
        key = self._key_of(visitor)
        known = self._known.get(key)
        if known is not None and self._is_fresh(known):
            self._answers["kept"] += 1
            return _result(known.outcome)
        asking = self._asking.get(key)
        if asking is None:
            asking = self._asking[key] = asyncio.create_task(self._ask(key, visitor), name="ask the site")
            asking.add_done_callback(lambda _: self._asking.pop(key, None))
        return _result(await asyncio.shield(asking))

    def _key_of(self, visitor: Visitor) -> bytes:
        """Of what the site may know them by: who brings neither, by the address."""
        keyed = hashlib.blake2b(key=self._key, digest_size=24)
        nameless = not (visitor.cookie or visitor.authorization)
        for part in (visitor.cookie, visitor.authorization, visitor.address if nameless else ""):
            keyed.update(part.encode(errors="surrogateescape") + b"\0")
        return keyed.digest()

    def _is_fresh(self, known: _Known) -> bool:
        age_s = time.monotonic() - known.at
        if isinstance(known.outcome, Denied):
            return age_s < min(REFUSED_S, self._settings.site_cache_s)
        return age_s < self._settings.site_cache_s and not _is_over(known.outcome)

    async def _ask(self, key: bytes, visitor: Visitor) -> Grant | Denied:
        """Its answer, else what is known; or why there is neither."""
        try:
            async with asyncio.timeout(self._settings.handshake_timeout_s):
                await self._space.acquire()
        except TimeoutError:
            return self._stale(key)
        try:
            if not self._breaker.may_ask(time.monotonic()):
                return self._stale(key)
            outcome, size = await self._answer(visitor)
        except Unanswered:
            return self._stale(key)
        finally:
            self._space.release()
        self._keep(key, outcome, size)
        return outcome

    async def _answer(self, visitor: Visitor) -> tuple[Grant | Denied, int]:
        """Its answer and how many bytes that had. Raises Unanswered."""
        asked_at = time.time()
        try:
            status, body = await self._asker.get(self._url, _headers(visitor), self._settings.site_timeout_s)
            outcome = self._outcome(status, body, asked_at)
        except Unanswered as exc:
            self._answers["failed"] += 1
            if not exc.away:
                self._breaker.learned_nothing()
                log.error("the site's answer can't be used", why=exc.args[0])
            elif self._breaker.failed(time.monotonic()):
                log.error("the site does not say who comes", why=exc.args[0], known=len(self._known))
            raise
        if self._breaker.succeeded():
            log.info("the site says who comes again")
        self._answers[outcome.reason.removeprefix("site_") if isinstance(outcome, Denied) else "user"] += 1
        return outcome, len(body)

    def _outcome(self, status: int, body: bytes, asked_at: float) -> Grant | Denied:
        if status == 401:
            return Denied("site_unknown", "the site does not know you: sign in there")
        if status == 403:
            return Denied("site_forbidden", "the site does not let you in")
        if status != 200:
            raise Unanswered(f"it answers {status}", away=status in AWAY)
        try:
            said = _decode(body)
            user = User(str(said.user.id), said.user.name, msgspec.json.encode(said.user.info))
            rights = self._rights if said.rooms is None else Rights(said.rooms)
        except (msgspec.MsgspecError, BadUser, BadRights, ValueError, RecursionError) as exc:
            raise Unanswered(f"its answer is not {{user, rooms, expires_at}}: {exc}") from None
        grant = Grant(user, rights, said.expires_at, asked_at)
        return Denied("site_unknown", "the site says that you are signed out") if _is_over(grant) else grant

    def _keep(self, key: bytes, outcome: Grant | Denied, size: int) -> None:
        """The oldest answers make space."""
        self._forget(key)
        self._known[key] = _Known(outcome, time.monotonic(), size + KNOWN_BYTES)
        self._known_bytes += size + KNOWN_BYTES
        while self._known_bytes > self._settings.site_known_bytes_max:
            self._forget(next(iter(self._known)))

    def _forget(self, key: bytes) -> None:
        known = self._known.pop(key, None)
        self._known_bytes -= 0 if known is None else known.bytes

    def _stale(self, key: bytes) -> Grant | Denied:
        """While the site is away, who is known stays: for `site_stale_s`, and no longer than it said."""
        known = self._known.get(key)
        late = known is None or time.monotonic() - known.at >= self._settings.site_stale_s
        if known is not None and not late and isinstance(known.outcome, Grant) and not _is_over(known.outcome):
            self._answers["stale"] += 1
            return known.outcome
        return Denied("site", "the site can't say at present who you are: try again later")

    async def close(self) -> None:
        for asking in list(self._asking.values()):
            asking.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)


def _result(outcome: Grant | Denied) -> Grant:
    if isinstance(outcome, Denied):
        raise Denied(outcome.reason, outcome.args[0])
    return outcome


def _is_over(grant: Grant) -> bool:
    return grant.expires_at is not None and grant.expires_at <= time.time()


def _headers(visitor: Visitor) -> Mapping[str, str]:
    named = {
        "Cookie": visitor.cookie,
        "Authorization": visitor.authorization,
        "User-Agent": visitor.user_agent,
        "X-Forwarded-For": visitor.address,
    }
    return {name: value for name, value in named.items() if value}
