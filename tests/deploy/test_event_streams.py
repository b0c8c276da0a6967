"""Event streams behind HAProxy and nginx, configured as we ship them: nothing is held back, nobody sent off."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from tests.conftest import NodeFactory
from tests.deploy.cluster import Cluster
from tests.deploy.test_nginx import written
from tests.support.broker import Broker
from tests.support.client import Crowd
from tests.support.events import listen, request, resuming
from tests.support.haproxy import HAProxy
from tests.support.nginx import nginx
from tests.support.node import Node
from tests.support.ports import free_port
from tests.support.until import until

pytestmark = pytest.mark.parametrize("broker", ["redis"], indirect=True)


def at(port: int) -> Node:
    """A proxy, as a place to come in by."""
    return cast(Node, SimpleNamespace(port=port))


async def each_comes_at_once_and_nothing_is_lost(crowd: Crowd, door: Node, nodes: list[Node]) -> None:
    """A proxy that held small answers back would hold the first one until the second. Then its node is killed."""
    speaker = await crowd.join(nodes[1], "r")
    streams = [await listen(crowd, door, "r") for _ in range(4)]
    for n in range(5):
        await speaker.say(n)
        for stream in streams:
            await until(lambda n=n, stream=stream: stream.messages[-1:] == [n], "it, before the next is said")
    shares = [await node.metric("hiroba_wire_connections", wire="sse") for node in nodes]
    assert shares == [2, 2]
    await nodes[0].kill()
    await until(lambda: sum(stream.over for stream in streams) == 2, "its streams end")
    await speaker.say(5)
    for stream in streams:
        if stream.over:
            again = await listen(crowd, door, "r", headers=resuming(stream.events[-1].id))
            await until(lambda again=again: again.messages == [5], "what was said meanwhile")
        else:
            await until(lambda stream=stream: stream.messages == [*range(6)], "the others hear on")


async def nobody_is_sent_off_for_ever(crowd: Crowd, door: Node) -> None:
    """There is no node. An EventSource hears of a stream that ends, whoever reads a status of a 503."""
    raw = await crowd.connect(door)
    assert await raw.ask(request("r", headers="Origin: https://other.example\r\n")) == 200
    for field in ("content-type: text/event-stream", "access-control-allow-origin: https://other.example"):
        assert f"\r\n{field}\r\n" in raw.head.decode().lower()


async def test_haproxy(broker: Broker, tmp_path: Path) -> None:
    cluster = await Cluster.start(broker, tmp_path, 2)
    door = at(cluster.balancer.port)
    async with Crowd() as crowd:
        await each_comes_at_once_and_nothing_is_lost(crowd, door, cluster.nodes)
        await cluster.nodes[1].kill()
        await nobody_is_sent_off_for_ever(crowd, door)
        raw = await crowd.connect(door)
        assert await raw.ask(request("r").replace(b"text/event-stream", b"*/*")) == 503
        assert b"\r\nretry-after: 2" in raw.head.lower()


async def test_streams_count_as_handshakes_of_their_address(start_node: NodeFactory, tmp_path: Path) -> None:
    balancer = await HAProxy([await start_node()], tmp_path, LB_ADDRESS_HANDSHAKES_MAX=4).start()
    async with Crowd() as crowd:
        for _ in range(4):
            await listen(crowd, at(balancer.port), "r")
        raw = await crowd.connect(at(balancer.port))
        assert await raw.ask(request("r").replace(b"text/event-stream", b"*/*")) == 429
        await nobody_is_sent_off_for_ever(crowd, at(balancer.port))


async def test_nginx(start_node: NodeFactory, tmp_path: Path) -> None:
    settings = {"trusted_proxies": "127.0.0.1/32"}
    nodes = await asyncio.gather(start_node(**settings), start_node(**settings))
    port = free_port()
    server = nginx(tmp_path, written("nginx.md", at_8000=port, at_8001=nodes[0].port, at_8002=nodes[1].port))
    server.spawn()
    async with Crowd() as crowd:
        await until(lambda: _serves(crowd, port), "nginx serves")
        await each_comes_at_once_and_nothing_is_lost(crowd, at(port), nodes)
        await nodes[1].kill()
        await nobody_is_sent_off_for_ever(crowd, at(port))
    await server.stop()


async def _serves(crowd: Crowd, port: int) -> bool:
    async with crowd.http.get(f"http://127.0.0.1:{port}/healthz") as answer:
        return answer.status == 200
