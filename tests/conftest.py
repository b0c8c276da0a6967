"""Fixtures of all tests: brokers, nodes, the loop they run on, and the logs that a failure shows."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from pathlib import Path
from types import FrameType

import hypothesis
import pytest
import pytest_timeout
import uvloop

from tests.support import process, watched
from tests.support.broker import Broker, BrokerOptions
from tests.support.client import Crowd
from tests.support.node import Node

# A node's words where its user may not do something; a test that provokes them is marked `denied`.
DENIED = "the broker's ACL refused a command"

# No test asserts speed: one example of a property took 503 ms on a busy machine, of 200 that hypothesis allows.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

BrokerFactory = Callable[..., Awaitable[Broker]]
NodeFactory = Callable[..., Awaitable[Node]]


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests run on the loop that nodes run on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: pytest_timeout.Settings) -> Generator[None, object, object]:
    """A test that waits for ever ends at its `timeout`, on uvloop too, and says where it waited.

    pytest-timeout raises in its signal's handler. uvloop runs that as one of its callbacks, of which it only logs the
    errors, and waits on; SystemExit ends it.
    """
    set_by = yield
    theirs = signal.getsignal(signal.SIGALRM)

    def over(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(RuntimeError):  # no loop
            for task in asyncio.all_tasks():
                task.print_stack(file=sys.stderr)
        try:
            theirs(number, frame)
        except pytest.fail.Exception as exc:
            raise SystemExit(exc.msg) from exc

    if callable(theirs):
        signal.signal(signal.SIGALRM, over)
    return set_by


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows the end of the log of each process it started."""
    report = yield
    if report.failed:
        for child in process.started:
            report.sections.append((f"log of {child.name} ({child.log})", child.tail()))
    return report


@pytest.fixture(autouse=True)
def no_process_outlives_its_test(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    for child in process.started:
        child.kill_now()
    lines = [line for child in process.started for line in child.lines()]
    process.started.clear()
    blocked = [line for line in lines if watched.FOUND in line]
    if blocked:
        pytest.fail(f"a node blocked its loop:\n{blocked[0]}", pytrace=False)
    denied = [line for line in lines if DENIED in line]
    if denied and not request.node.get_closest_marker("denied"):
        pytest.fail(f"users.acl.template lacks what a node asks for:\n{denied[0]}", pytrace=False)


@pytest.fixture(autouse=True)
def no_blocking_call_on_the_loop(request: pytest.FixtureRequest) -> Iterator[None]:
    """In unit/ and node/ tests a blocking call of ours on the running loop fails the test."""
    if {"unit", "node"}.isdisjoint(request.path.parts):
        yield
        return
    with watched.watching():
        yield


@pytest.fixture
async def start_broker(tmp_path: Path) -> AsyncIterator[BrokerFactory]:
    """`await start_broker(kind="valkey", appendfsync="always")`: a broker that ends with the test."""
    brokers: list[Broker] = []

    async def start(**options: object) -> Broker:
        directory = tmp_path / f"broker{len(brokers)}"
        broker = Broker(directory, BrokerOptions(**options))  # type: ignore[arg-type]  # names are checked there
        brokers.append(broker)
        return await broker.start()

    yield start
    for broker in brokers:
        broker.process.kill_now()


@pytest.fixture(params=["redis", "valkey"])
async def broker(start_broker: BrokerFactory, request: pytest.FixtureRequest) -> Broker:
    """A broker that keeps acknowledged data over `kill` and `restart`; each test runs on Redis and Valkey.

    Where the kind makes no difference: `@pytest.mark.parametrize("broker", ["redis"], indirect=True)`.
    """
    return await start_broker(kind=request.param, appendfsync="always")


@pytest.fixture
async def start_node(broker: Broker, tmp_path: Path) -> AsyncIterator[NodeFactory]:
    """`await start_node(stall_s=2)`: a ready node on the test's broker; `broker_url=`: another road."""
    nodes: list[Node] = []

    async def start(*, ready: bool = True, broker_url: str | None = None, **settings: object) -> Node:
        name = f"node{len(nodes)}"
        node = Node(broker_url or broker.url, tmp_path, name, **settings)
        nodes.append(node)
        return await node.start(ready=ready)

    yield start
    for node in nodes:
        node.process.kill_now()


@pytest.fixture
async def crowd() -> AsyncIterator[Crowd]:
    """`ann = await crowd.join(node, "room", "plain", history=5)`."""
    async with Crowd() as everybody:
        yield everybody
