"""Guests: a name of their own in a signed cookie, on every node; never a user's, never in anybody's way."""

from typing import Any

import aiohttp
import jwt
import pytest

from gateway.broker.keys import Keys
from tests.conftest import NodeFactory
from tests.node.conftest import redis_only
from tests.support.broker import Broker
from tests.support.client import Crowd
from tests.support.node import Node
from tests.support.tokens import SECRET, token

GUEST_SECRET = "signs-the-names-of-guests-in-these-tests-and-nowhere-else"
SETTINGS = {"guest_secret": GUEST_SECRET, "linger_s": 0.1}


async def named(node: Node, name: str, **headers: str) -> tuple[int, dict[str, Any], str]:
    """Status, who one is now, and the Set-Cookie."""
    async with aiohttp.ClientSession() as http:
        answer = await http.post(node.url("/guest"), params={"name": name}, headers=headers)
        user = await answer.json() if answer.status == 200 else {"why": await answer.text()}
        return answer.status, user, answer.headers.get("Set-Cookie", "")


async def test_a_guest_has_the_name_they_said(shared_node: Node, crowd: Crowd) -> None:
    """From the next connection on; and who says none is nobody, as ever."""
    status, user, cookie = await named(shared_node, "  Ann   安 ")
    assert status == 200 and user["name"] == "Ann 安" and user["id"].startswith("guest:")
    assert {"HttpOnly", "Path=/", "SameSite=Lax", "Max-Age=31536000"} <= set(cookie.split("; "))
    said = {"Cookie": cookie.partition(";")[0]}
    ann, nobody = await crowd.join(shared_node, "r", headers=said), await crowd.join(shared_node, "r")
    assert (await ann.welcome())["user"] == user and (await nobody.welcome())["user"] is None
    await ann.say("hi")
    await nobody.hears("hi")
    assert nobody.of_type("message")[0]["user"] == user
    _, renamed, _ = await named(shared_node, "Anna", **said)
    assert renamed == {"id": user["id"], "name": "Anna"}


@pytest.mark.parametrize("name", ["", "   ", "x" * 41, "x" * 9_000, "a\u0007b", "\u202eevil", "\u2028"])
async def test_what_is_no_name_is_refused(shared_node: Node, name: str) -> None:
    status, user, cookie = await named(shared_node, name)
    assert status == 400 and user["why"] and not cookie


async def test_another_page_can_name_nobody(shared_node: Node) -> None:
    """The Origin of a form or a script elsewhere is not this host's."""
    assert (await named(shared_node, "Eve", Origin="https://evil.example"))[0] == 403


@pytest.mark.parametrize(
    "cookie",
    [
        "nonsense",
        jwt.encode({"sub": "guest:1", "name": "Eve"}, "another-secret-that-nobody-has-here", "HS256"),
        jwt.encode({"sub": "guest:1", "name": "Eve"}, GUEST_SECRET, "HS384"),
        jwt.encode({"sub": "7", "name": "Ann"}, GUEST_SECRET, "HS256"),
        jwt.encode({"sub": "guest:1", "name": ["Eve"]}, GUEST_SECRET, "HS256"),
        jwt.encode({"name": "Eve"}, GUEST_SECRET, "HS256"),
        jwt.encode({"sub": "guest:1", "name": "Eve"}, None, "none"),
    ],
)
async def test_a_cookie_that_is_not_ours_is_nobodys(shared_node: Node, crowd: Crowd, cookie: str) -> None:
    """No guest is refused for it, none is somebody else by it; least of all a user, whoever has the secret."""
    eve = await crowd.join(shared_node, "r", headers={"Cookie": f"hiroba_guest={cookie}"})
    assert (await eve.welcome())["user"] is None


@redis_only
async def test_once_a_key_is_set_guests_stay_outside(broker: Broker, start_node: NodeFactory, crowd: Crowd) -> None:
    """With the cookie of yesterday too, which is no token either."""
    node = await start_node(token_keys=f"HS256:{SECRET}", guest_secret=SECRET)
    cookie = jwt.encode({"sub": "guest:1", "name": "Ann", "exp": 2**40}, SECRET, "HS256")
    for headers in ({"Cookie": f"hiroba_guest={cookie}"}, {"Cookie": f"hiroba_token={cookie}"}, {}):
        assert (await crowd.refused(node, "r", headers=headers))[0] == 401
    assert (await named(node, "Ann"))[0] == 403
    await crowd.join(node, "r", headers={"Authorization": f"Bearer {token()}"})


async def test_no_secret_of_guests_is_told(shared_node: Node) -> None:
    """Neither the node's, nor a cookie."""
    _, _, cookie = await named(shared_node, "Ann")
    _, metrics = await shared_node.get("/metrics", ops=True)
    told = "\n".join((*shared_node.lines(), metrics))
    assert GUEST_SECRET not in told and cookie.split("=", 1)[1].partition(";")[0] not in told


@redis_only
async def test_a_guest_has_read_on_all_tabs_what_was_read_on_one(
    broker: Broker, start_node: NodeFactory, crowd: Crowd
) -> None:
    """The cookie is the person, on every node: so a marker is kept for as long as the rooms themselves."""
    here, there = await start_node(**SETTINGS), await start_node(**SETTINGS)
    _, user, cookie = await named(here, "Ann")
    said = {"Cookie": cookie.partition(";")[0]}
    tab, other = await crowd.come(here, headers=said), await crowd.come(there, headers=said)
    stranger = await crowd.come(there)
    for client in (tab, other, stranger):
        await client.ask("join", room="r")
    id = (await tab.ask("message", room="r", message=1))["id"]
    await tab.send(f'{{"type": "read", "room": "r", "id": "{id}"}}')
    await other.until(lambda: other.of_type("read"), "it is read")
    assert other.of_type("read") == [{"type": "read", "room": "r", "id": id}]
    assert stranger.of_type("read") == []
    async with broker.client() as redis:
        assert 6 * 86_400 < await redis.ttl(Keys("hiroba", 0).read(user["id"])) <= 7 * 86_400
