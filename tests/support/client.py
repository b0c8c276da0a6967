"""Clients of a room, on a WebSocket library that is not ours. What they hear is collected in the background."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Sequence
from typing import Any, Literal

import aiohttp

from tests.support.node import Node
from tests.support.raw import Raw, connect
from tests.support.until import BUDGET_S, until

WireName = Literal["plain", "v1"]

Frame = dict[str, Any]


class Client:
    """One session. `heard` has every JSON object that it got, in order; nothing is ever taken out."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws
        self.heard: list[Frame] = []
        # Refs of `ask`.
        self.asked: list[str] = []
        # Of the server's close frame; None: none came (yet).
        self.close_code: int | None = None
        self.close_reason: str | None = None
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        while True:
            message = await self.ws.receive()
            if message.type is aiohttp.WSMsgType.TEXT:
                self.heard.append(json.loads(message.data))
            elif message.type is aiohttp.WSMsgType.CLOSE:
                self.close_code, self.close_reason = message.data, message.extra
                return
            elif message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.ERROR):
                return
            else:
                raise AssertionError(f"no wire of ours has frames of type {message.type}")

    # ---- what it says ----

    async def say(self, message: object, ref: str | int | None = None) -> None:
        """A message in the words of its wire."""
        said: Frame = {"message": message}
        if self.ws.protocol:
            said["type"] = "message"
        if ref is not None:
            said["ref"] = ref
        await self.ws.send_str(json.dumps(said, ensure_ascii=False))

    async def ask(self, type: str, **fields: object) -> Frame:
        """v1: the answer to a request."""
        (answer,) = await self.ask_all([{"type": type, **fields}])
        return answer

    async def ask_all(self, requests: Sequence[Frame], within_s: float = BUDGET_S) -> list[Frame]:
        """v1: the answers to requests that go out in one burst, in the order in which they came."""
        looked = len(self.heard)
        refs = [f"asked {len(self.asked) + at}" for at in range(len(requests))]
        self.asked += refs
        for request, ref in zip(requests, refs, strict=True):
            await self.ws.send_str(json.dumps({**request, "ref": ref}, ensure_ascii=False))
        wanted = set(refs)
        answers: list[Frame] = []

        def answered() -> bool:
            nonlocal looked
            answers.extend(frame for frame in self.heard[looked:] if frame.get("ref") in wanted)
            looked = len(self.heard)
            return len(answers) == len(refs)

        await self.until(answered, f"answers to {requests[:3]} …", within_s)
        return answers

    async def send(self, text: str) -> None:
        """A text frame as it is."""
        await self.ws.send_str(text)

    async def leave(self) -> None:
        """A close in order."""
        await self.ws.close()
        await self._listening

    def cut(self) -> None:
        """The connection is gone without a word."""
        self._listening.cancel()
        response = self.ws._response
        if response.connection is not None and response.connection.transport is not None:
            response.connection.transport.abort()

    # ---- what it heard ----

    @property
    def messages(self) -> list[Any]:
        return [frame["message"] for frame in self.heard if not self.ws.protocol or frame["type"] == "message"]

    @property
    def ids(self) -> list[str]:
        """v1: of the messages."""
        return [frame["id"] for frame in self.of_type("message")]

    def of_type(self, *types: str) -> list[Frame]:
        """v1: the frames of these types, in the order they came."""
        return [frame for frame in self.heard if frame["type"] in types]

    async def until(self, condition: Callable[[], Any], what: str, within_s: float = BUDGET_S) -> Any:
        """Waits for a condition on what was heard; says what was heard when it does not come true."""
        try:
            return await until(condition, what, within_s)
        except AssertionError as exc:
            last = f"last heard {self.heard[-5:]}, closed {self.close_code} {self.close_reason!r}"
            raise AssertionError(f"{exc}; {len(self.heard)} frames, {last}") from None

    async def hears(self, *messages: object, within_s: float = BUDGET_S) -> None:
        """Waits until exactly these messages came, in this order, and no other."""
        wanted = list(messages)
        await self.until(lambda: len(self.messages) >= len(wanted), f"{len(wanted)} messages", within_s)
        assert self.messages == wanted

    async def welcome(self) -> Frame:
        """v1: the first frame."""
        await self.until(lambda: self.heard, "a first frame")
        assert self.heard[0]["type"] == "welcome"
        return self.heard[0]

    async def answer(self, ref: str | int, within_s: float = BUDGET_S) -> Frame:
        """v1: the ack or error that carries this ref."""

        def found() -> list[Frame]:
            return [frame for frame in self.of_type("ack", "error") if frame["ref"] == ref]

        frame: Frame = (await self.until(found, f"an answer to {ref!r}", within_s))[0]
        return frame

    async def closed(self, within_s: float = BUDGET_S) -> tuple[int | None, str | None]:
        """Waits for the end: the server's close code and reason, or (None, None) when it said nothing."""
        async with asyncio.timeout(within_s):
            await self._listening
        return self.close_code, self.close_reason


class Crowd:
    """Everybody who joined in one test. `async with Crowd() as crowd: ann = await crowd.join(node, "room")`."""

    def __init__(self) -> None:
        self.http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        self._clients: list[Client] = []
        self._raws: list[Raw] = []

    async def __aenter__(self) -> "Crowd":
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients:
            client._listening.cancel()
            with contextlib.suppress(aiohttp.ClientError, OSError, asyncio.CancelledError):
                await client._listening
        await self.http.close()
        for raw in self._raws:
            raw.transport.abort()
            await raw.over

    async def join(
        self,
        node: Node,
        room: str,
        wire: WireName = "v1",
        *,
        headers: dict[str, str] | None = None,
        **query: object,
    ) -> Client:
        """The 101 came. A refused handshake raises aiohttp.WSServerHandshakeError with its status and headers."""
        ws = await self.http.ws_connect(
            node.ws_url(room, **query),
            protocols=("hiroba.v1",) if wire == "v1" else (),
            headers=headers,
            max_msg_size=0,
        )
        assert ws.protocol == ("hiroba.v1" if wire == "v1" else None)
        client = Client(ws)
        self._clients.append(client)
        return client

    async def come(self, node: Node, *, headers: dict[str, str] | None = None) -> Client:
        """v1, in no room yet."""
        ws = await self.http.ws_connect(node.url("/ws/"), protocols=("hiroba.v1",), headers=headers, max_msg_size=0)
        client = Client(ws)
        self._clients.append(client)
        return client

    async def refused(
        self, node: Node, room: str, *, headers: dict[str, str] | None = None, **query: object
    ) -> tuple[int, aiohttp.typedefs.LooseHeaders]:
        """The status and the headers of a handshake that must not succeed."""
        try:
            client = await self.join(node, room, "plain", headers=headers, **query)
        except aiohttp.WSServerHandshakeError as exc:
            return exc.status, exc.headers or {}
        raise AssertionError(f"let in: {client.ws!r}")

    async def connect(self, node: Node, *, receive_bytes: int | None = None) -> Raw:
        """A bare connection to the public port."""
        raw = await connect(node, receive_bytes)
        self._raws.append(raw)
        return raw

    async def member(self, node: Node, room: str, *, v1: bool = False, **query: object) -> Raw:
        """A bare connection that has joined a room."""
        raw = await self.connect(node)
        await raw.enter(room, v1=v1, **query)
        return raw
