"""The browser client in Node: a process of its own that does what it is told and tells what it sees (person.mjs)."""

import asyncio
import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

import playwright

from tests.support.need import missing
from tests.support.until import BUDGET_S, until

HERE = Path(__file__).parent
Event = dict[str, Any]


@cache
def need_node() -> list[str]:
    """Node with a WebSocket: from 22 on by itself, 20.10 when asked. Debian 12 has 18: then it is Playwright's own."""
    own = Path(playwright.__file__).parent / "driver" / "node"
    for node in filter(None, (shutil.which("node"), own)):
        for argv in ([str(node)], [str(node), "--experimental-websocket", "--no-warnings"]):
            asked = subprocess.run([*argv, "-e", "WebSocket"], capture_output=True, timeout=20, check=False)
            if asked.returncode == 0:
                return argv
    return [missing("there is no Node with a WebSocket: 22 has one (20.10 behind a flag), and so has Playwright's own")]


class Person:
    """`async with Person(node.url()) as alice: alice.join("lobby")`. `heard` is all that it told, in order."""

    def __init__(self, url: str, tokens: str = "") -> None:
        self._argv = [*need_node(), str(HERE / "person.mjs"), url, tokens]
        self.heard: list[Event] = []

    async def __aenter__(self) -> "Person":
        self._process = await asyncio.create_subprocess_exec(
            *self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, limit=2**20
        )
        self._hearing = asyncio.create_task(self._hear(), name="hear")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process.returncode is None:
            self._process.kill()
        assert self._process.stderr is not None
        complaints = (await self._process.stderr.read()).decode()
        await self._process.wait()
        await self._hearing
        assert not complaints

    def do(self, what: str, **fields: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": what, **fields}).encode() + b"\n")

    async def join(self, *rooms: str, **options: object) -> None:
        """Joins, and is in."""
        for room in rooms:
            self.do("join", room=room, options=options)
        for room in rooms:
            await self.hears("joined", room)

    def events(self, on: str, room: str | None = None) -> list[Any]:
        return [one.get("event") for one in self.heard if one["on"] == on and one.get("room") == room]

    async def hears(self, on: str, room: str | None = None, count: int = 1, within_s: float = BUDGET_S) -> Any:
        """Waits for so many events of a name; the last of them."""

        def enough() -> bool:
            assert self._process.returncode is None, "the client ended"
            return len(self.events(on, room)) >= count

        await until(enough, f"{count} × {on} in {room}", within_s)
        return self.events(on, room)[count - 1]

    async def reads(self, room: str, messages: list[object], within_s: float = BUDGET_S) -> None:
        """Waits until it was told exactly these messages of a room."""
        await self.hears("message", room, len(messages), within_s)
        assert [event["message"] for event in self.events("message", room)] == messages

    async def state(self, room: str, state: str) -> None:
        await until(lambda: self.events("state", room)[-1:] and self.events("state", room)[-1]["state"] == state, state)

    async def _hear(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.heard.append(json.loads(line))
