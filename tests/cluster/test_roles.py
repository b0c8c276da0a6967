"""The server's role changes behind one address, and the former master lives on as a replica: nobody stays with it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cluster.chat import Heard, balanced, chat_on, key, say
from tests.cluster.conftest import QUICK
from tests.conftest import NodeFactory
from tests.support.broker import Broker, BrokerOptions, Kind
from tests.support.node import Node
from tests.support.ports import free_port
from tests.support.proxy import Proxy
from tests.support.sentinel import admit
from tests.support.until import until


class Pair:
    """A master and its replica, and one address that leads to the master: a Service, a balancer, a managed broker."""

    def __init__(self, directory: Path, kind: Kind) -> None:
        options = BrokerOptions(kind=kind, appendfsync="always", directives=("repl-diskless-sync-delay 0",))
        self.master, self.replica = (Broker(directory / f"broker{n}", options) for n in range(2))
        self.proxy = Proxy(self.master.port)

    @property
    def url(self) -> str:
        return self.master.url_at("127.0.0.1", self.proxy.port)

    async def start(self) -> None:
        for broker in (self.master, self.replica):
            await broker.start()
            await admit(broker)
        async with self.replica.client() as client:
            await client.replicaof("127.0.0.1", self.master.port)
        await self.in_step()

    async def in_step(self) -> None:
        async with self.master.client() as master:

            async def synced() -> bool:
                info = await master.info("replication")
                return info["connected_slaves"] == 1 and info["slave0"]["offset"] == info["master_repl_offset"]

            await until(synced, "the replica is in step")

    async def exchange(self, *, lagging: bool = False) -> None:
        """The replica becomes the master, and the address leads there; existing connections stay where they are.

        `lagging`: the former master never hears from the new one, and keeps what it has.
        """
        async with self.master.client() as former, self.replica.client() as new:
            await former.client_pause(10_000, all=False)  # docs/operations.md: nothing is lost by it
            await self.in_step()
            await new.replicaof("NO", "ONE")
            self.proxy.lead_to(self.replica.port)
            await former.replicaof("127.0.0.1", free_port() if lagging else self.replica.port)
            await former.client_unpause()
        self.master, self.replica = self.replica, self.master


@pytest.fixture(params=["redis", "valkey"])
async def pair(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    pair = Pair(tmp_path, request.param)
    async with pair.proxy:
        await pair.start()
        yield pair
    for broker in (pair.master, pair.replica):
        broker.process.kill_now()


@pytest.fixture
def broker(pair: Pair) -> Broker:
    return pair.master


async def nobody_left(broker: Broker) -> None:
    """Waits until no node is connected to the server."""
    async with broker.client() as client:

        async def none() -> bool:
            return not [one for one in await client.client_list() if one["user"] == "gateway"]

        await until(none, "no node is connected to the former master")


@pytest.mark.parametrize("lagging", [False, True], ids=["in step", "lagging"])
async def test_a_former_master_is_left_by_all_and_buries_and_loses_nobody(
    pair: Pair, start_node: NodeFactory, lagging: bool
) -> None:
    """Heartbeats went there for ever, so that a third node buried the living; reads for joiners did, and were short."""

    async def start() -> Node:
        return await start_node(broker_url=pair.url, **QUICK)

    nodes = [await start(), await start()]
    former, new = pair.master, pair.replica
    async with former.client() as client, new.client() as later, chat_on(client) as chat:
        rooms = [f"room{n}" for n in range(3)]
        members = [await chat.join(node, room) for node in nodes for room in rooms]
        away = {room: await chat.join(nodes[0], room) for room in rooms}
        ever: dict[str, list[Heard]] = {room: await say(away[room], "one", "two") for room in rooms}
        for room, leaver in away.items():
            await balanced(leaver, ever[room])
            await leaver.leave()
        talkers = [chat.talk(await chat.join(node, "talk"), f"t{n}") for n, node in enumerate(nodes)]
        await asyncio.gather(*(talker.more(5) for talker in talkers))
        await pair.exchange(lagging=lagging)
        chat.broker = later
        third = await start()
        for room in rooms:
            speaker = await chat.join(third, room)
            ever[room] += await say(speaker, *(f"after {n}" for n in range(5)))
            members.append(speaker)
        for room, leaver in away.items():  # what joiners are given is whole at once
            for node in nodes:
                late = await chat.join(node, room, history=100)
                await late.hears(*(entry.message for entry in ever[room]))
                assert late.start >= ever[room][-1].id
                plain = await chat.join(node, room, "plain", after=leaver.start)
                await plain.hears(*(entry.message for entry in ever[room]))
            await leaver.resume(nodes[0])
            assert leaver.welcomes[-1]["recovered"]
            members.append(leaver)
        await nobody_left(former)
        await asyncio.gather(*(talker.more(5) for talker in talkers))
        await chat.quiet()
        await chat.answers_agree("talk")
        for talker in talkers:
            assert not talker.member.errors
            await balanced(talker.member, await chat.log("talk"))
        for room in rooms:
            ever[room] += await say(away[room], "last")
        for member in members:
            await balanced(member, ever[member.room])
            assert not member.gaps and member.connected
        beats = [float(beat) for _, beat in await later.zrange("hiroba:nodes", 0, -1, withscores=True)]

        async def all_beat_again() -> bool:
            known = await later.zrange("hiroba:nodes", 0, -1, withscores=True)
            assert len(known) == 3, "a node that lives was buried"
            return all(beat > max(beats) + 1000 * int(str(QUICK["node_ttl_s"])) for _, beat in known)

        await until(all_beat_again, "three nodes live on for longer than node_ttl_s")
        for node in (*nodes, third):
            for name in ("hiroba_groups_swept_total", "hiroba_gaps_total", "hiroba_gaps_told_total"):
                assert await node.metric(name) == 0, name
            assert await node.is_ready()
            assert not [line for line in node.lines() if "node is gone" in line]


async def test_a_node_that_has_only_just_come_buries_nobody(broker: Broker, start_node: NodeFactory) -> None:
    """A server may have become the master with an old registry, while the others are still looking for it."""
    async with broker.client() as client, chat_on(client) as chat:
        first = await start_node(**QUICK)
        await say(await chat.join(first, "square"), "one")
        await first.stop()
        await client.xgroup_create(key("square"), "node:elsewhere", "0")
        seconds, _ = await client.time()
        silent_ms = 1000 * (seconds - 60)
        await client.zadd("hiroba:nodes", {"elsewhere": silent_ms, "another": silent_ms + 59_000})
        await chat.join(await start_node(**QUICK), "square")

        async def gone() -> bool:
            known = await client.zscore("hiroba:nodes", "elsewhere")
            groups = await chat.groups("square")
            return known is None and b"node:elsewhere" not in groups

        assert not await gone()
        await until(gone, "the dead are buried in the end")
        now, _ = await client.time()
        assert now - seconds >= int(str(QUICK["node_ttl_s"]))
