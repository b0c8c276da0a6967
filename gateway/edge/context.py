"""What every handler and client of a node works with. No behaviour."""

import asyncio
from dataclasses import dataclass, field

from gateway.auth.auth import Auth
from gateway.broker.broker import Broker
from gateway.rooms.hub import Hub, Keep
from gateway.rooms.presence import Presence
from gateway.rooms.readers import Readers
from gateway.rooms.watch import Watchers
from gateway.settings.model import Settings
from gateway.site.publishing import PublishHook
from gateway.telemetry.clock import Clock
from gateway.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Context:
    """One per node."""

    node: str
    settings: Settings
    broker: Broker
    hub: Hub
    watchers: Watchers
    readers: Readers
    presence: Presence
    clock: Clock
    metrics: Metrics
    auth: Auth
    # Starts a task that the node owns.
    keep: Keep
    # None: people say what they like.
    hook: PublishHook | None = None
    # Set: the node is told to go, by a signal or by the API.
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    # Of connections about whose messages the site is asked: the tasks that say what may be said.
    saying: set["asyncio.Task[None]"] = field(default_factory=set)
