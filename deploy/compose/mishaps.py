"""What the alarms are about, done to what runs in containers. Whether an alarm goes off, and is over, is alarms.py's.

Each of these functions does its worst until `told`, then leaves everything well.
"""

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from itertools import cycle
from typing import Any

import aiohttp

from deploy.compose.engine import PROJECT, address, containers, docker, operator
from deploy.compose.trials import PROMETHEUS, nodes_up, until
from gateway.broker.sweep import SLICES

ALWAYS = "HirobaWatchdog"
PATIENCE_S = 180.0
# A rate over a minute (of five) above 0.1 a second is more than 6.
ENOUGH = 12

Told = Callable[[], Awaitable[bool]]
Mishap = Callable[[Told], Coroutine[Any, Any, None]]


# ---- nodes ----


async def nothing(told: Told) -> None:
    """It goes off by itself."""
    await until(told, "it is told", PATIENCE_S)


async def a_crash_loop(told: Told) -> None:
    """Each of its starts is scraped, or nobody could count them."""
    node = list(containers("gateway"))[1]
    instance = f"{address(node)}:9000"
    for starts in range(1, 4):
        docker("restart", "--time", "0", node)

        async def counted(starts: int = starts) -> bool:
            query = f'changes(hiroba_process_start_time_seconds{{instance="{instance}"}}[3m])'
            return await value(query) >= starts

        await until(counted, f"start {starts} of {instance} is counted")
    await until(told, "it is told")
    await until(lambda: nodes_up(2), "both nodes are ready")


async def a_node_that_hangs(told: Told) -> None:
    with paused("gateway"):
        await until(told, "it is told", PATIENCE_S)


async def a_node_that_stutters(told: Told) -> None:
    """Its loop is late by as long as it stood still."""
    while not await told():
        with paused("gateway"):
            await asyncio.sleep(0.5)
        await asyncio.sleep(0.5)


async def a_full_node(told: Told) -> None:
    """With as many as it takes it is not ready, and turns away who comes all the same."""
    node, statuses = a_node(), set()
    with ExitStack() as inside:
        while not await told():
            guest, status = knock(node, "full")
            inside.callback(guest.close)
            statuses.add(status)
            await asyncio.sleep(0.05)
    assert statuses == {101, 503}, statuses


# ---- people ----


async def slow_readers(told: Told) -> None:
    """Who takes nothing for stall_s."""
    node = a_node()
    while not await told():
        with ExitStack() as inside:
            for _ in range(ENOUGH):
                inside.callback(knock(node, "slow")[0].close)
            async with talking(node, "slow") as say:
                for _ in range(10):
                    await say("x" * 60_000)
                await asyncio.sleep(3)  # stall_s, and the wheel's turn


async def fast_talkers(told: Told) -> None:
    """Who says far more than messages_per_s for flood_s."""
    node = a_node()

    async def rush(number: int) -> None:
        with contextlib.suppress(aiohttp.ClientError, ConnectionError):
            async with talking(node, f"fast{number}") as say:
                for _ in range(10_000):
                    await say("x")

    while not await told():
        await asyncio.gather(*(rush(number) for number in range(ENOUGH)))


async def a_storm(told: Told) -> None:
    """More than 20 a second come anew, and somebody is there meanwhile."""
    node = a_node()
    async with talking(node, "storm"):
        while not await told():
            for _ in range(100):
                knock(node, "storm")[0].close()
                await asyncio.sleep(0)


# ---- the broker ----


async def a_rule_taken_from_the_nodes(told: Told) -> None:
    """They cannot read any more."""
    with unread():
        await until(told, "it is told", PATIENCE_S)
    await until(lambda: nodes_up(2), "both nodes are ready")


async def late_readers(told: Told) -> None:
    """The same for a second at a time: what is said meanwhile comes late."""
    async with talking(a_node(), "late") as say:
        while not await told():
            with unread():
                for _ in range(5):
                    await say("hello")
                    await asyncio.sleep(0.2)
            await asyncio.sleep(1)
    await until(lambda: nodes_up(2), "both nodes are ready")


async def a_broker_that_stutters(told: Told) -> None:
    """It stands still for longer each time: what was said meanwhile is read late, and later."""
    node = a_node()
    async with AsyncExitStack() as people:
        # A room for each slice of a sweep, which is what sees how late the node is (gateway/broker/sweep.py).
        talkers = [await people.enter_async_context(talking(node, f"stutter{number}")) for number in range(SLICES)]

        async def talk() -> None:
            with contextlib.suppress(ConnectionError):
                while True:
                    for say in talkers:
                        await say("hello")
                    await asyncio.sleep(0.2)

        talk_on = asyncio.create_task(talk())
        people.callback(talk_on.cancel)
        # Below the 3.75 s after which a node takes a lane for dead.
        for tenths in cycle(range(12, 32, 2)):
            if await told():
                break
            with paused("broker"):
                await asyncio.sleep(tenths / 10)
            await asyncio.sleep(1)
    await until(lambda: nodes_up(2), "both nodes are ready")


async def a_broker_that_hangs(told: Told) -> None:
    with paused("broker"):
        await until(told, "it is told", PATIENCE_S)
    await until(lambda: nodes_up(2), "both nodes are ready")


async def an_exporter_gone(told: Told) -> None:
    await stopped("redis-exporter", told)


async def a_balancer_gone(told: Told) -> None:
    await stopped("haproxy", told)
    await until(lambda: nodes_up(2), "both nodes are ready")


