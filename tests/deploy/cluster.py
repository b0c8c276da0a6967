"""A load balancer, nodes and a broker as an operator has them. Nobody chats here: see load.py."""

import asyncio
from pathlib import Path

from tests.support.broker import Broker
from tests.support.haproxy import HAProxy
from tests.support.node import Node


class Cluster:
    """Nodes behind HAProxy."""

    def __init__(self, broker: Broker, nodes: list[Node], balancer: HAProxy) -> None:
        self.broker = broker
        self.nodes = nodes
        self.balancer = balancer

    @classmethod
    async def start(cls, broker: Broker, directory: Path, count: int, **settings: object) -> "Cluster":
        known = {"trusted_proxies": "127.0.0.1", **settings}
        nodes = [Node(broker.url, directory, f"node{number}", **known) for number in range(count)]
        await asyncio.gather(*(node.start() for node in nodes))
        return cls(broker, nodes, await HAProxy(nodes, directory).start())

    async def entries(self, room: str) -> int:
        """How many entries the room's log ever got: the dense count in its last id, whatever was trimmed."""
        async with self.broker.client() as operator:
            keys = [key async for key in operator.scan_iter(match=f"hiroba:*:log:{room}")]
            last = await operator.xrevrange(keys[0], count=1) if keys else []
        return int(last[0][0].partition(b"-")[2]) if last else 0
