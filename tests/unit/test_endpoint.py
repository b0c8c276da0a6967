"""Where a lane's connections lead: names are resolved at every connect, so that a broker may move."""

import asyncio
import socket
from typing import Any

import pytest
import uvloop

from gateway.broker.endpoint import Endpoint, ask
from gateway.broker.errors import BrokerGone


class Visit(asyncio.Protocol):
    def __init__(self) -> None:
        self.over = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        self.over.set()


def test_a_name_is_resolved_anew_at_every_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo
    leads_to = "127.0.0.1"
    asked: list[str] = []

    def moved(host: str, *rest: Any, **named: Any) -> Any:
        asked.append(host)
        return resolve(leads_to if host == "broker.test" else host, *rest, **named)

    async def connect_twice() -> list[str]:
        nonlocal leads_to
        met: list[str] = []

        async def meet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            met.append(writer.get_extra_info("sockname")[0])
            writer.close()

        first = await asyncio.start_server(meet, "127.0.0.1", 0)
        port = first.sockets[0].getsockname()[1]
        second = await asyncio.start_server(meet, "127.0.0.2", port)
        endpoint = Endpoint(f"redis://broker.test:{port}/0", timeout_s=5.0)
        for leads_to in ("127.0.0.1", "127.0.0.2"):  # noqa: B007 - `moved` reads it
            visit = Visit()
            await endpoint.connect(visit)
            await asyncio.wait_for(visit.over.wait(), 10)
        first.close()
        second.close()
        return met

    monkeypatch.setattr(socket, "getaddrinfo", moved)
    # asyncio's own loop: uvloop resolves in C, where no test can come between.
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        assert runner.run(connect_twice()) == ["127.0.0.1", "127.0.0.2"]
    assert asked.count("broker.test") == 2


def test_a_connection_that_broke_in_the_pool_is_a_broker_that_went_and_a_bug_is_a_bug() -> None:
    """redis-py lets uvloop's error through, which is a bare RuntimeError."""

    async def write_to_a_broken_one() -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            await reader.read()
            writer.close()
            await writer.wait_closed()
            writer.write(b"PING\r\n")

    async def wrong() -> None:
        raise RuntimeError("a bug")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        with pytest.raises(BrokerGone, match="handler is closed"):
            runner.run(ask(write_to_a_broken_one()))
        with pytest.raises(RuntimeError, match="a bug"):
            runner.run(ask(wrong()))
