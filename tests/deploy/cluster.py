"""A load balancer, nodes and a broker as an operator has them, with clients that keep a tally, and the judge of it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlencode

import aiohttp

from tests.support.broker import Broker
from tests.support.clients import Plain, Resumer
from tests.support.haproxy import HAProxy
from tests.support.node import Node
from tests.support.until import until


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

    async def log(self, room: str) -> list[tuple[str, str]]:
        """The room's log as the broker has it: ids and messages."""
        async with self.broker.client() as operator:
            keys = [key async for key in operator.scan_iter(match=f"hiroba:*:log:{room}")]
            entries = await operator.xrange(keys[0]) if keys else []
        return [(id.decode(), fields[b"m"].decode().strip('"')) for id, fields in entries]


@asynccontextmanager
async def crowd(
    cluster: Cluster, rooms: Sequence[str], *, listeners: int, plain: int, every_s: float
) -> AsyncIterator[tuple[list[Resumer], list[Plain]]]:
    """In each room so many v1 and plain listeners and one v1 speaker, all through the load balancer, all there."""
    resumers, plains = [], []
    for room in rooms:

        def url(query: dict[str, str], room: str = room) -> str:
            return cluster.balancer.ws_url(room) + (f"?{urlencode(query)}" if query else "")

        resumers += [Resumer(f"{room} listener{number}", url) for number in range(listeners)]
        resumers.append(Resumer(f"{room} speaker", url, every_s=every_s))
        plains += [Plain(cluster.balancer.ws_url(room)) for _ in range(plain)]
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as http:
        # Who listens is there before anybody speaks: what follows can be judged from the first entry on.
        listening = [client for client in (*resumers, *plains) if not getattr(client, "every_s", None)]
        tasks = [asyncio.create_task(client.run(http)) for client in listening]
        await asyncio.gather(*(asyncio.wait_for(client.here.wait(), 30) for client in listening))
        tasks += [asyncio.create_task(client.run(http)) for client in resumers if client.every_s]
        try:
            yield resumers, plains
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        failed = [end for end in ended if not isinstance(end, asyncio.CancelledError)]
        assert failed == [], failed


async def settle(cluster: Cluster, resumers: list[Resumer], plains: list[Plain]) -> None:
    """Speakers fall silent; returns when everybody has heard the last entry of its room."""
    for client in resumers:
        client.quiet = True
    await until(lambda: all(client.here.is_set() for client in (*resumers, *plains)), "everybody is back")
    for room in {client.name.split()[0] for client in resumers}:
        here = [client for client in resumers if client.name.split()[0] == room]
        await until(lambda here=here: len({client.last_id for client in here}) == 1, f"{room}: all heard the last")


async def judge(cluster: Cluster, resumers: list[Resumer], plains: list[Plain]) -> None:
    """Nothing lost, nothing doubled, nothing out of order: everybody's tally against the broker's log."""
    logs = {room: await cluster.log(room) for room in {client.name.split()[0] for client in resumers}}
    for room, entries in logs.items():
        said = [message for _, message in entries]
        assert len(said) == len(set(said)), f"{room}: a message is in the log twice"
        assert len(said) > 20, f"{room}: too little was said to prove anything"
        for plain in plains:
            if f"/{room}/" in plain.url:
                judge_plain(plain, said)
    for client in resumers:
        entries = logs[client.name.split()[0]]
        ids = [id for id, _ in entries]
        start = ids.index(client.joined_at) + 1 if client.joined_at in ids else 0
        assert client.heard == entries[start:], f"{client.name} heard something else than the log"
        assert set(client.acknowledged.values()) <= set(ids), f"{client.name}: an acknowledged message is not there"
        assert (client.gaps, client.unrecovered) == (0, 0)


def judge_plain(plain: Plain, said: list[str]) -> None:
    """Each stay is a piece of the log without holes; the first one begins with the first entry."""
    for number, stay in enumerate(plain.stays):
        if stay.heard:
            start = said.index(stay.heard[0])
            assert number > 0 or start == 0, "missed entries after its 101"
            assert stay.heard == said[start : start + len(stay.heard)], "a hole while it was there"
