"""The HTTP API of servers, on the ops port (docs/api.md): all operations, in one table."""

from aiohttp import web

from gateway.core.api_keys import Scope
from gateway.edge.api import deleting, nodes, openapi, operating, people
from gateway.edge.api.gate import Gate
from gateway.edge.api.operation import Nothing, Operation
from gateway.edge.api.publishing import Batch, Broadcast, Outcomes, Publish, Published, Publishing
from gateway.edge.api.reading import History, HistoryPage, history
from gateway.edge.api.rooms import ListRooms, Room, Rooms, room, rooms
from gateway.edge.api.server import Server
from gateway.edge.edge import Edge


def operations() -> list[Operation]:
    """Those of a node."""
    says, erasures = Publishing(), deleting.Erasures()
    return [
        Operation("publish", "POST", "/publish", Scope.PUBLISH, "Say something in a room",
                  Publish, Published, says.publish),
        Operation("broadcast", "POST", "/broadcast", Scope.PUBLISH, "Say one thing in several rooms",
                  Broadcast, Outcomes, says.broadcast),
        Operation("batch", "POST", "/batch", Scope.PUBLISH, "Say several things, each in its room",
                  Batch, Outcomes, says.batch),
        Operation("history", "GET", "/history", Scope.READ, "A page of what was said in a room",
                  History, HistoryPage, history),
        Operation("rooms", "GET", "/rooms", Scope.READ, "A page of the rooms that there are",
                  ListRooms, Rooms, rooms),
        Operation("room", "GET", "/rooms/{room}", Scope.READ, "How a room is",
                  Nothing, Room, room, ("no_room",)),
        Operation("presence", "GET", "/presence", Scope.READ, "Who is in a room",
                  people.Look, people.Present, people.presence),
        Operation("user", "GET", "/users/{id}", Scope.READ, "Where a user is connected",
                  Nothing, people.UserState, people.user),
        Operation("disconnect", "POST", "/disconnect", Scope.MODERATE, "Put a user out, of one room or of all",
                  people.Disconnect, people.Ordered, people.disconnect, ("full",)),
        Operation("revoke", "POST", "/revoke", Scope.MODERATE, "Make tokens good no more",
                  people.Revoke, people.Ordered, people.revoke, ("full",)),
        Operation("delete_message", "DELETE", "/rooms/{room}/messages/{message}", Scope.MODERATE, "Delete a message",
                  Nothing, deleting.Deletion, deleting.message, ("no_message", "unsaid")),
        Operation("empty_room", "DELETE", "/rooms/{room}/messages", Scope.MODERATE, "Delete all that a room has",
                  Nothing, deleting.Deletion, deleting.messages, ("no_room", "unsaid")),
        Operation("delete_room", "DELETE", "/rooms/{room}", Scope.MODERATE, "Delete a room, and put all out of it",
                  Nothing, deleting.Deletion, deleting.room, ("no_room", "unsaid")),
        Operation("erase", "DELETE", "/users/{id}/messages", Scope.MODERATE, "Delete all that a user said anywhere",
                  Nothing, deleting.Erasure, erasures.begin),
        Operation("erasure", "GET", "/users/{id}/messages", Scope.READ, "How far the deletion of what a user said is",
                  Nothing, deleting.Erasure, erasures.progress),
        Operation("nodes", "GET", "/nodes", Scope.READ, "Which nodes there are, and how loaded",
                  Nothing, nodes.Nodes, nodes.nodes),
        Operation("info", "GET", "/info", Scope.READ, "What the node is that answers",
                  Nothing, nodes.Info, nodes.info),
        Operation("drain", "POST", "/drain", Scope.ADMIN, "Send a node away, as SIGTERM does",
                  nodes.Drain, nodes.Draining, nodes.drain, ("no_node",)),
        Operation("control", "GET", "/control", Scope.ADMIN, "What was ordered and deleted last, the newest first",
                  operating.LookBack, operating.ControlLog, operating.control),
        Operation("settings", "GET", "/settings", Scope.ADMIN, "The settings of the node that answers, without secrets",
                  Nothing, operating.AllSettings, operating.settings),
    ]  # fmt: skip


def routes(edge: Edge, gate: Gate) -> list[web.AbstractRouteDef]:
    """`/api/…`."""
    table = operations()
    questions = edge.context.broker.questions
    questions.says["user"] = lambda user: people.here(edge, user)
    questions.says["node"] = lambda _: nodes.here(edge)
    questions.says["drain"] = lambda node: nodes.go(edge, node)
    return Server(edge, gate, table).routes(openapi.document(table))
