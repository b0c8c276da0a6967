"""Clients that come back, as browsers do, and keep a tally of everything they were told. No judge here."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp

# A client that was cut off without a word waits so long, as the page does at first.
RETRY_S = 0.2


@dataclass
class Outage:
    """One absence: what the node asked for, and how long it took."""

    code: int | None
    after_s: float | None
    seconds: float


@dataclass
class Resumer:
    """A v1 client in one room. Speaks where `every_s` is set, one numbered message at a time."""

    name: str
    # The WebSocket's URL, from what follows the `?`.
    url: Callable[[dict[str, str]], str]
    every_s: float | None = None
    # Ids and messages in the order in which they came.
    heard: list[tuple[str, str]] = field(default_factory=list)
    # By number: the id that acknowledged it.
    acknowledged: dict[int, str] = field(default_factory=dict)
    outages: list[Outage] = field(default_factory=list)
    gaps: int = 0
    unrecovered: int = 0
    refused: list[int] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)
    # Where the room's log stood when we first came in.
    joined_at: str | None = None
    last_id: str | None = None
    here: asyncio.Event = field(default_factory=asyncio.Event)
    quiet: bool = False
    _after_s: float | None = None
    _next: int = 0

    async def run(self, http: aiohttp.ClientSession) -> None:
        """Until cancelled."""
        left: tuple[float, int | None] | None = None
        while True:
            try:
                query = {"after": self.last_id} if self.last_id else {}
                async with http.ws_connect(self.url(query), protocols=("hiroba.v1",)) as ws:
                    self._welcomed(await ws.receive_json(timeout=20))
                    if left is not None:
                        self.outages.append(Outage(left[1], self._after_s, time.monotonic() - left[0]))
                    self._after_s = None
                    await self._stay(ws)
                    left = (time.monotonic(), ws.close_code)
            except aiohttp.WSServerHandshakeError as exc:
                self.refused.append(exc.status)
                left = left or (time.monotonic(), None)
            except (aiohttp.ClientError, OSError, TypeError):  # TypeError: closed where a welcome was due
                left = left or (time.monotonic(), None)
            self.here.clear()
            await asyncio.sleep(RETRY_S if self._after_s is None else self._after_s)

    def _welcomed(self, welcome: dict[str, str | bool]) -> None:
        if self.last_id is None:
            self.joined_at = self.last_id = str(welcome["last_id"])
        elif not welcome["recovered"]:
            self.unrecovered += 1
        self.nodes.append(str(welcome["node"]))
        self.here.set()

    async def _stay(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        speaking = asyncio.create_task(self._speak(ws))
        try:
            async for frame in ws:
                self._take(json.loads(frame.data))
        finally:
            speaking.cancel()

    def _take(self, said: dict[str, object]) -> None:
        if said["type"] == "message":
            self.last_id = str(said["id"])
            self.heard.append((self.last_id, str(said["message"])))
        elif said["type"] == "ack":
            self.acknowledged[int(str(said["ref"]))] = str(said["id"])
        elif said["type"] == "gap":
            self.gaps += 1
        elif said["type"] == "reconnect":
            self._after_s = float(str(said["after_s"]))

    async def _speak(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        while self.every_s is not None:
            await asyncio.sleep(self.every_s)
            if self.quiet or self._after_s is not None or ws.closed:
                continue
            number, self._next = self._next, self._next + 1
            try:
                await ws.send_json({"type": "message", "message": f"{self.name} {number}", "ref": number})
            except ConnectionError:
                return


@dataclass
class Stay:
    """One connection of a plain client: what it heard, and how it ended (None: it has not)."""

    heard: list[str] = field(default_factory=list)
    code: int | None = None


@dataclass
class Plain:
    """A client of the old wire. It knows no ids: each connection stands for itself."""

    url: str
    stays: list[Stay] = field(default_factory=list)
    here: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, http: aiohttp.ClientSession) -> None:
        """Until cancelled."""
        while True:
            try:
                async with http.ws_connect(self.url) as ws:
                    stay = Stay()
                    self.stays.append(stay)
                    self.here.set()
                    async for frame in ws:
                        stay.heard.append(json.loads(frame.data)["message"])
                    stay.code = ws.close_code
            except (aiohttp.ClientError, OSError):
                pass
            self.here.clear()
            await asyncio.sleep(RETRY_S)
