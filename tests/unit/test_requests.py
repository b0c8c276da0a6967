"""The queue of what a v1 connection asks: whatever the moment, each request is done, in its order."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.core.wires import v1
from gateway.edge import requests
from gateway.edge.requests import Requests
from gateway.settings.model import Settings


async def test_what_is_asked_as_the_last_answer_is_given_is_done_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a task's last step and the news of its end it does nothing more, and seemed to be there."""
    done: list[str] = []

    async def leave(connection: object, context: object, run: list[v1.Leave]) -> None:
        done.extend(request.room for request in run)
        if len(done) == 1:
            asyncio.get_running_loop().call_soon(queue.ask, v1.Leave(room="second"))

    async def drained() -> None:
        pass

    tasks: list[asyncio.Task[None]] = []

    def keep(name: str, work: Any) -> asyncio.Task[None]:
        tasks.append(asyncio.create_task(work, name=name))
        return tasks[-1]

    monkeypatch.setattr(requests, "DOERS", {v1.Leave: leave})
    connection = cast(Any, SimpleNamespace(id="s", drained=drained))
    queue = Requests(connection, cast(Any, SimpleNamespace(keep=keep, settings=Settings())))
    queue.ask(v1.Leave(room="first"))
    await tasks[0]
    for task in tasks:
        await task
    assert done == ["first", "second"]
