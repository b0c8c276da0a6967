"""Everything that an alarm is about, done to real nodes and a real broker. Whether the alarm goes off is a test's."""

import asyncio
import itertools
import shutil
from collections.abc import Callable, Coroutine
from typing import Any

from tests.deploy.watched import SCRAPE_S, Watched
from tests.support.client import Crowd
from tests.support.node import Node
from tests.support.proxy import Proxy
from tests.support.raw import Raw, frame, handshake
from tests.support.until import until

# A rate over 5 minutes above 0.1 a second is more than 30.
ENOUGH = 35
# For one alarm to be seen, ten times what it takes; the test's own limit is for all of them.
PATIENCE_S = 200.0
# How long a node hears nothing of what is said: longer each time, and less than makes it look for another connection.
LATE_S = (0.8, 1.2, 1.6, 2.0)


class Mishaps:
    """Each method ends when its alarms were seen: `seen(alert)` says so."""

    def __init__(self, watched: Watched, crowd: Crowd, seen: Callable[[str], bool]) -> None:
        self._watched = watched
        self._crowd = crowd
        self._seen = seen
        self._proxy = Proxy(watched.broker.port)

    async def all(self) -> None:
        watched = self._watched
        async with self._proxy:
            through = watched.broker.url_at("127.0.0.1", self._proxy.port)
            far = watched.node("far", through, connections_max=10, ping_s=600)
            looping = watched.node("looping", lb_wait_s=4, drain_s=0)
            far.process.spawn()
            watched.watch([*watched.nodes, far, looping])
            async with asyncio.TaskGroup() as group:
                group.create_task(self.a_sick_replica())
                await together(
                    self.a_node_far_away(far),
                    self.a_crash_loop(looping),
                    self.slow_readers(),
                    self.fast_talkers(),
                    self.a_storm(),
                )
                # From here on nobody has to start or to say anything.
                await together(self.a_deaf_node(far), self.a_refusing_master())
            await self.those_around_gone()

    async def told(self, *alerts: str) -> None:
        await until(lambda: all(map(self._seen, alerts)), f"{alerts} go off", PATIENCE_S, every_s=0.1)

    # ---- nodes ----

    async def a_node_far_away(self, far: Node) -> None:
        """Full, then late, and later every time."""
        await far.wait_ready()
        for _ in range(10):
            await self._crowd.member(far, "far")
        while not self._seen("HirobaHandshakesRefused"):
            raw = await self._crowd.connect(far)
            assert await raw.ask(handshake("far")) == 503
            raw.reset()
        await self.told("HirobaConnectionsNearLimit")
        talker = await self._crowd.member(self._watched.nodes[0], "far")
        for late_s in itertools.cycle(LATE_S):
            # What the node asks is held up: first where the log ends, then what is in it.
            self._proxy.freeze("up")
            await asyncio.sleep(0.8)  # the sweep asks every half second
            talker.write(frame(b'{"message": "hello"}') * 15)
            await asyncio.sleep(late_s)
            talker.write(frame(b'{"message": "hello"}') * 15)
            self._proxy.thaw()
            await asyncio.sleep(SCRAPE_S)  # it catches up, and says how late it was
            if self._seen("HirobaLagGrowing") and self._seen("HirobaDeliverySlow"):
                return

    async def a_deaf_node(self, far: Node) -> None:
        """And one that stutters."""
        self._proxy.freeze()
        while not self._seen("HirobaEventLoopLag"):
            far.pause()
            await asyncio.sleep(0.4)  # as long as it stands still
            far.cont()
            await asyncio.sleep(0.1)
        await self.told("HirobaNodeDeaf", "HirobaNodeNotReady")

    async def a_crash_loop(self, node: Node) -> None:
        """The second of its ends is in order: it drains so long that a scrape sees it."""
        for number in range(4):
            await node.start()
            await self._start_scraped(node)
            if number == 1:
                await node.stop()
            else:
                await node.kill()
        await self.told("HirobaNodeRestarts", "HirobaNodeDown", "Drains", "Restarts")

    async def _start_scraped(self, node: Node) -> None:
        name = "hiroba_process_start_time_seconds"
        started = await node.metric(name)

        async def scraped() -> bool:
            return started in (await self._watched.query(f'{name}{{instance="127.0.0.1:{node.ops_port}"}}')).values()

        await until(scraped, "a scrape of the new node", PATIENCE_S, every_s=0.1)

    # ---- clients ----

    async def slow_readers(self) -> None:
        node, loud = self._watched.nodes[1], b'{"message": "' + b"x" * 60_000 + b'"}'
        talker = await self._crowd.member(node, "loud")  # not where who is held back for a second is closed
        while not self._seen("HirobaClosedForSlowness"):
            for _ in range(ENOUGH):
                raw = await self._crowd.connect(node, receive_bytes=4096)
                await raw.enter("loud")
                raw.transport.pause_reading()
            for _ in range(5):
                talker.write(frame(loud))
            closed = await node.metric("hiroba_closes_total", reason="slow") + ENOUGH
            await self._until_counted(node, "slow", closed)

    async def fast_talkers(self) -> None:
        node = self._watched.nodes[0]
        while not self._seen("HirobaClosedForRate"):
            closed = await node.metric("hiroba_closes_total", reason="rate") + ENOUGH
            for number in range(ENOUGH):
                raw = await self._crowd.member(node, f"fast{number}")
                raw.write(frame(b'{"message": 1}') * 10_000)
            await self._until_counted(node, "rate", closed)

    async def _until_counted(self, node: Node, reason: str, wanted: float) -> None:
        async def counted() -> bool:
            return await node.metric("hiroba_closes_total", reason=reason) >= wanted

        await until(counted, f"{wanted:g} closes for {reason}", PATIENCE_S, every_s=0.1)

    async def a_storm(self) -> None:
        """More than 20 a second over a whole minute, all within seconds."""
        while not self._seen("HirobaReconnectStorm"):
            for _ in range(30):
                raws = [await self._crowd.connect(self._watched.nodes[0]) for _ in range(50)]
                await asyncio.gather(*(self._come_and_go(raw) for raw in raws))

    async def _come_and_go(self, raw: Raw) -> None:
        await raw.ask(handshake("storm"), PATIENCE_S)
        raw.reset()

    # ---- the broker ----

    async def a_sick_replica(self) -> None:
        """Full, of the wrong policy, without its master and its disk; then dead."""
        replica = self._watched.replica
        async with replica.client() as operator:
            used = (await operator.info("memory"))["used_memory"]
            await operator.config_set("maxmemory", int(used * 1.05))
            await operator.config_set("maxmemory-policy", "allkeys-lru")
            await operator.execute_command("REPLICAOF", "127.0.0.1", "1")
            shutil.rmtree(replica.directory)
            await operator.bgsave()
            await self.told("HirobaBrokerMemory", "HirobaBrokerEvicts")
            await self.told("HirobaBrokerPersistence", "HirobaBrokerReplication")
        await replica.kill()
        await self.told("HirobaBrokerDown")

    async def a_refusing_master(self) -> None:
        """It wants more replicas than there are. Nobody has to speak for it: nodes probe."""
        async with self._watched.broker.client() as operator:
            await operator.config_set("min-replicas-to-write", 9)
            await self.told("HirobaPublishesRefused")
            await operator.config_set("min-replicas-to-write", 0)

    # ---- who stands around them ----

    async def those_around_gone(self) -> None:
        """The last of all: nothing comes in by this balancer, or is known of that broker, any more."""
        self._watched.haproxy.process.kill_now()
        self._watched.processes["redis-exporter-1"].kill_now()
        await self.told("HirobaBalancerDown", "HirobaBrokerUnwatched", "HirobaWatchdog")


async def together(*mishaps: Coroutine[Any, Any, None]) -> None:
    async with asyncio.TaskGroup() as group:
        for mishap in mishaps:
            group.create_task(mishap)
