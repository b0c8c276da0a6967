"""`GET /me`: a page learns there what no browser tells it of a refused WebSocket, and where one logs in."""

import time
from typing import Any

import aiohttp
import pytest

from gateway.settings.load import load
from gateway.settings.model import SettingsError
from tests.node.test_tokens import bearer, ours
from tests.support.node import Node
from tests.support.tokens import SECRET

LOGIN_URL = "/accounts/login/?next={page}"
SETTINGS = {
    "token_keys": f"HS256:{SECRET}",
    "token_issuer": "site",
    "token_audience": "hiroba",
    "user_rights": "*=rw,closed=",
    "login_url": LOGIN_URL,
}


async def standing(node: Node, room: str | None = None, **headers: str) -> tuple[int, dict[str, Any], Any]:
    query = {} if room is None else {"room": room}
    async with aiohttp.ClientSession() as http, http.get(node.url("/me"), params=query, headers=headers) as answer:
        return answer.status, await answer.json(), answer.headers


async def test_who_is_let_in_learns_who_they_are(shared_node: Node) -> None:
    """As the welcome of a connection there would say."""
    said = ours(sub="7", name="Ann")
    status, told, headers = await standing(shared_node, "部屋", **bearer(said))
    assert status == 200 and told["user"] == {"id": "7", "name": "Ann"} and told["rights"] == "rw"
    assert abs(told["expires_at"] - time.time() - 3610) < 60
    assert headers["Cache-Control"] == "no-store"
    assert (await standing(shared_node, **bearer(said)))[1]["rights"] is None


async def test_who_is_refused_learns_why_and_where_to_log_in(shared_node: Node) -> None:
    """401: who are you? 403: you are known, and logging in would not help."""
    for said, reason in (("", "no_credentials"), (ours(exp=time.time() - 60), "token_expired")):
        status, told, headers = await standing(shared_node, **({"Cookie": f"hiroba_token={said}"} if said else {}))
        assert (status, told["reason"], told["login_url"]) == (401, reason, LOGIN_URL)
        assert told["text"] and headers["WWW-Authenticate"].startswith("Bearer")
        assert said == "" or said not in str(told)
    status, told, _ = await standing(shared_node, "closed", **bearer(ours()))
    assert (status, told["reason"], told["login_url"]) == (403, "forbidden", None)
    assert (await standing(shared_node, "a b", **bearer(ours())))[0] == 404


async def test_another_page_learns_nothing(shared_node: Node) -> None:
    """It could ask with a visitor's cookie, and would know their name."""
    status, told, headers = await standing(shared_node, Origin="https://evil.example", **bearer(ours()))
    assert (status, told["reason"]) == (403, "origin") and "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize("url", ["javascript:alert(1)", "//evil.example/", "/\\evil.example", "login", "/log in"])
def test_a_login_that_is_no_page_is_refused_at_start(url: str) -> None:
    with pytest.raises(SettingsError, match="login-url"):
        load({"login_url": url})
