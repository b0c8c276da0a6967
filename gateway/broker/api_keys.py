"""The keys of the HTTP API, as the broker keeps them: a hash that commands write and every node reads once a second.

So a key that is made or revoked counts everywhere within a second, and no request waits for the broker to be let in.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager

import msgspec
import structlog

from gateway.broker import refusals
from gateway.broker.endpoint import Endpoint
from gateway.broker.errors import BrokerGone, BrokerRefused
from gateway.broker.keys import Keys
from gateway.broker.lane import Lane
from gateway.core.api_keys import ApiKey, BadKey, Scope, check_name, digest_of, id_in, key_of
from gateway.settings.model import Settings

# Seconds between two looks.
LOOK_S = 1.0
# A key per program that speaks to the API; all of them are read at each look.
KEYS_MAX = 100

log = structlog.get_logger()


class ApiKeys:
    """Errors: BrokerGone, BrokerRefused."""

    def __init__(self, keys: Keys, lane: Lane) -> None:
        self._key = keys.api_keys
        self._lane = lane
        # By id. None: this node does not know yet.
        self.known: Mapping[str, ApiKey] | None = None
        # Whether there ever was one, as far as this node knows: a broker that lost them opens no door.
        self.wanted = False

    def find(self, key: str) -> ApiKey | None:
        """The one that this is; None: it is none that is good."""
        found = (self.known or {}).get(id_in(key) or "")
        return found if found is not None and found.fits(key) else None

    async def run(self) -> None:
        """Know them, until cancelled. Those last known count while the broker is away."""
        while True:
            await self._lane.up()
            try:
                self._learn(await self.all())
            except BrokerGone:
                continue
            except BrokerRefused as exc:
                refusals.tell(str(exc))
            await asyncio.sleep(LOOK_S)

    def _learn(self, keys: Collection[ApiKey]) -> None:
        before, self.known = self.known, {key.id: key for key in keys}
        self.wanted = self.wanted or bool(keys)
        if before is None and not keys:
            log.info("the API has no key yet: it answers on loopback only (hiroba keys make NAME)")
        elif before is None or before.keys() != self.known.keys():
            log.info("keys of the API", keys=len(keys))

    async def all(self) -> list[ApiKey]:
        """The oldest first."""
        found: list[ApiKey] = []
        for id, raw in (await self._lane.ask_master("HGETALL", self._key)).items():
            try:
                found.append(msgspec.json.decode(raw, type=ApiKey))
            except msgspec.MsgspecError:
                refusals.puzzle("api key", self._key, id)
        return sorted(found, key=lambda key: key.made_at)

    async def make(self, name: str, scopes: tuple[Scope, ...], by: str) -> str:
        """The key itself, which nobody can be told again. Raises BadKey."""
        check_name(name)
        known = await self.all()
        if name in (key.name for key in known):
            raise BadKey(f"there is a key {name}: revoke it, or give this one another name")
        if len(known) >= KEYS_MAX:
            raise BadKey(f"there are {len(known)} keys: revoke those that nobody uses")
        text = key_of(secrets.token_bytes(4), secrets.token_urlsafe(32))
        id = id_in(text)
        assert id is not None
        key = ApiKey(id, name, scopes, digest_of(text), int(time.time()), by)
        await self._lane.ask("HSET", self._key, id, msgspec.json.encode(key))
        return text

    async def revoke(self, name: str) -> ApiKey:
        """By its name, or its id. Raises BadKey."""
        for key in await self.all():
            if name in (key.name, key.id):
                await self._lane.ask("HDEL", self._key, key.id)
                return key
        raise BadKey(f"there is no key {name}: hiroba keys list")


@asynccontextmanager
async def without_a_node(
    url: str, settings: Settings, on_change: Callable[[str, str | None], None]
) -> AsyncIterator[ApiKeys]:
    """For a command: a connection of its own, which ends with it. `on_change`: as of Lane."""
    endpoint = Endpoint(url, settings.broker_timeout_s)
    lane = Lane("keys", "command", endpoint, settings.broker_timeout_s, settings.broker_timeout_s, on_change)
    task = asyncio.create_task(lane.run())
    try:
        async with asyncio.timeout(settings.broker_timeout_s):
            await lane.up()
        yield ApiKeys(Keys(settings.key_prefix, endpoint.db), lane)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await endpoint.close()
