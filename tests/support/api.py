"""The HTTP API as a test asks it: one request, its status, its JSON; and keys, made as an operator makes them."""

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

import aiohttp

from gateway.broker.api_keys import without_a_node
from gateway.core.api_keys import ApiKey, Scope, scopes_of
from gateway.settings.model import Settings
from tests.support.broker import Broker
from tests.support.node import Node


class Answer(NamedTuple):
    status: int
    # As JSON.
    said: Any
    headers: Any


async def ask(
    node: Node,
    method: str,
    path: str,
    body: object = None,
    *,
    key: str | None = None,
    raw: bytes | None = None,
    **headers: str,
) -> Answer:
    """`headers`: with `_` for `-`. `raw`: a body as it is."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if key is not None:
        sent["Authorization"] = f"Bearer {key}"
    data = raw if body is None else json.dumps(body).encode()
    if data is not None:
        sent.setdefault("Content-Type", "application/json")
    timeout = aiohttp.ClientTimeout(total=40)
    async with (
        aiohttp.ClientSession(timeout=timeout) as http,
        http.request(method, node.ops_url(f"/api/v1{path}"), data=data, headers=sent) as answer,
    ):
        return Answer(answer.status, json.loads(await answer.read() or b"null"), answer.headers)


async def make_key(broker: Broker, *scopes: str, name: str = "tests") -> str:
    settings = Settings()
    async with without_a_node(broker.url, settings, lambda name, down: None) as keys:
        return await keys.make(name, scopes_of(scopes or tuple(Scope)), "the tests")


async def revoke_key(broker: Broker, name: str) -> ApiKey:
    async with without_a_node(broker.url, Settings(), lambda name, down: None) as keys:
        return await keys.revoke(name)


def pointers(answer: Answer) -> Iterable[str]:
    """Where a problem says that it is."""
    return [error.get("pointer") or error.get("parameter") or error.get("header") for error in answer.said["errors"]]
