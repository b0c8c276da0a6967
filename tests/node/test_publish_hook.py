"""The site is asked about what people say: what it lets pass, replaces, refuses, fails to say; and in which order."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from tests.conftest import NodeFactory
from tests.node.conftest import redis_only
from tests.support.broker import Broker
from tests.support.client import Crowd
from tests.support.durable import append, ask, producing
from tests.support.node import Node
from tests.support.site import Answer, Site, endless, hang, json_of, text_of
from tests.support.tokens import SECRET, by, token
from tests.support.until import until

pytestmark = redis_only


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with Site() as site:
        site.answer = text_of("", 204)
        yield site


async def on(start_node: NodeFactory, site: Site, **settings: Any) -> Node:
    shared = {"site_publish_url": site.url, "site_publish_timeout_s": 0.5, "linger_s": 0.1, "messages_per_s": 0}
    return await start_node(**{**shared, "token_keys": f"HS256:{SECRET}", "guests": True, **settings})


async def answers(node: Node, answer: str) -> float:
    return await node.metric("hiroba_site_publish_answers_total", answer=answer)


async def moderate(request: web.Request) -> web.StreamResponse:
    """Refuses what is bad, makes a star of what is rude."""
    message = (await request.json())["message"]
    if message == "bad":
        return web.json_response({"reason": "not in\nhere, please"}, status=403)
    return web.json_response({"message": {"said": "***", "é": [1, None]}} if message == "rude" else {})


# ---- what it says ----


async def test_the_site_allows_replaces_and_refuses_what_is_said(
    start_node: NodeFactory, site: Site, crowd: Crowd
) -> None:
    """By v1, by plain and by HTTP alike; who is refused hears why, and nobody else hears anything."""
    asked: list[Any] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.method == "POST" and request.content_type == "application/json"
        asked.append(await request.json())
        return await moderate(request)

    site.answer = answer
    node = await on(start_node, site)
    ann, guest = await crowd.join(node, "r", headers=by("7")), await crowd.join(node, "r")
    old = await crowd.join(node, "r", "plain")
    assert (await ann.ask("message", message="rude"))["type"] == "ack"
    error = await ann.ask("message", message="bad")
    assert (error["code"], error["text"], error["room"]) == ("rejected", "not in here, please", "r")
    await guest.say({"a": ["fine"]})
    star = {"said": "***", "é": [1, None]}
    await old.say("rude")
    posted = await append(crowd, node, "r", "by http", "rude", headers=by("7"))
    assert posted.status == 204
    refused = await append(crowd, node, "r", "fine, but", "bad", headers=by("7"))
    assert (refused.status, refused.body) == (403, b"not in here, please\n"), "all or nothing"
    for client in (ann, guest):
        await client.hears(star, {"a": ["fine"]}, star, "by http", star)
    await old.say("bad")
    assert await old.closed() == (4403, "not in here, please")
    user = {"id": "7", "name": "7"}
    assert asked[0] == {"room": "r", "user": user, "message": "rude"}
    assert asked[2] == {"room": "r", "user": None, "message": {"a": ["fine"]}}
    assert (await answers(node, "refused"), await answers(node, "replaced")) == (3, 3)


async def test_only_the_rooms_that_are_named_are_asked_about(start_node: NodeFactory, site: Site, crowd: Crowd) -> None:
    """What is said in the others takes the road that it always did."""
    site.answer = hang
    node = await on(start_node, site, site_publish_rooms="public-*,lobby")
    line = next(json.loads(line) for line in node.lines() if "asked about what people say" in line)
    assert (line["rooms"], line["while_away"]) == (["public-*", "lobby"], "refuse")
    ann = await crowd.join(node, "private")
    assert (await ann.ask("message", message=1))["type"] == "ack"
    assert (await append(crowd, node, "private", 2)).status == 204
    assert not site.asked
    for room in ("lobby", "public-1"):
        await ann.ask("join", room=room)
        assert (await ann.ask("message", room=room, message=1))["code"] == "site"
    assert len(site.asked) == 2


# ---- in which order ----


async def test_one_after_the_other_whatever_the_site_takes_its_time_for(
    start_node: NodeFactory, site: Site, crowd: Crowd
) -> None:
    """Several of one sender are asked about at once, and heard as they were said; nobody waits for a slower one."""

    async def mixed(request: web.Request) -> web.StreamResponse:
        message = (await request.json())["message"]
        await asyncio.sleep(0.05 if message % 4 == 0 else 0)
        return web.Response(status=204)

    site.answer = mixed
    node = await on(start_node, site, publish_window=16, site_publish_timeout_s=20)
    ann, bob = await crowd.join(node, "r"), await crowd.join(node, "r")
    for number in range(40):
        await ann.say(number)
    await bob.say(1001)
    await bob.until(lambda: len(bob.messages) == 41, "all of it", 60)
    assert [said for said in bob.messages if said != 1001] == list(range(40))
    assert 2 <= site.at_once <= 5, "four of one sender"


async def test_a_producers_requests_do_not_pass_each_other(start_node: NodeFactory, site: Site, crowd: Crowd) -> None:
    """One of a later number would be a gap, and its sender would have to begin again."""

    async def slow_at_first(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.2 if (await request.json())["message"] == 0 else 0)
        return web.Response(status=204)

    site.answer = slow_at_first
    node = await on(start_node, site, site_publish_timeout_s=20)
    first = asyncio.create_task(append(crowd, node, "r", 0, headers=producing("p", 0, 0)))
    await until(lambda: site.asked, "the first one is asked about")
    second = asyncio.create_task(append(crowd, node, "r", 1, headers=producing("p", 0, 1)))
    assert [answer.status for answer in await asyncio.gather(first, second)] == [200, 200]
    assert (await ask(crowd, node, "r", offset="-1")).messages == [0, 1]


# ---- when it fails ----

# Nobody is there, or has too much to do: the setting decides.
AWAY: dict[str, Answer] = {"slow": hang, "503": text_of("", 503), "429": text_of("", 429)}
# The question may be at fault: whoever makes the site stumble must not say what they like by that.
LYING: dict[str, Answer] = {
    "500": text_of("", 500),
    "404": text_of("no such page", 404),
    "401": text_of("", 401),
    "huge": text_of(" " * 200_000),
    "endless": endless,
    "redirecting": text_of("", 307, Location="/elsewhere/"),
    "a page": text_of("<html>sign in</html>"),
    "deep": text_of('{"message":' + "[" * 60_000),
    "a list": json_of(["message"]),
    "too long": json_of({"message": "x" * 66_000}),
}


@pytest.mark.parametrize("away", ["refuse", "allow"])
async def test_a_site_that_fails_is_no_way_around_it(
    start_node: NodeFactory, site: Site, crowd: Crowd, away: str
) -> None:
    """Within the budget; who speaks hears of it and stays, who listens hears nothing that nobody allowed."""
    node = await on(start_node, site, site_publish_away=away, message_bytes_max=65_536, site_publish_timeout_s=0.3)
    ann = await crowd.join(node, "r")
    heard = []
    for fault, site.answer in (AWAY | LYING).items():
        answer = await ann.ask("message", message=fault)
        if fault in AWAY and away == "allow":
            assert answer["type"] == "ack", fault
            heard.append(fault)
        else:
            assert (answer["type"], answer["code"]) == ("error", "site"), fault
    site.answer = text_of("", 204)
    await ann.say("well again")
    await ann.hears(*heard, "well again")
    assert await answers(node, "failed") == len(AWAY | LYING)
    assert not any("sign in" in line for line in node.lines())


async def test_a_site_that_is_away_is_left_in_peace_and_asked_again(
    start_node: NodeFactory, site: Site, crowd: Crowd
) -> None:
    """After a few failures nobody waits for it; plain clients are sent away to come back."""
    node = await on(start_node, site)
    ann, old = await crowd.join(node, "r"), await crowd.join(node, "r", "plain")
    await site.close()
    for number in range(20):
        assert (await ann.ask("message", message=number))["code"] == "site"
    refused = await append(crowd, node, "r", 1)
    assert (refused.status, refused.headers["Retry-After"]) == (503, "2")
    await old.say("hi")
    assert (await old.closed())[0] == 4503
    assert await answers(node, "failed") <= 7 and await answers(node, "away") >= 20
    assert len([line for line in node.lines() if "does not say what may be said" in line]) == 1
    await site.open()

    async def said() -> bool:
        return (await ann.ask("message", message="back"))["type"] == "ack"

    await until(said, "it is asked again", every_s=0.2)
    assert [line for line in node.lines() if "says again what may be said" in line]


async def test_what_waits_for_the_site_is_bounded(start_node: NodeFactory, site: Site, crowd: Crowd) -> None:
    """Questions under way, and bytes, also of what waits for its sender's turn: above them nobody waits."""
    site.answer = hang
    bounds = {"site_publish_requests_max": 3, "site_publish_waiting_bytes_max": 40_000}
    node = await on(start_node, site, site_publish_timeout_s=30, **bounds)
    ann, bob = await crowd.join(node, "r"), await crowd.join(node, "r")
    for _ in range(8):
        await ann.say("x" * 5_000)

    async def full() -> bool:
        return await answers(node, "full") == 3

    await until(full, "there is no space for three of them")
    assert 30_000 <= await node.metric("hiroba_site_publish_waiting_bytes") <= 40_000
    assert (await bob.ask("message", message="x" * 5_000))["code"] == "site", "at once: it is the node's bound"
    assert site.at_once == 3


