"""Bodies of requests: read within bounds, and got rid of where they are not taken."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import aiohttp
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

# How a body ends that does not come whole.
NOT_WHOLE = (aiohttp.ClientError, HttpProcessingError, web.RequestPayloadError, ConnectionError)
# Of one that is not taken, so much is read: sixteen of what may be.
PASSED_BYTES_MAX = 16 * 1024 * 1024


class TooLong(Exception):
    """It has more bytes than it may."""


async def read(request: web.Request, bytes_max: int, within_s: float, grow: Callable[[int], None]) -> bytes:
    """The whole of it; `grow` hears how much is there. Raises TooLong, TimeoutError, one of NOT_WHOLE."""
    body = bytearray()
    async with asyncio.timeout(within_s):
        async for piece in request.content.iter_any():
            body += piece
            if len(body) > bytes_max:
                raise TooLong
            grow(len(body))
    return bytes(body)


async def let_pass(request: web.Request, within_s: float) -> None:
    """Read what is left of a body that is not taken: who still sends when we close is reset, and hears nothing."""
    passed = 0
    with suppress(*NOT_WHOLE, TimeoutError):
        async with asyncio.timeout(within_s):
            while passed < PASSED_BYTES_MAX and (piece := await request.content.readany()):
                passed += len(piece)