async def a_full_broker(told: Told) -> None:
    used = int(re.findall(r"used_memory:(\d+)", operator("INFO", "memory"))[0])
    with configured("maxmemory", str(int(used * 1.05))):
        await until(told, "it is told", PATIENCE_S)


async def a_broker_that_evicts(told: Told) -> None:
    with configured("maxmemory-policy", "allkeys-lru"):
        await until(told, "it is told", PATIENCE_S)


async def a_broker_that_refuses(told: Told) -> None:
    """It wants more replicas than there are. Nobody has to speak for it: nodes probe."""
    with configured("min-replicas-to-write", "9"):
        await until(told, "it is told", PATIENCE_S)
    await until(lambda: nodes_up(2), "both nodes are ready")


async def a_disk_that_takes_nothing(told: Told) -> None:
    (broker,) = containers("broker")
    mode = docker("exec", broker, "stat", "-c", "%a", "/data").strip()
    docker("exec", broker, "chmod", "500", "/data")
    try:
        operator("BGSAVE")
        await until(told, "it is told", PATIENCE_S)
    finally:
        docker("exec", broker, "chmod", mode, "/data")
        operator("BGSAVE")


async def a_master_gone(told: Told) -> None:
    """The broker follows a server that is not there."""
    operator("REPLICAOF", "127.0.0.1", "1")
    try:
        await until(told, "it is told", PATIENCE_S)
    finally:
        operator("REPLICAOF", "NO", "ONE")
    await until(lambda: nodes_up(2), "both nodes are ready")


# In this order: what still goes off after one must not hold back what comes next.
MISHAPS: Mapping[Mishap, set[str]] = {
    nothing: {ALWAYS},
    a_crash_loop: {"HirobaNodeRestarts"},
    a_full_node: {"HirobaConnectionsNearLimit", "HirobaHandshakesRefused", "HirobaNodeNotReady"},
    slow_readers: {"HirobaClosedForSlowness"},
    fast_talkers: {"HirobaClosedForRate"},
    a_storm: {"HirobaReconnectStorm"},
    a_rule_taken_from_the_nodes: {"HirobaNodeDeaf"},
    late_readers: {"HirobaDeliverySlow"},
    a_broker_that_stutters: {"HirobaLagGrowing"},
    a_node_that_hangs: {"HirobaNodeDown"},
    a_full_broker: {"HirobaBrokerMemory"},
    a_broker_that_refuses: {"HirobaPublishesRefused"},
    a_broker_that_evicts: {"HirobaBrokerEvicts"},
    a_disk_that_takes_nothing: {"HirobaBrokerPersistence"},
    a_master_gone: {"HirobaBrokerReplication"},
    an_exporter_gone: {"HirobaBrokerUnwatched"},
    a_node_that_stutters: {"HirobaEventLoopLag"},
    a_balancer_gone: {"HirobaBalancerDown"},
    a_broker_that_hangs: {"HirobaBrokerDown"},
}


# ---- what they do it by ----


def a_node() -> str:
    """The address of one, always the same: there is no balancer between, which would take what its people do not."""
    return address(min(containers("gateway")))


def knock(host: str, room: str) -> tuple[socket.socket, int]:
    """Who comes, and has the head of the answer: its status. The socket is small, and nobody reads on."""
    guest = socket.socket()
    guest.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    guest.settimeout(10)
    guest.connect((host, 8000))
    head = f"GET /ws/chat/{room}/ HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    guest.sendall((head + "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c2l4dGVlbiBieXRlcyEhIQ==\r\n\r\n").encode())
    return guest, int(guest.recv(12).split()[1])


@asynccontextmanager
async def talking(host: str, room: str) -> AsyncIterator[Callable[[str], Coroutine[Any, Any, None]]]:
    """Somebody at that node who hears all; to call with what he says."""
    async with aiohttp.ClientSession() as http, http.ws_connect(f"http://{host}:8000/ws/chat/{room}/") as person:

        async def hear() -> None:
            async for _ in person:
                pass

        hearing = asyncio.create_task(hear())
        try:
            yield lambda text: person.send_json({"message": text})
        finally:
            hearing.cancel()


@contextmanager
def paused(service: str) -> Iterator[None]:
    container = min(containers(service))
    docker("pause", container)
    try:
        yield
    finally:
        docker("unpause", container)


@contextmanager
def unread() -> Iterator[None]:
    """No node may read a log."""
    operator("ACL", "SETUSER", "gateway", "-xreadgroup")
    try:
        yield
    finally:
        operator("ACL", "SETUSER", "gateway", "+xreadgroup")


@contextmanager
def configured(name: str, value: str) -> Iterator[None]:
    before = operator("CONFIG", "GET", name).split()[-1]
    operator("CONFIG", "SET", name, value)
    try:
        yield
    finally:
        operator("CONFIG", "SET", name, before)


async def stopped(service: str, told: Told) -> None:
    container = f"{PROJECT}-{service}-1"
    docker("kill", container)
    try:
        await until(told, "it is told", PATIENCE_S)
    finally:
        docker("start", container)


async def value(query: str) -> float:
    """Of the one series that Prometheus has; 0 where it has none."""
    url = f"{PROMETHEUS}/api/v1/query"
    async with aiohttp.ClientSession() as http, http.get(url, params={"query": query}) as answer:
        found = (await answer.json())["data"]["result"]
    return float(found[0]["value"][1]) if found else 0.0
