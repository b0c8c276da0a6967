"""Which nodes are alive: one sorted set in the broker, a heartbeat from each. Decides nothing by itself.

Heartbeats travel on the reader's lane, before all that is asked of a new connection: where a node makes groups it is
known to live, and a server that it left hears no more of it.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha1
from typing import Any

import structlog

import broker_config
from gateway.broker import refusals
from gateway.broker.errors import BrokerGone, BrokerRefused
from gateway.broker.groups import settled
from gateway.broker.keys import Keys
from gateway.broker.lane import Lane
from gateway.telemetry.clock import Clock

# No node is silent for so many seconds: nobody dies.
NEVER_S = 1_000_000_000

log = structlog.get_logger()


class Registry:
    """This node's entry, and what it last heard of the others."""

    def __init__(
        self, node: str, keys: Keys, lane: Lane, clock: Clock, ttl_s: float, on_forgotten: Callable[[], None]
    ) -> None:
        self._node = node
        self._keys = keys
        self._lane = lane
        self._clock = clock
        self._ttl_s = ttl_s
        # We were thought dead: others may have removed our groups.
        self._on_forgotten = on_forgotten
        self._script = broker_config.script("heartbeat")
        self._sha = sha1(self._script.encode()).hexdigest()
        self._known = False
        self._up_at = clock.now()
        self._came_up = asyncio.Event()
        # Sent as the lane came up, and not looked at yet: the script's loading, the heartbeat.
        self._first: tuple[asyncio.Future[Any], asyncio.Future[Any]] | None = None
        # Empty: nobody can be called dead now.
        self.alive: frozenset[str] = frozenset()

    def up(self) -> None:
        """A new connection, perhaps to another server: say that we live before anything else is asked."""
        self._up_at = self._clock.now()
        self.alive = frozenset()
        self._first = self._ask()
        self._came_up.set()

    @property
    def _settled(self) -> bool:
        """Whether all who live must have been heard here. A server may have become the master with a registry as old as
        its replication, while the others still look for it: it says nothing of them until they had their time."""
        return self._clock.now() - self._up_at >= self._ttl_s

    def _ask(self) -> "tuple[asyncio.Future[Any], asyncio.Future[Any]]":
        # Loaded each time, which costs a server that has it nothing: after a failover or a flush it has not.
        loaded = self._lane.ask("SCRIPT", "LOAD", self._script)
        ttl_s = self._ttl_s if self._settled else NEVER_S
        return loaded, self._lane.ask("EVALSHA", self._sha, 1, self._keys.nodes, self._node, str(ttl_s))

    async def beat(self) -> None:
        """Tell that we live, bury the dead. Raises BrokerGone, BrokerRefused."""
        (loaded, asked), self._first = self._first or self._ask(), None
        await settled(loaded)
        added, alive, dead = await asked
        self.alive = frozenset(map(_name, alive)) if self._settled else frozenset()
        if added and self._known:
            log.warning("this node was forgotten by the others: proving all its rooms")
            self._on_forgotten()
        self._known = True
        for node in map(_name, dead):
            if node != self._node:
                log.info("node is gone", gone=node[:50])
                # A denial is told by the lane, and costs the keys of one that is dead.
                await settled(self._lane.ask("DEL", self._keys.probe(node)))
                await settled(self._lane.ask("DEL", self._keys.once(node)))

    async def run(self, every_s: float) -> None:
        """Beat until cancelled, at once when the lane came up. A broker that is away is others' news."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(every_s):
                    await self._came_up.wait()
            self._came_up.clear()
            try:
                await self.beat()
            except BrokerGone:
                continue
            except BrokerRefused as exc:
                refusals.tell(str(exc))

    async def withdraw(self) -> None:
        """Take this node and its own keys out. Raises BrokerGone, BrokerRefused."""
        await self._lane.ask("ZREM", self._keys.nodes, self._node)
        await self._lane.ask("DEL", self._keys.probe(self._node))
        await self._lane.ask("DEL", self._keys.once(self._node))


def _name(member: bytes) -> str:
    """Anybody can add to a set: what is no name of a node dies like one."""
    return member.decode(errors="replace")
