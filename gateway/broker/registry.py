"""Which nodes are alive: one sorted set in the broker, a heartbeat from each. Decides nothing by itself."""

import asyncio
from collections.abc import Callable

import redis.asyncio as redis
import structlog

import broker_config
from gateway.broker import refusals
from gateway.broker.endpoint import ask
from gateway.broker.errors import BrokerGone, BrokerRefused
from gateway.broker.keys import Keys

log = structlog.get_logger()


class Registry:
    """This node's entry, and what it last heard of the others."""

    def __init__(
        self, node: str, keys: Keys, client: redis.Redis, ttl_s: float, on_forgotten: Callable[[], None]
    ) -> None:
        self._node = node
        self._keys = keys
        self._client = client
        self._ttl_s = ttl_s
        # We were thought dead: others may have removed our groups.
        self._on_forgotten = on_forgotten
        self._script = client.register_script(broker_config.script("heartbeat"))
        self._known = False
        # Empty until the first heartbeat: nobody can be called dead before.
        self.alive: frozenset[str] = frozenset()

    async def beat(self) -> None:
        """Tell that we live, bury the dead. Raises BrokerGone, BrokerRefused."""
        added, alive, dead = await ask(self._script(keys=[self._keys.nodes], args=[self._node, self._ttl_s]))
        self.alive = frozenset(map(_name, alive))
        for node in map(_name, dead):
            if node != self._node:
                log.info("node is gone", gone=node[:50])
                await ask(self._client.delete(self._keys.probe(node)))
                await ask(self._client.delete(self._keys.once(node)))
        if added and self._known:
            log.warning("this node was forgotten by the others: proving all its rooms")
            self._on_forgotten()
        self._known = True

    async def run(self, every_s: float) -> None:
        """Beat until cancelled. A broker that is away is others' news."""
        while True:
            await asyncio.sleep(every_s)
            try:
                await self.beat()
            except BrokerGone:
                continue
            except BrokerRefused as exc:
                refusals.tell(str(exc))

    async def withdraw(self) -> None:
        """Take this node and its own keys out. Raises BrokerGone, BrokerRefused."""
        await ask(self._client.zrem(self._keys.nodes, self._node))
        await ask(self._client.delete(self._keys.probe(self._node)))
        await ask(self._client.delete(self._keys.once(self._node)))


def _name(member: bytes) -> str:
    """Anybody can add to a set: what is no name of a node dies like one."""
    return member.decode(errors="replace")
