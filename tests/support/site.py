"""A small real site: what it answers is the test's, also when that is slow, huge, wrong, or nothing at all."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from aiohttp import web

from tests.support.ports import free_port

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Site:
    """`async with Site() as site: site.answer = …`. `asked` has the headers of every request."""

    def __init__(self) -> None:
        self.port = free_port()
        self.asked: list[dict[str, str]] = []
        # Requests under way at once, at most.
        self.at_once = 0
        self.answer: Answer = json_of({})
        self._under_way = 0
        self._runner: web.ServerRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hiroba/"

    async def __aenter__(self) -> "Site":
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        self._runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.1)  # type: ignore[arg-type]
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, backlog=1024).start()

    async def close(self) -> None:
        """Nobody is there any more."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append({name.lower(): value for name, value in request.headers.items()})
        self._under_way += 1
        self.at_once = max(self.at_once, self._under_way)
        try:
            with suppress(ConnectionError):
                return await self.answer(request)  # type: ignore[arg-type]
            return web.Response()
        finally:
            self._under_way -= 1


def json_of(value: Any, status: int = 200) -> Answer:
    """Answers that."""
    return text_of(json.dumps(value), status)


def text_of(text: str, status: int = 200, **headers: str) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(text=text, status=status, headers=headers)

    return answer


async def hang(request: web.Request) -> web.StreamResponse:
    """Never answers."""
    await asyncio.Event().wait()
    raise AssertionError


async def endless(request: web.Request) -> web.StreamResponse:
    """Answers for ever."""
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" " * 65_536)
