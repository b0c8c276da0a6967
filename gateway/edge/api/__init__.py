"""The HTTP API of servers, on the ops port (docs/api.md): all operations, in one table."""

from aiohttp import web

from gateway.core.api_keys import Scope
from gateway.edge.api import openapi
from gateway.edge.api.operation import Operation
from gateway.edge.api.publishing import Batch, Broadcast, Outcomes, Publish, Published, Publishing
from gateway.edge.api.reading import History, HistoryPage, history
from gateway.edge.api.server import Server
from gateway.edge.edge import Edge


def operations() -> list[Operation]:
    """Those of a node."""
    says = Publishing()
    return [
        Operation("publish", "POST", "/publish", Scope.PUBLISH, "Say something in a room",
                  Publish, Published, says.publish),
        Operation("broadcast", "POST", "/broadcast", Scope.PUBLISH, "Say one thing in several rooms",
                  Broadcast, Outcomes, says.broadcast),
        Operation("batch", "POST", "/batch", Scope.PUBLISH, "Say several things, each in its room",
                  Batch, Outcomes, says.batch),
        Operation("history", "GET", "/history", Scope.READ, "A page of what was said in a room",
                  History, HistoryPage, history),
    ]  # fmt: skip


def routes(edge: Edge) -> list[web.AbstractRouteDef]:
    """`/api/…`."""
    table = operations()
    return Server(edge, table).routes(openapi.document(table))
