"""The site is asked who comes: what it says, what it fails to say, how often it is asked, who pays for its faults."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest
from aiohttp import web

from tests.conftest import NodeFactory
from tests.node.conftest import redis_only
from tests.support.client import Crowd
from tests.support.node import Node
from tests.support.raw import handshake
from tests.support.site import Site, endless, hang, json_of, text_of
from tests.support.tokens import SECRET, token
from tests.support.until import until

pytestmark = redis_only
ANN = {"user": {"id": 7, "name": "Ann", "info": {"team": 3}}, "rooms": {"*": "r", "team-*": "rw"}}
SESSION = "sessionid=the-session-of-ann-that-nobody-else-may-see"


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with Site() as site:
        site.answer = json_of(ANN)
        yield site


async def on(start_node: NodeFactory, site: Site, **settings: Any) -> Node:
    return await start_node(**{"site_url": site.url, "site_timeout_s": 0.5, "linger_s": 0.1, **settings})


def cookie(value: str = SESSION) -> dict[str, str]:
    return {"Cookie": value}


async def answers(node: Node, answer: str) -> float:
    return await node.metric("hiroba_site_answers_total", answer=answer)


# ---- what it says ----


async def test_the_site_says_who_comes_and_what_they_may(start_node: NodeFactory, site: Site, crowd: Crowd) -> None:
    """It is asked with what the browser sent, and the client's address; a number is an id as well as a text."""
    node = await on(start_node, site, trusted_proxies="127.0.0.1/32")
    sent = {**cookie(), "Authorization": "Basic YTpi", "User-Agent": "Mosaic", "X-Forwarded-For": "192.0.2.7"}
    ann = await crowd.join(node, "team-1", headers=sent)
    welcome = await ann.welcome()
    assert (welcome["user"], welcome["rights"]) == ({"id": "7", "name": "Ann"}, "rw")
    (asked,) = site.asked
    assert {name: asked[name.lower()] for name in sent} == sent
    lobby = await crowd.join(node, "lobby", headers=sent)
    assert (await lobby.ask("message", message=1))["code"] == "forbidden"


@pytest.mark.parametrize(("status", "reason"), [(401, "site_unknown"), (403, "site_forbidden")])
async def test_whom_the_site_refuses_is_refused(
    start_node: NodeFactory, site: Site, crowd: Crowd, status: int, reason: str
) -> None:
    node = await on(start_node, site)
    site.answer = json_of({}, status)
    assert (await crowd.refused(node, "r", headers=cookie()))[0] == status
    assert await node.metric("hiroba_handshakes_refused_total", reason=reason) == 1
    await crowd.refused(node, "r", headers=cookie())
    assert len(site.asked) == 1, "a reload in a loop is not the site's"


async def test_whom_the_site_does_not_know_is_a_guest_where_guests_are_wanted(
    start_node: NodeFactory, site: Site, crowd: Crowd
) -> None:
    """401 says: signed out. 403 says: not this one, as whoever it is."""
    node = await on(start_node, site, guests=True)
    site.answer = json_of({}, 401)
    assert (await (await crowd.join(node, "r", headers=cookie())).welcome())["user"] is None
    site.answer = json_of({}, 403)
    assert (await crowd.refused(node, "r", headers=cookie("other")))[0] == 403


async def test_a_token_is_not_asked_about(start_node: NodeFactory, site: Site, crowd: Crowd) -> None:
    node = await on(start_node, site, token_keys=f"HS256:{SECRET}")
    ann = await crowd.join(node, "r", headers={**cookie(), "Authorization": f"Bearer {token(sub='9')}"})
    assert (await ann.welcome())["user"]["id"] == "9" and not site.asked


async def test_the_end_that_the_site_names_is_the_connections(
    start_node: NodeFactory, site: Site, crowd: Crowd
) -> None:
    """And what is kept of its word ends with it."""
    node = await on(start_node, site)

    async def for_a_second(request: web.Request) -> web.StreamResponse:
        return await json_of({**ANN, "expires_at": time.time() + 1})(request)

    site.answer = for_a_second
    ann = await crowd.join(node, "r", headers=cookie())
    assert (await ann.closed())[0] == 4001
    await crowd.join(node, "r", headers=cookie())
    assert len(site.asked) == 2


