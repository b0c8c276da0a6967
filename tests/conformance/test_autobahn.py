"""The Autobahn cases (WebSocket conformance, RFC 6455 and 7692) against the product's receive path and frames.

An echo route of the test's own, served by `edge.connection` after `edge.takeover`, beside the same route on bare
aiohttp: whatever aiohttp passes, we pass.
"""

import asyncio
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any, cast

import kosoku
import pytest
from aiohttp import WSMsgType, web

from gateway.core import frames, handshake, inbound
from gateway.core.inbound import Frame, Opcode
from gateway.core.wires import DEFLATING, PLAIN
from gateway.edge.connection import Connection
from gateway.edge.context import Context
from gateway.edge.takeover import take_over
from gateway.rooms.hub import Keep
from gateway.settings.model import Settings
from gateway.telemetry.clock import Clock
from gateway.telemetry.metrics import Metrics
from tests.support.grants import OPEN
from tests.support.ports import free_port

# Performance cases: 9.* and 12.*, 13.* send up to a thousand messages of up to 16 MB each; a part of them is enough
# to see every code path, the whole runs in `make test-long`.
BYTES_MAX = 32 * 1024 * 1024
FAST = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*", "9.1.1", "9.2.1", "9.3.1", "9.5.1", "9.7.1"]
FAST_DEFLATE = ["12.1.1", "12.1.5", "12.2.3", "12.3.1", "12.4.1", "12.5.1", "13.1.1", "13.2.1", "13.3.1", "13.7.1"]
# kosoku 0.1.0 leaves its test data open.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
PASSED = {"OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED"}

# kosoku 0.1.0 hashes a str, and calls it an error, when a message of these cases comes back uncompressed; ours do
# where compressing does not pay (RFC 7692 §6: a sender may choose per message).
_UNCOMPRESSED = {
    *("12.1.1", "12.1.2", "12.2.1", "12.2.2", "12.2.3", "12.3.1", "12.3.2", "12.4.1", "12.4.2"),
    *("12.5.1", "12.5.2", "12.5.3", "12.5.4", "12.5.5", "12.5.6", "12.5.11"),
    *("13.1.1", "13.1.2", "13.2.1", "13.2.2", "13.7.1", "13.7.2"),
}
# 13.3 to 13.6 offer only limited server windows; we take none up, which the suite calls unimplemented, not failed.
# One read that holds ten pings is answered by the last one's pong alone (RFC 6455 §5.5.3).
_ONE_PONG = {"2.10", "2.11"}
KNOWN_DIFFERENCES = _UNCOMPRESSED | _ONE_PONG


class Echo(Connection):
    """Sends back what comes, in place of publishing it. Binary too, which the product refuses (close 1003)."""

    def hear(self, frame: Frame) -> None:
        assert self._intake is not None
        self._intake.answer_ping()  # the product's messages take the way over the broker: no pong is later than one
        if frame.opcode is Opcode.BINARY:
            echo = self._frame(frame.payload)
            self.write(bytes((echo[0] + 1,)) + echo[1:])  # opcode 2 in place of 1
        elif frame.opcode is Opcode.TEXT:
            self.write(self._frame(inbound.text(frame.payload).encode()))
        else:
            super().hear(frame)

    def _frame(self, payload: bytes) -> bytes:
        return frames.deflated(payload) if self.wire.deflates else frames.text(payload)


def _context(keep: Keep) -> Context:
    """A node's context with nobody behind it: the echo needs its settings, and is in no room."""
    metrics = Metrics()
    settings = Settings(message_bytes_max=BYTES_MAX, outgoing_bytes_max=BYTES_MAX, close_s=5, messages_per_s=0)
    broker = SimpleNamespace(publisher=SimpleNamespace(full=lambda session: False))
    nobody = cast(Any, None)
    return Context("echo", settings, cast(Any, broker), nobody, nobody, nobody, nobody, Clock(), metrics, nobody, keep)


def _echo_app() -> web.Application:
    tasks: set[asyncio.Task[None]] = set()

    def keep(name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task

    context = _context(keep)

    async def ours(request: web.Request) -> web.StreamResponse:
        deflates = handshake.deflate_offered(request.headers.get("Sec-WebSocket-Extensions", ""))
        assert request.transport is not None
        wire = DEFLATING[PLAIN] if deflates else PLAIN
        connection = Echo(context, request.transport, "/", "-", wire, None, OPEN)
        request.transport.write(handshake.switching(request.headers["Sec-WebSocket-Key"], None, deflates))
        return take_over(request, connection)

    async def bare(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(max_msg_size=BYTES_MAX)
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await socket.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                await socket.send_bytes(message.data)
        return socket

    app = web.Application()
    app.add_routes([web.get("/ours", ours), web.get("/bare", bare)])
    return app


async def _verdicts(url: str, cases: list[str]) -> dict[str, str]:
    try:
        results = await kosoku.run_fuzzingclient(url, cases, concurrency=8)
    except kosoku.FailureError as exc:
        results = exc.results
    # A case counts as it ends: what was exchanged, and how the connection was closed.
    return {result.case_id: f"{result.behavior.value}/{result.behavior_close.value}" for result in results}


def _failed(verdict: str) -> bool:
    exchanged, closed = verdict.split("/")
    return exchanged not in PASSED or closed not in {"OK", "INFORMATIONAL"}


async def _compare(cases: list[str]) -> None:
    runner = web.AppRunner(_echo_app(), access_log=None)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        ours = await _verdicts(f"ws://127.0.0.1:{port}/ours", cases)
        bare = await _verdicts(f"ws://127.0.0.1:{port}/bare", cases)
    finally:
        await runner.cleanup()
    assert len(ours) == len(bare) > 0
    worse = {
        case: f"ours {verdict}, aiohttp {bare[case]}"
        for case, verdict in ours.items()
        if _failed(verdict) and not _failed(bare[case])
    }
    assert worse.keys() == KNOWN_DIFFERENCES & ours.keys(), worse


async def test_nothing_fails_that_bare_aiohttp_passes() -> None:
    """RFC 6455: framing, pings, fragments, UTF-8, closes, limits."""
    await _compare(FAST)


async def test_no_compressed_case_fails_that_bare_aiohttp_passes() -> None:
    """RFC 7692: offers, windows, contexts, fragments."""
    await _compare(FAST_DEFLATE)


@pytest.mark.long
@pytest.mark.timeout(1200)
async def test_all_cases() -> None:
    """The whole suite, the large and many messages too."""
    await _compare(["*"])
