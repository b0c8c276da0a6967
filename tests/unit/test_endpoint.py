"""Where a lane's connections lead: names are resolved at every connect, so that a broker may move."""

import asyncio
import contextlib
import gc
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import uvloop

from gateway.broker.endpoint import Endpoint, ask
from gateway.broker.errors import BrokerGone
from tests.conftest import BrokerFactory
from tests.support.broker import Broker
from tests.support.until import BUDGET_S

# redis-py 8 would rather have `driver_info`, which redis-py 6 does not know.
pytestmark = pytest.mark.filterwarnings("ignore:.*'lib_(name|version)':DeprecationWarning")


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


# ---- names with several addresses, slow names ----


@contextlib.contextmanager
def silent(port: int) -> Iterator[str]:
    """An address that answers nothing: the backlog of its listener is full, so Linux drops what comes."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.2", port))
        listener.listen(0)
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.2", port))
        yield "127.0.0.2"


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
async def test_a_name_whose_first_address_is_silent_costs_a_moment(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name with an address of each family, one of them dead, left a node without a broker for ever."""

    async def two(host: str, port: int) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (at, port)) for at in ("127.0.0.2", "127.0.0.1")]

    monkeypatch.setattr("gateway.broker.dial._addresses", two)
    endpoint = Endpoint(broker.url.replace("127.0.0.1", "broker.test"), timeout_s=BUDGET_S)
    with silent(broker.port):
        visit = Visit()
        transport, _ = await endpoint.connect(visit)
        assert transport.get_extra_info("peername")[0] == "127.0.0.1"
        transport.abort()


async def test_a_name_that_resolves_slowly_is_looked_up_once_by_all_who_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each try left one behind: 18 errors that nobody had asked for in 90 s, and resolver threads all taken."""
    asked = 0
    answer = asyncio.Event()

    async def slowly(host: str, port: int) -> Any:
        nonlocal asked
        asked += 1
        await answer.wait()
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    monkeypatch.setattr("gateway.broker.dial._addresses", slowly)
    endpoint = Endpoint("redis://broker.test/0", timeout_s=0.05)
    for _ in range(6):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await endpoint.connect(Visit())
    waits = asyncio.create_task(endpoint.connect(Visit()))
    await asyncio.sleep(0)
    answer.set()
    with pytest.raises(socket.gaierror):
        await waits
    assert asked == 1
    del waits
    gc.collect()
    assert told == []


# ---- TLS ----


@pytest.mark.parametrize("host", ["a..b", "a" * 64, "."])
async def test_what_can_be_no_name_is_a_failed_look_up(host: str) -> None:
    """Python refuses to look it up, with an error of its own kind, which ended the lane and so the node."""
    with pytest.raises(OSError, match="is no name of a host"):
        await Endpoint(f"redis://{host}:6379/0", timeout_s=BUDGET_S).connect(Visit())


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("ssl_ciphers=nonsense", "ssl_ciphers=nonsense): "),
        ("ssl_ca_certs=/none.pem", "ssl_ca_certs=/none.pem): No such file or directory"),
        ("ssl_ca_data=geheim", "ssl_ca_data): "),
        ("ssl_certfile=/none.pem&ssl_password=geheim", "ssl_certfile=/none.pem, ssl_password): No such file"),
        ("ssl_keyfile=/none.pem", "ssl_keyfile=/none.pem): certfile should be"),
        ("ssl_ca_data=geheim-%C3%A4", "ssl_ca_data): cadata should be"),
        ("ssl_ca_certs=/none%00.pem", "embedded null byte"),
    ],
)
async def test_what_tls_cannot_be_had_with_is_named(option: str, told: str) -> None:
    endpoint = Endpoint(f"rediss://127.0.0.1:1/0?{option}", timeout_s=BUDGET_S)
    with pytest.raises(BrokerGone, match="no TLS with what broker_url names") as gone:
        await endpoint.connect(Visit())
    assert told in str(gone.value) and "geheim" not in str(gone.value)


@pytest.mark.parametrize(
    "option", ["ssl_cert_reqs=none", "ssl_cert_reqs=optional&ssl_check_hostname=false", "ssl_min_version=772", ""]
)
async def test_every_option_of_tls_that_is_let_in_leads_in(start_broker: BrokerFactory, option: str) -> None:
    broker = await start_broker(kind="redis", tls=True)
    endpoint = Endpoint(f"{broker.url}&{option}", timeout_s=BUDGET_S)
    transport, _ = await endpoint.connect(Visit())
    assert transport.get_extra_info("ssl_object").version() == "TLSv1.3"
    transport.abort()
