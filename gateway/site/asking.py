"""How other servers are asked by HTTP: within a time, for at most so many bytes, nowhere else than where we asked."""

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial

import aiohttp

ANSWER_BYTES_MAX = 65_536


class Unanswered(Exception):
    """No answer that could be used: `args[0]` says why, without what was said. `away`: who was asked is away or has too
    much to do; else it may be the question's fault, which is a client's."""

    def __init__(self, text: str, *, away: bool = False) -> None:
        super().__init__(text)
        self.away = away


class Asker:
    """One per node; its connections are kept. Close it when nobody asks any more."""

    def __init__(self, connections_max: int, answer_bytes_max: int = ANSWER_BYTES_MAX) -> None:
        self._connections_max = connections_max
        self._answer_bytes_max = answer_bytes_max
        # Made in the loop that it is used in.
        self._session: aiohttp.ClientSession | None = None

    async def get(self, url: str, headers: Mapping[str, str], timeout_s: float) -> tuple[int, bytes]:
        """Status and body. Raises Unanswered."""
        return await self._ask("GET", url, headers, None, timeout_s)

    async def post(self, url: str, body: bytes, timeout_s: float) -> tuple[int, bytes]:
        """As `get`, of JSON."""
        return await self._ask("POST", url, {"Content-Type": "application/json"}, body, timeout_s)

    async def _ask(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, timeout_s: float
    ) -> tuple[int, bytes]:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=self._connections_max)
            # No cookie of one answer may go out with another's question.
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        asked = {"Accept": "application/json", "Accept-Encoding": "identity", **headers}
        asking = partial(
            self._session.request,
            method,
            url,
            headers=asked,
            data=body,
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            # A redirect leads to a login page, or to whom nobody here knows.
            allow_redirects=False,
        )
        try:
            try:
                return await self._answer(asking())
            except aiohttp.ServerDisconnectedError:
                # It gave up a connection that was kept (gunicorn: after 2 s) just when we took it for this. Of a GET
                # aiohttp asks again by itself.
                return await self._answer(asking())
        except TimeoutError:
            raise Unanswered(f"no answer within {timeout_s:g} s", away=True) from None
        except ValueError:  # a header of a client's that can't be sent on
            raise Unanswered("the question can't be put") from None
        except (aiohttp.ClientError, OSError) as exc:
            raise Unanswered(_words(exc), away=True) from None

    async def _answer(self, asking: AbstractAsyncContextManager[aiohttp.ClientResponse]) -> tuple[int, bytes]:
        async with asking as answer:
            if 300 <= answer.status < 400:
                raise Unanswered(f"it redirects ({answer.status}), and nobody follows")
            said = bytearray()
            async for piece in answer.content.iter_any():
                said += piece
                if len(said) > self._answer_bytes_max:
                    raise Unanswered(f"its answer has more than {self._answer_bytes_max} bytes")
            return answer.status, bytes(said)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            await asyncio.sleep(0)  # the transports' own turn to close


def _words(exc: Exception) -> str:
    """What a connection error is, without the header that may be in it."""
    if isinstance(exc, aiohttp.ClientConnectorError):
        return f"no connection: {exc.os_error.strerror or type(exc.os_error).__name__}"
    return f"the connection broke: {type(exc).__name__}"