# ---- how often it is asked ----


async def test_who_comes_back_at_once_is_asked_about_once(start_node: NodeFactory, site: Site, crowd: Crowd) -> None:
    """A hundred tabs with one cookie: one request; then its word is kept."""
    node = await on(start_node, site)

    async def slow(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.2)
        return await json_of(ANN)(request)

    site.answer = slow
    await asyncio.gather(*(crowd.join(node, "r", headers=cookie()) for _ in range(100)))
    await crowd.join(node, "r", headers=cookie())
    assert len(site.asked) == 1
    await crowd.join(node, "r", headers=cookie("other"))
    assert len(site.asked) == 2


async def test_who_brings_nothing_is_known_by_their_address(start_node: NodeFactory, site: Site, crowd: Crowd) -> None:
    """A site may let an office in by its address: what it says of one is not said of all who bring no cookie."""
    node = await on(start_node, site, trusted_proxies="127.0.0.1/32")

    async def by_address(request: web.Request) -> web.StreamResponse:
        office = request.headers["X-Forwarded-For"] == "192.0.2.7"
        return await (json_of(ANN) if office else json_of({}, 401))(request)

    site.answer = by_address
    office, elsewhere = {"X-Forwarded-For": "192.0.2.7"}, {"X-Forwarded-For": "192.0.2.8"}
    assert (await crowd.refused(node, "r", headers=elsewhere))[0] == 401
    await crowd.join(node, "r", headers=office)
    assert (await crowd.refused(node, "r", headers=elsewhere))[0] == 401
    await crowd.join(node, "r", headers=office)
    assert len(site.asked) == 2, "of each the site's word is kept"


async def storm(crowd: Crowd, node: Node, people: int) -> list[int]:
    """All come as fast as they can, each with a cookie of their own; the statuses of their handshakes."""
    connecting = asyncio.Semaphore(100)  # the kernel's queue is no part of this

    async def comes(n: int) -> int:
        async with connecting:
            raw = await crowd.connect(node)
        return await raw.ask(handshake("r", headers=f"Cookie: s={n}\r\n"), 100)

    return await asyncio.gather(*map(comes, range(people)))


async def test_a_storm_reaches_the_site_a_few_at_a_time(start_node: NodeFactory, site: Site, crowd: Crowd) -> None:
    """A node's worth of people, each with a cookie of their own: never more at once than `site_requests_max`, and each
    is let in."""
    node = await on(start_node, site, site_requests_max=8, site_timeout_s=20, handshake_timeout_s=60)
    assert await storm(crowd, node, 1_000) == [101] * 1_000
    assert site.at_once <= 8 and len(site.asked) == 1_000


@pytest.mark.long
async def test_a_storm_of_ten_thousand_at_a_site_that_is_gone(
    start_node: NodeFactory, site: Site, crowd: Crowd
) -> None:
    """Those who are known come in, the others are told when to come again; nobody waits, the site is left in peace."""
    node = await on(start_node, site, site_timeout_s=1, connections_max=12_000, site_cache_s=0.1)
    for n in range(20):
        await crowd.join(node, "r", headers=cookie(f"s={n}"))
    site.answer, asked = hang, len(site.asked)
    statuses = await storm(crowd, node, 10_000)
    assert statuses[:20] == [101] * 20 and set(statuses[20:]) == {503}
    assert len(site.asked) - asked < 200, "the site is not asked again while it is silent, but now and then"


# ---- when it fails ----

