"""When an ask is sent, to whom, and when again. No I/O and no clock of its own.

A write carries an idempotency key, so that trying again is safe whatever happened to the try before: the server does it
once, and says the same.
"""

import random
from collections.abc import Sequence
from typing import Generic, TypeVar

import httpx

from hiroba_client.asks import Ask, fault
from hiroba_client.errors import HirobaError, Problem, Unreachable

T = TypeVar("T")

PREFIX = "/api/v1"
# Answers that may be others a moment later, or at another node.
PASSING = (429, 502, 503, 504)
FIRST_WAIT_S = 0.1
WAIT_MAX_S = 5.0


class Trying(Generic[T]):
    """One ask, until it is answered or `within_s` is over."""

    def __init__(self, ask: Ask[T], urls: Sequence[str], key: str | None, now: float, within_s: float) -> None:
        self._ask = ask
        self._urls = urls
        self._key = key
        self._deadline = now + within_s
        self._within_s = within_s
        self._tries = 0
        self._last: HirobaError | None = None

    def request(self, client: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """The next try; each goes to the next address."""
        url = self._urls[self._tries % len(self._urls)]
        self._tries += 1
        headers = {"Accept": "application/json"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        if self._ask.body is not None:
            headers["Content-Type"] = "application/json"
        if self._ask.idempotency_key is not None:
            headers["Idempotency-Key"] = self._ask.idempotency_key
        where = f"{url.rstrip('/')}{PREFIX}{self._ask.path}"
        params = dict(self._ask.query)
        return client.build_request(self._ask.method, where, params=params, content=self._ask.body, headers=headers)

    def answered(self, response: httpx.Response, now: float) -> tuple[T | None, float]:
        """What it means; or None, and how long to wait before the next try. Raises Problem."""
        if response.status_code == 200:
            return self._ask.means(response.json()), 0.0
        problem = _problem(response)
        if response.status_code not in PASSING:
            raise problem
        return None, self._wait_s(problem, now, response.headers.get("Retry-After"))

    def failed(self, exc: httpx.TransportError, now: float) -> float:
        """Nobody answered: how long to wait before the next try. Raises Unreachable."""
        text = f"no answer within {self._within_s:g} s from {', '.join(self._urls)} ({exc or type(exc).__name__})"
        return self._wait_s(Unreachable(text, self._ask.idempotency_key), now, None)

    def _wait_s(self, last: HirobaError, now: float, retry_after: str | None) -> float:
        others = self._tries % len(self._urls)  # who was not asked in this round can be at once
        rounds = self._tries // len(self._urls)
        wait_s: float = min(WAIT_MAX_S, FIRST_WAIT_S * 2.0**rounds) * random.uniform(0.5, 1.0)
        if retry_after is not None and retry_after.isdigit():
            wait_s = max(wait_s, min(int(retry_after), WAIT_MAX_S))
        if others:
            wait_s = 0.0
        if now + wait_s >= self._deadline:
            raise last
        return wait_s


def _problem(response: httpx.Response) -> Problem:
    """Also of an answer that is no problem of ours: a proxy's."""
    try:
        told = response.json()
        errors = tuple(map(fault, told.get("errors", ())))
        return Problem(response.status_code, told["code"], told["detail"], errors)
    except (ValueError, KeyError, TypeError, AttributeError):
        return Problem(response.status_code, "other", response.text[:200])
