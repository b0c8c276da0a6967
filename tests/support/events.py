"""A reader of server-sent events as the HTML standard (section 9.2.6) has it, on a bare socket."""

import json
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from tests.support.client import Crowd
from tests.support.node import Node
from tests.support.raw import Raw
from tests.support.until import until


class Event(NamedTuple):
    """`id`: the last one of the stream so far, which an EventSource would come back with."""

    type: str
    data: Any
    id: str


def request(room: str, *, headers: str = "", method: str = "GET", **query: object) -> bytes:
    """What an EventSource asks."""
    path = f"/sse/chat/{quote(room)}/" + (f"?{urlencode(query)}" if query else "")
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{headers}\r\n".encode()


def resuming(id: str) -> str:
    return f"Last-Event-ID: {id}\r\n"


def parsed(stream: bytes | bytearray) -> tuple[list[Event], int | None, int]:
    """The events of a stream so far, what it says for `retry` (ms), and how many comments it has."""
    text = bytes(stream).decode().replace("\r\n", "\n").replace("\r", "\n")
    events: list[Event] = []
    last_id, retry, comments = "", None, 0
    kind, data = "", list[str]()
    for line in text.split("\n")[:-1]:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                events.append(Event(kind or "message", json.loads("\n".join(data)), last_id))
            kind, data = "", []
        elif not field:
            comments += 1
        elif field == "data":
            data.append(value)
        elif field == "event":
            kind = value
        elif field == "id":
            last_id = value
        elif field == "retry":
            retry = int(value)
        else:
            raise AssertionError(f"no field of an event stream: {line!r}")
    return events, retry, comments


class Stream:
    """One listener. `events` has what it heard, in order."""

    def __init__(self, raw: Raw) -> None:
        self.raw = raw

    @property
    def chunked(self) -> bool:
        """A proxy may write it so (RFC 9112, section 7.1)."""
        return b"\r\ntransfer-encoding: chunked" in self.raw.head.lower()

    @property
    def over(self) -> bool:
        return self.raw.over.done() or (self.chunked and self.raw.data.endswith(b"\r\n0\r\n\r\n"))

    @property
    def body(self) -> bytes:
        """What came so far."""
        if not self.chunked:
            return bytes(self.raw.data)
        rest, body = bytes(self.raw.data), b""
        while b"\r\n" in rest:
            size, _, rest = rest.partition(b"\r\n")
            body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        return body

    @property
    def events(self) -> list[Event]:
        return parsed(self.body)[0]

    @property
    def retry(self) -> int | None:
        return parsed(self.body)[1]

    @property
    def comments(self) -> int:
        return parsed(self.body)[2]

    @property
    def messages(self) -> list[Any]:
        return [event.data["message"] for event in self.of_type("message")]

    def of_type(self, kind: str) -> list[Event]:
        return [event for event in self.events if event.type == kind]


async def listen(crowd: Crowd, node: Node, room: str, *, headers: str = "", **query: object) -> Stream:
    """The head of the stream came, and its first event."""
    raw = await crowd.connect(node)
    assert await raw.ask(request(room, headers=headers, **query)) == 200, raw.head
    stream = Stream(raw)
    await until(lambda: stream.events, "the first event")
    return stream
