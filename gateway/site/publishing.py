"""The site is asked about what people say, before anybody hears it: the hook `publish`. It lets it pass, says something
else instead, or refuses it, with a reason for who said it.
"""

import asyncio
import time
from collections.abc import Sequence
from functools import lru_cache

import msgspec
import structlog

from gateway.core.names import RoomName
from gateway.core.rights import Rights
from gateway.core.user import User
from gateway.settings.model import Settings
from gateway.site.asking import Asker, Unanswered
from gateway.site.breaker import AWAY, FAILURES_MAX, RETRY_S, Breaker
from gateway.telemetry.metrics import Metrics

# What one sender's messages may ask at once: nobody takes all of site_publish_requests_max alone.
SENDER_REQUESTS_MAX = 4
# What a message takes in memory while it waits, beside its bytes.
WAITING_BYTES = 2_048
# An answer's, beside the message in it.
ANSWER_BYTES = 4_096
# What a sender is told of the site's reason.
REASON_CHARS_MAX = 200
# Rooms of which it is known whether the site is asked about them.
ROOMS_KNOWN = 8_192
# What comes of a question, as hiroba_site_publish_answers_total has it.
ANSWERS = ("allowed", "replaced", "refused", "failed", "away", "full")

log = structlog.get_logger()


class TurnedDown(Exception):
    """It is not said: `code` is the wire's error code, `args[0]` for who said it."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code

    @property
    def final(self) -> bool:
        """Whether saying it again is of no use."""
        return self.code == "rejected"


class _Answer(msgspec.Struct):
    message: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Refusal(msgspec.Struct):
    reason: str = ""


_decode = msgspec.json.Decoder(_Answer).decode
_decode_refusal = msgspec.json.Decoder(_Refusal).decode
_json = msgspec.json.encode


class PublishHook:
    """One per node, where `site_publish_url` is set."""

    def __init__(self, settings: Settings, metrics: Metrics, url: str) -> None:
        metrics.known("site_publish_answers", ANSWERS)
        self._answers = metrics.site_publish_answers
        self._settings = settings
        self._url = url
        self._allows = settings.site_publish_away == "allow"
        self._asker = Asker(settings.site_publish_requests_max, settings.message_bytes_max + ANSWER_BYTES)
        self._space = asyncio.Semaphore(settings.site_publish_requests_max)
        self._breaker = Breaker(FAILURES_MAX, RETRY_S)
        rooms = Rights(dict.fromkeys(settings.site_publish_rooms, "w"))
        self.asks = lru_cache(ROOMS_KNOWN)(lambda room: bool(rooms.of(room)))
        # Of messages about which it is asked.
        self.waiting_bytes = 0

    def tell(self) -> None:
        """A line at start: what stands in the way of what people say, and what is done when it can't be asked."""
        rooms, away = list(self._settings.site_publish_rooms), self._settings.site_publish_away
        log.info("the site is asked about what people say", rooms=rooms, while_away=away)

    async def words(self, room: RoomName, user: User, messages: Sequence[bytes]) -> list[bytes]:
        """Of several that are said together: what is to be said, all or none. Raises TurnedDown."""
        turns = asyncio.Semaphore(SENDER_REQUESTS_MAX)
        words = [self.word(room, user, message, turns) for message in messages]
        asking = [asyncio.create_task(word, name="ask the site") for word in words]
        try:
            return await asyncio.gather(*asking)
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)

    async def word(self, room: RoomName, user: User, message: bytes, turns: asyncio.Semaphore) -> bytes:
        """What is to be said. `turns`: its sender's, of SENDER_REQUESTS_MAX. Raises TurnedDown."""
        size = len(message) + WAITING_BYTES
        if self.waiting_bytes + size > self._settings.site_publish_waiting_bytes_max:
            return self._without("full", message)
        self.waiting_bytes += size
        try:
            async with turns:
                return await self._word(room, user, message)
        finally:
            self.waiting_bytes -= size

    async def close(self) -> None:
        await self._asker.close()

    async def _word(self, room: RoomName, user: User, message: bytes) -> bytes:
        timeout_s = self._settings.site_publish_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await self._space.acquire()
        except TimeoutError:
            return self._without("full", message)
        try:
            if not self._breaker.may_ask(time.monotonic()):
                return self._without("away", message)
            question = b'{"room":%b,"user":%b,"message":%b}' % (_json(room), user.json or b"null", message)
            outcome = self._judged(message, *await self._asker.post(self._url, question, timeout_s))
        except Unanswered as exc:
            return self._unanswered(exc, message)
        finally:
            self._space.release()
        if self._breaker.succeeded():
            log.info("the site says again what may be said")
        if isinstance(outcome, TurnedDown):
            self._answers["refused"] += 1
            raise outcome
        self._answers["allowed" if outcome is message else "replaced"] += 1
        return outcome

    def _judged(self, message: bytes, status: int, body: bytes) -> bytes | TurnedDown:
        """What the site wants said. Raises Unanswered."""
        if status == 403:
            return TurnedDown("rejected", _reason(body))
        if status not in (200, 204):
            raise Unanswered(f"it answers {status}", away=status in AWAY)
        if not body.strip():
            return message
        try:
            said = _decode(body).message
            # As it will be sent for years: whole, and without spaces.
            other = None if isinstance(said, msgspec.UnsetType) else _json(msgspec.json.decode(said))
        except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
            raise Unanswered(f"its answer is not {{message}}: {exc}") from None
        if other is not None and len(other) > self._settings.message_bytes_max:
            raise Unanswered("its message is longer than message_bytes_max")
        return message if other is None else other

    def _unanswered(self, why: Unanswered, message: bytes) -> bytes:
        """Where the question may be at fault nothing passes: else whoever makes the site stumble may say anything."""
        self._answers["failed"] += 1
        if not why.away:
            self._breaker.learned_nothing()
            log.error("the site's answer can't be used", hook="publish", why=why.args[0])
            raise TurnedDown("site", "the site's answer to this can't be used: it is not said")
        if self._breaker.failed(time.monotonic()):
            away = self._settings.site_publish_away
            log.error("the site does not say what may be said", why=why.args[0], while_away=away)
        return self._without("away", message)

    def _without(self, answer: str, message: bytes) -> bytes:
        """Nobody can be asked: as the setting has it."""
        self._answers[answer] += 1
        if self._allows:
            return message
        raise TurnedDown("site", "the site can't be asked at present what may be said: try again later")


def _reason(body: bytes) -> str:
    """For who said it: one line."""
    try:
        reason = " ".join(_decode_refusal(body).reason[: 2 * REASON_CHARS_MAX].split())
    except (msgspec.MsgspecError, ValueError, RecursionError):
        reason = ""
    seen = "".join(char for char in reason if char.isprintable())[:REASON_CHARS_MAX]
    return seen or "the site does not let this be said"
