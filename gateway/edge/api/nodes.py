"""`nodes` and `info`: which nodes there are and how loaded, and what this one is."""

import os

import msgspec

from gateway import __version__
from gateway.edge.api.operation import Call, Nothing
from gateway.edge.edge import Edge


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
        edge.draining,
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
