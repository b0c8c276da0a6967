"""`nodes`, `info`, `drain`: which nodes there are and how loaded, what this one is, and how one is sent away."""

import os
from typing import Annotated

import msgspec
import structlog
from msgspec import Meta

from gateway import __version__
from gateway.edge.api.operation import Call, Nothing
from gateway.edge.api.problems import Problem
from gateway.edge.edge import Edge

log = structlog.get_logger()


class Node(msgspec.Struct):
    """A node, as it says itself."""

    id: str
    version: str
    pid: int
    # Unix seconds.
    started_at: int
    connections: int
    connections_max: int
    rooms: int
    # Entries that it appended, and wrote to sockets, since it started.
    published: int
    delivered: int
    # Told to go: it is not ready any more, and sends away who is there.
    draining: bool


class Nodes(msgspec.Struct):
    """`silent`: nodes that are registered and did not answer within a second: gone lately, or stuck."""

    nodes: list[Node]
    silent: list[str]


class Info(msgspec.Struct):
    """The node that answers, and what it takes."""

    node: Node
    # Without its password.
    broker: str
    # Why it takes no new connections, or nothing: null.
    away: str | None
    message_bytes_max: int
    messages_per_request_max: int
    idempotency_s: float


class Drain(msgspec.Struct, forbid_unknown_fields=True):
    """Send a node away, as SIGTERM does: its clients are told to reconnect, then it ends."""

    node: Annotated[str, Meta(min_length=1, max_length=64, description="Its id")]


class Draining(msgspec.Struct):
    """This node was told."""

    node: str


class Told(msgspec.Struct):
    """What one node says to `drain`: whether it was meant."""

    meant: bool


def here(edge: Edge) -> Node:
    """This node."""
    metrics = edge.metrics
    return Node(
        edge.context.node,
        __version__,
        os.getpid(),
        int(metrics.started_at),
        edge.connections,
        edge.connections_max,
        len(edge.hub.rooms),
        metrics.published,
        metrics.delivered,
        edge.context.stop.is_set(),
    )


async def nodes(call: Call[Nothing]) -> Nodes:
    answers = await call.edge.context.broker.questions.ask("node")
    found = [msgspec.json.decode(answer, type=Node) for answer in answers.by_node.values()]
    return Nodes(sorted(found, key=lambda node: (node.started_at, node.id)), answers.silent)


async def info(call: Call[Nothing]) -> Info:
    """Answered also while the broker is away."""
    settings, broker = call.edge.settings, call.edge.context.broker
    away = broker.away if not broker.proven else None
    return Info(
        here(call.edge),
        str(broker.endpoint),
        away,
        settings.message_bytes_max,
        settings.append_messages_max,
        settings.idempotency_s,
    )


async def drain(call: Call[Drain]) -> Draining:
    """Whoever started that node decides what comes after: a supervisor starts another in its place."""
    id = call.facts["drained"] = call.asked.node  # `node` is who writes the line
    answers = await call.edge.context.broker.questions.ask("drain", id)
    if not any(msgspec.json.decode(answer, type=Told).meant for answer in answers.by_node.values()):
        silent = "; some did not answer: ask again" if answers.silent else ""
        raise Problem("no_node", f"no node that answers is {id}{silent}")
    return Draining(id)


def go(edge: Edge, node: str) -> Told:
    """Some node's operator says that it shall go: this one?"""
    meant = node == edge.context.node
    if meant and not edge.context.stop.is_set():
        log.info("told to drain, by the API")
        edge.context.stop.set()
    return Told(meant)
