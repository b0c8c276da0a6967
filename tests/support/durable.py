"""A stranger's requests at `/streams/chat/<room>` (Durable Streams), one by one."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

import aiohttp
from yarl import URL

from tests.support.client import Crowd
from tests.support.node import Node


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def messages(self) -> list[Any]:
        assert self.status == 200 and self.headers["Content-Type"] == "application/json", self
        messages: list[Any] = json.loads(self.body)
        return messages

    @property
    def next(self) -> str:
        return self.headers["Stream-Next-Offset"]

    @property
    def up_to_date(self) -> bool:
        return self.headers.get("Stream-Up-To-Date") == "true"


def address(node: Node, room: str, **query: object) -> URL:
    url = URL(node.url(), encoded=True).with_path(f"/streams/chat/{quote(room, safe='')}", encoded=True)
    return url.with_query({name: str(value) for name, value in query.items()})


async def ask(
    crowd: Crowd,
    node: Node,
    room: str,
    method: str = "GET",
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    **query: object,
) -> Answer:
    """One request and its answer, whole."""
    url = address(node, room, **query)
    timeout = aiohttp.ClientTimeout(total=40)
    async with crowd.http.request(method, url, headers=headers, data=body, timeout=timeout) as answer:
        return Answer(answer.status, answer.headers, await answer.read())


async def append(
    crowd: Crowd, node: Node, room: str, *messages: object, headers: Mapping[str, str] | None = None
) -> Answer:
    """Some messages in one request."""
    body = json.dumps(messages).encode()
    return await ask(
        crowd, node, room, "POST", headers={"Content-Type": "application/json", **(headers or {})}, body=body
    )


def producing(id: str, epoch: int, seq: int) -> dict[str, str]:
    return {"Producer-Id": id, "Producer-Epoch": str(epoch), "Producer-Seq": str(seq)}
