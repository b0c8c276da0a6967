"""Durable Streams behind HAProxy and nginx, as we ship them, and under a prefix: read, waited for, written."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from yarl import URL

from tests.conftest import NodeFactory
from tests.deploy.cluster import Cluster
from tests.deploy.test_nginx import written
from tests.support.broker import Broker
from tests.support.client import Crowd
from tests.support.durable import Answer, append, ask, producing
from tests.support.events import Stream
from tests.support.nginx import nginx
from tests.support.node import Node
from tests.support.ports import free_port
from tests.support.until import until

pytestmark = pytest.mark.parametrize("broker", ["redis"], indirect=True)


def at(port: int) -> Node:
    """A proxy, as a place to come in by."""
    return cast(Node, SimpleNamespace(port=port, url=lambda path="/": f"http://127.0.0.1:{port}{path}"))


async def a_room_is_read_and_written(crowd: Crowd, door: Node, nodes: list[Node]) -> None:
    """Whatever waits is answered when something is said, not when a proxy's buffer is full; who wrote by a node that is
    gone writes on by the other, once."""
    offset = (await ask(crowd, door, "r", "PUT", headers={"Content-Type": "application/json"})).next
    raw = await crowd.connect(door)
    assert await raw.ask(b"GET /streams/chat/r?offset=now&live=sse HTTP/1.1\r\nHost: localhost\r\n\r\n") == 200
    stream = Stream(raw)
    for n in range(5):
        poll = asyncio.create_task(ask(crowd, door, "r", offset=offset, live="long-poll"))

        async def waits() -> bool:
            return sum([await node.metric("hiroba_wire_connections", wire="poll") for node in nodes]) == 1

        await until(waits, "it waits")
        assert (await append(crowd, door, "r", n, headers=producing("writer", 0, n))).status == 200
        async with asyncio.timeout(10):
            answer = await poll
        assert answer.messages == [n]
        offset = answer.next
        await until(lambda n=n: [event.data for event in stream.events if event.type == "data"][-1:] == [[n]], "it too")
    await nodes[0].kill()

    async def appended() -> Answer | None:
        answer = await append(crowd, door, "r", 5, headers=producing("writer", 0, 5))
        return answer if answer.status in (200, 204) else None

    await until(appended, "by the node that is left")
    assert (await ask(crowd, door, "r", offset=offset)).messages == [5]


async def test_haproxy(broker: Broker, tmp_path: Path) -> None:
    cluster = await Cluster.start(broker, tmp_path, 2)
    async with Crowd() as crowd:
        await a_room_is_read_and_written(crowd, at(cluster.balancer.port), cluster.nodes)


async def test_nginx(start_node: NodeFactory, tmp_path: Path) -> None:
    nodes = await asyncio.gather(*(start_node(trusted_proxies="127.0.0.1/32") for _ in range(2)))
    port = free_port()
    server = nginx(tmp_path, written("nginx.md", at_8000=port, at_8001=nodes[0].port, at_8002=nodes[1].port))
    server.spawn()
    async with Crowd() as crowd:

        async def serves() -> bool:
            async with crowd.http.get(f"http://127.0.0.1:{port}/healthz") as answer:
                return answer.status == 200

        await until(serves, "nginx serves")
        await a_room_is_read_and_written(crowd, at(port), list(nodes))
    await server.stop()


async def test_under_a_prefix_with_and_without_it(start_node: NodeFactory) -> None:
    """A proxy may strip it or pass it on; Location leads back to where one asked."""
    node = await start_node(base_path="/talk")
    async with Crowd() as crowd:
        for prefix in ("/talk", ""):
            url = node.url(f"{prefix}/streams/chat/r部屋")
            json_type = {"Content-Type": "application/json"}
            async with crowd.http.put(url, headers=json_type) as created:
                assert created.status in (200, 201)
                if created.status == 201:
                    assert created.url.join(URL(created.headers["Location"], encoded=True)) == created.url
            async with crowd.http.post(url, headers=json_type, data=json.dumps(prefix)) as answer:
                assert answer.status == 204
        async with crowd.http.get(node.url("/talk/streams/chat/r部屋")) as answer:
            assert await answer.json() == ["/talk", ""]