# ---- what ends meanwhile ----


async def test_who_may_not_write_any_more_when_the_site_answers_says_nothing(
    start_node: NodeFactory, site: Site, crowd: Crowd
) -> None:
    """They spoke when they might; when it would be heard they may not."""
    go = asyncio.Event()

    async def thinks(request: web.Request) -> web.StreamResponse:
        await go.wait()
        return web.Response(status=204)

    site.answer = thinks
    node = await on(start_node, site, site_publish_timeout_s=20)
    ann, bob = await crowd.join(node, "r", headers=by("ann")), await crowd.join(node, "r", headers=by("bob"))
    await ann.say("hers", ref="hers")
    await bob.say("his")
    await until(lambda: len(site.asked) == 2, "both are asked about")
    assert (await ann.ask("refresh", token=token(sub="ann", rooms={"*": "r"})))["type"] == "refreshed"
    go.set()
    assert (await ann.answer("hers"))["code"] == "forbidden"
    await ann.hears("his")


async def test_what_was_said_before_one_left_or_the_node_drained_is_said(
    start_node: NodeFactory, site: Site, crowd: Crowd
) -> None:
    """As without the hook: it was taken."""
    go = asyncio.Event()

    async def thinks(request: web.Request) -> web.StreamResponse:
        await go.wait()
        return web.Response(status=204)

    site.answer = thinks
    node = await on(start_node, site, site_publish_timeout_s=20, lb_wait_s=0, drain_s=0.1)
    other = await on(start_node, site)
    ann, bob = await crowd.join(node, "r"), await crowd.join(node, "r")
    await ann.say("gone")
    await until(lambda: len(site.asked) == 1, "it is asked about")
    await ann.ws.close()
    await bob.say("drained")
    await until(lambda: len(site.asked) == 2, "that one too")
    stopping = asyncio.create_task(node.stop())
    assert (await bob.closed())[0] == 1012
    go.set()
    assert await stopping == 0
    assert (await ask(crowd, other, "r", offset="-1")).messages == ["gone", "drained"]


async def test_what_the_site_allows_waits_for_the_broker_as_anything_does(
    broker: Broker, start_node: NodeFactory, site: Site, crowd: Crowd
) -> None:
    node = await on(start_node, site, publish_timeout_s=0.5, broker_timeout_s=0.3)
    ann = await crowd.join(node, "r")
    await broker.kill()
    assert (await ann.ask("message", message=1))["code"] in ("timeout", "unknown")
    assert await answers(node, "allowed") == 1