FAULTS = {
    "slow": hang,
    "500": json_of(ANN, 500),
    "503": json_of(ANN, 503),
    "404": text_of("no such page", 404),
    "huge": text_of(" " * 70_000 + json.dumps(ANN)),
    "endless": endless,
    "redirecting": text_of("", 302, Location="/login/"),
    "a page": text_of("<html>sign in</html>"),
    "deep": text_of("[" * 60_000),
    "no user": json_of({}),
    "user is null": json_of({"user": None}),
    "id is a list": json_of({"user": {"id": [7]}}),
    "a guest's id": json_of({"user": {"id": "guest:1"}}),
    "much info": json_of({"user": {"id": 7, "info": "x" * 2_000}}),
    "an id of nothing": json_of({"user": {"id": ""}}),
    "no such right": json_of({"user": {"id": 7}, "rooms": {"*": "rz"}}),
    "expires at a text": json_of({"user": {"id": 7}, "expires_at": "soon"}),
}


async def test_a_site_that_fails_lets_nobody_in_and_nobody_wait(
    start_node: NodeFactory, site: Site, crowd: Crowd
) -> None:
    """503, when to come again, and a line that says why, without what was said; who is known stays."""
    node = await on(start_node, site, site_cache_s=0)
    await crowd.join(node, "r", headers=cookie())
    for done, (fault, site.answer) in enumerate(FAULTS.items(), 1):
        status, headers = await crowd.refused(node, "r", headers=cookie("another"))
        assert (status, headers["Retry-After"]) == (503, "2"), fault  # type: ignore[call-overload, index]
        ann = await crowd.join(node, "r", headers=cookie())
        assert (await ann.welcome())["user"]["id"] == "7"
        assert (await answers(node, "stale"), await answers(node, "failed")) == (done, 2 * done), fault
    _, metrics = await node.get("/metrics", ops=True)
    told = "\n".join((*node.lines(), metrics, *psutil.Process(node.process.pid).cmdline()))
    assert "sign in" not in told and SESSION not in told


async def test_a_site_that_is_away_is_left_in_peace_and_asked_again(
    start_node: NodeFactory, site: Site, crowd: Crowd
) -> None:
    """After a few failures in a row nobody waits for it; once it is back people come in by themselves."""
    node = await on(start_node, site)
    await site.close()
    for n in range(30):
        assert (await crowd.refused(node, "r", headers=cookie(f"s={n}")))[0] == 503
    assert await answers(node, "failed") <= 6
    assert len([line for line in node.lines() if "does not say who comes" in line]) == 1
    await site.open()

    async def back() -> bool:
        try:
            await crowd.join(node, "r", headers=cookie())
        except Exception:
            return False
        return True

    await until(back, "the site is asked again", every_s=0.2)
    assert [line for line in node.lines() if "says who comes again" in line]


async def test_one_client_can_not_shut_the_door_for_the_others(
    start_node: NodeFactory, site: Site, crowd: Crowd
) -> None:
    """A cookie at which the site stumbles, or that can't be sent on, is that client's: the site is not away."""
    node = await on(start_node, site)

    async def stumbles(request: web.Request) -> web.StreamResponse:
        bad = "bad" in request.headers.get("Cookie", "")
        return await (json_of({}, 500) if bad else json_of(ANN))(request)

    site.answer = stumbles
    for n in range(20):
        assert (await crowd.refused(node, "r", headers=cookie(f"bad={n}")))[0] == 503
        raw = await crowd.connect(node)
        odd = handshake("r").replace(b"\r\n\r\n", b"\r\nCookie: a=\xff\xfe%d\r\n\r\n" % n)
        assert await raw.ask(odd) in (101, 400, 503)
    await crowd.join(node, "r", headers=cookie())


async def test_a_node_that_drains_waits_for_no_site(start_node: NodeFactory, site: Site, crowd: Crowd) -> None:
    """Who is asked about at that moment is sent to another node at once."""
    node = await on(start_node, site, site_timeout_s=60, handshake_timeout_s=60, lb_wait_s=0, drain_s=0.1)
    site.answer = hang
    raw = await crowd.connect(node)
    asking = asyncio.create_task(raw.ask(handshake("r", headers=f"Cookie: {SESSION}\r\n")))
    await until(lambda: site.asked, "the site is asked")
    stopping = asyncio.create_task(node.stop())
    assert await asking == 503
    assert await stopping == 0
