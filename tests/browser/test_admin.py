"""The admin page: an operator finds who disturbs, puts them out, and looks after the nodes; nobody else comes in."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from tests.browser.axe import violations
from tests.browser.conftest import WindowFactory
from tests.conftest import NodeFactory
from tests.support.api import ask, make_key, revoke_key
from tests.support.broker import Broker
from tests.support.client import Client, Crowd
from tests.support.node import Node
from tests.support.tokens import SECRET, token
from tests.support.until import until

pytestmark = pytest.mark.parametrize("broker", ["redis"], indirect=True)

SETTINGS: dict[str, object] = {
    "token_keys": f"HS256:{SECRET}",
    "api_wrong_keys_per_minute": 100_000,
    "lb_wait_s": 0.5,
    "drain_s": 0.5,
    "sweep_s": 1,
    "messages_burst": 200,
    "presence_grace_s": 1,
}
OF_PAGE = {"Hiroba-Admin": "1"}


@pytest_asyncio.fixture(loop_scope="session")
async def crowd() -> AsyncIterator[Crowd]:
    """In the loop that the browser lives in."""
    async with Crowd() as crowd:
        yield crowd


@pytest_asyncio.fixture(loop_scope="session")
async def nodes(start_node: NodeFactory) -> AsyncIterator[tuple[Node, Node]]:
    one, two = await asyncio.gather(start_node(**SETTINGS), start_node(**SETTINGS))
    yield one, two


async def person(crowd: Crowd, node: Node, room: str, id: str, name: str) -> Client:
    return await crowd.join(node, room, headers={"Authorization": f"Bearer {token(sub=id, name=name)}"})


# The page looks every two seconds: here ten times as often, so that nobody waits for it.
HURRIED = (
    "const real = setTimeout; window.setTimeout = (act, ms, ...more) => real(act, ms === 2000 ? 200 : ms, ...more);"
)


async def log_in(page: Page, node: Node, key: str) -> None:
    await page.add_init_script(HURRIED)
    await page.goto(node.ops_url("/admin/"))
    await page.fill("#login-key", key)
    await page.press("#login-key", "Enter")


async def known(node: Node, key: str) -> None:
    async def opens() -> bool:
        return (await ask(node, "GET", "/info", key=key)).status == 200

    await until(opens, "the node knows the key")


async def test_an_operator_finds_and_removes_a_troublemaker(
    nodes: tuple[Node, Node], broker: Broker, crowd: Crowd, window: WindowFactory, shots: Path
) -> None:
    """By nothing but the page: rooms by traffic, who speaks most, put out, delete, announce; all on the other node."""
    one, two = nodes
    key = await make_key(broker, "admin", name="night shift")
    await known(one, key)
    page, phone = await window(size=(1360, 860)), await window(lang="ja-JP", scheme="dark", size=(390, 844))
    ann = await person(crowd, one, "square", "7", "Ann Lee")
    ken = await person(crowd, two, "square", "8", "高橋健")
    mallory = await person(crowd, two, "square", "66", "Mallory")
    quiet = await person(crowd, two, "kitchen", "9", "ليلى")
    await quiet.say("Tea?")
    await ann.say("Good evening!")
    await ken.say("こんばんは")
    await log_in(page, one, key)
    await expect(page.locator("#view h1")).to_have_text("Nodes")
    await expect(page.locator("#view tbody tr")).to_have_count(2)
    assert await page.evaluate("document.cookie") == "", "no script reads it"
    await page.click("text=Rooms")
    await expect(page.locator("#view tbody tr")).to_have_count(2)
    for n in range(60):
        await mallory.say(f"BUY CHEAP WATCHES {n} https://example.org/")
    # Live, not reloaded: the flood comes up by itself.
    loudest = page.locator("#view tbody tr:first-child")
    await expect(loudest.locator("a")).to_have_text("square")
    await expect(loudest.locator(".number").first).not_to_have_text(re.compile("^[–0]$"))
    assert await violations(page) == []
    await page.screenshot(path=shots / "admin-rooms.png")
    await loudest.locator("a").click()
    worst = page.locator("section[aria-label='Who speaks most'] li:first-child")
    await expect(worst).to_contain_text("Mallory")
    await expect(page.locator("section[aria-label='Who is here'] li")).to_have_count(3)
    await page.screenshot(path=shots / "admin-room.png")
    await worst.locator("button").click()
    await expect(page.locator("#ask-title")).to_have_text("Put Mallory (66) out?")
    await page.select_option("[name=room]", label="all rooms")
    assert await violations(page) == []
    await page.screenshot(path=shots / "admin-kick.png")
    await page.click("#ask-yes")
    assert (await mallory.closed())[0] == 4003
    await expect(page.locator("#said")).to_contain_text("Mallory (66) is put out until")
    await expect(page.locator("section[aria-label='Who is here'] li")).to_have_count(2)
    newest = page.locator(".messages li:first-child")
    await expect(newest).to_contain_text("WATCHES 59")
    await newest.locator("button").click()
    await page.click("#ask-yes")
    await ann.until(lambda: len(ann.of_type("deleted")) == 1, "it is told that it was deleted")
    await expect(newest).to_contain_text("message deleted")
    await page.fill(".announce input", "That was spam. It is over.")
    await page.press(".announce input", "Enter")
    await ken.until(lambda: ken.of_type("message")[-1]["message"] == "That was spam. It is over.", "the announcement")
    assert ken.of_type("message")[-1]["user"] == {"id": "hiroba:operator", "name": "Operator"}
    # All that they ever said.
    await worst.locator("a").click()
    await expect(page.locator("#view")).to_contain_text("Not connected anywhere.")
    await page.click("text=Delete all messages")
    await page.click("#ask-yes")
    await expect(page.locator("#view")).to_contain_text("All messages are deleted: 59.")
    await page.goto(one.ops_url("/admin/#/user/8"))
    await expect(page.locator("#view tbody tr")).to_have_count(1)
    await page.screenshot(path=shots / "admin-user.png")
    await page.click("text=Control log")
    await expect(page.locator("section[aria-label='What stands now'] tbody tr")).to_have_count(1)
    await expect(page.locator("section[aria-label^='What was ordered'] tbody")).to_contain_text("api:night shift")
    await page.screenshot(path=shots / "admin-control.png")
    await page.click("text=Let in again")
    await expect(page.locator("#view")).to_contain_text("Nobody is put out")
    await log_in(phone, one, key)
    await phone.goto(one.ops_url("/admin/#/room/square"))
    await expect(phone.locator(".messages li").first).to_contain_text("That was spam")
    assert await violations(phone) == []
    await phone.screenshot(path=shots / "admin-phone.png")
    lines = [line for line in one.lines() if '"api"' in line]
    for word in ("login", "disconnect", "delete_message", "broadcast", "erase"):
        assert any(f'"operation": "{word}"' in line and "night shift" in line for line in lines), word
    assert not any(key in line for line in one.lines())


async def test_an_operator_drains_a_node_and_reads_its_settings(
    nodes: tuple[Node, Node], broker: Broker, crowd: Crowd, window: WindowFactory, shots: Path
) -> None:
    """The other node goes as at SIGTERM; the page sees it go."""
    one, two = nodes
    key = await make_key(broker, "admin", name="ops")
    await known(one, key)
    page = await window(size=(1360, 860))
    ann = await person(crowd, two, "square", "7", "Ann")
    for _ in range(3):
        await crowd.join(one, "square", headers={"Authorization": f"Bearer {token(sub='1')}"})
    await log_in(page, one, key)
    await page.click("text=Settings")
    await expect(page.locator("tr:has(code:text-is('token_keys'))")).to_contain_text("***")
    assert SECRET not in await page.content()
    await page.check("input[type=checkbox]")
    await expect(page.locator("tr:has(code:text-is('history_max'))")).to_have_count(0)
    assert await violations(page) == []
    await page.screenshot(path=shots / "admin-settings.png")
    await page.click("text=Nodes")
    rows = page.locator("#view tbody tr")
    await expect(rows).to_have_count(2)
    await expect(page.locator(".tile").first).to_contain_text("4")
    assert await violations(page) == []
    await page.screenshot(path=shots / "admin-nodes.png")
    await rows.filter(has_not_text="this one").locator("button").click()
    await expect(page.locator("#ask-text")).to_contain_text("who is connected (1)")
    await page.click("#ask-yes")
    await expect(rows.filter(has_text="draining")).to_have_count(1)
    await page.screenshot(path=shots / "admin-draining.png")
    await ann.closed()
    assert await two.process.ended() == 0
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text("this one")


async def test_who_has_no_key_stays_outside(
    nodes: tuple[Node, Node], broker: Broker, window: WindowFactory, shots: Path
) -> None:
    """Without a key only this machine; else who has one, until it is revoked; and it opens what its scopes say."""
    one, _ = nodes
    page = await window()
    await page.goto(one.ops_url("/admin/"))
    await expect(page.locator("#who")).to_contain_text("There is no key yet")
    key = await make_key(broker, "read", name="guest book")
    await known(one, key)
    await expect(page.locator("#login-key")).to_be_visible()
    await log_in(page, one, "hiroba_00000000_" + "x" * 43)
    await expect(page.locator("#login-problem")).to_contain_text("this key is none")
    assert await violations(page) == []
    await page.screenshot(path=shots / "admin-login.png")
    await log_in(page, one, key)
    await expect(page.locator("#view tbody tr")).to_have_count(2)
    await page.click("text=Control log")
    await expect(page.locator("#away")).to_contain_text("scope admin")
    await revoke_key(broker, "guest book")
    await expect(page.locator("#login-problem")).to_have_text("Your login has ended.")
    other = await make_key(broker, "admin", name="other")
    await known(one, other)
    await log_in(page, one, other)
    await expect(page.locator("#view h1")).to_have_text("Nodes")
    await page.reload()
    await expect(page.locator("#view h1")).to_have_text("Nodes")
    await page.click("#logout")
    await expect(page.locator("#login-key")).to_be_visible()
    await page.reload()
    await expect(page.locator("#login-key")).to_be_visible()


async def test_a_cookie_alone_opens_nothing(nodes: tuple[Node, Node], broker: Broker) -> None:
    """What a foreign page could make a browser send: no own header, no origin, another's; or another node's cookie."""
    one, two = nodes
    key = await make_key(broker, "admin")
    await asyncio.gather(known(one, key), known(two, key))
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
        login = one.ops_url("/admin/session")
        async with http.post(login, json={"key": key}) as answer:
            assert answer.status == 415
        async with http.post(login, json={"key": key}, headers=OF_PAGE | {"Origin": "http://evil.example"}) as answer:
            assert answer.status == 403 and "Set-Cookie" not in answer.headers
        async with http.post(
            login, data=b"x" * 2_000, headers={"Content-Type": "application/json", **OF_PAGE}
        ) as answer:
            assert answer.status == 413
        async with http.post(login, json={"key": key}, headers=OF_PAGE) as answer:
            assert answer.status == 200
            cookies = answer.headers.getall("Set-Cookie")
        assert len(cookies) == 2 and key not in "".join(cookies)
        for cookie in cookies:
            assert {"HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))
        mine = {"Cookie": cookies[0].split(";")[0]}
        asked, own = one.ops_url("/api/v1/info"), {"Origin": one.ops_url("").rstrip("/")}
        drain, body = one.ops_url("/api/v1/publish"), {"room": "a", "message": 1}
        for headers, read, write in [
            (mine | OF_PAGE | own, 200, 200),
            (mine | OF_PAGE | {"Sec-Fetch-Site": "same-origin"}, 200, 200),
            (mine | OF_PAGE, 200, 401),
            (mine | own, 401, 401),
            (OF_PAGE | own, 401, 401),
            (mine | OF_PAGE | {"Origin": "http://evil.example"}, 403, 403),
            (mine | OF_PAGE | {"Sec-Fetch-Site": "cross-site"}, 403, 403),
            (mine | OF_PAGE | {"Sec-Fetch-Site": "same-site"}, 403, 403),
        ]:
            async with http.get(asked, headers=headers) as answer:
                assert answer.status == read, headers
            async with http.post(drain, json=body, headers=headers) as answer:
                assert answer.status == write, headers
        theirs = {"Cookie": mine["Cookie"].replace(str(one.ops_port), str(two.ops_port))}
        async with http.get(two.ops_url("/api/v1/info"), headers=theirs | OF_PAGE) as answer:
            assert answer.status == 401
        async with http.get(one.ops_url("/admin/")) as answer:
            policy = answer.headers["Content-Security-Policy"]
            assert "unsafe" not in policy and policy.startswith(
                "default-src 'none'; script-src 'self'; style-src 'self';"
            )
            text = await answer.text()
        assert not re.search(r"<script(?! (type=\"module\" )?src=)|<style|style=|\son\w+=", text)


async def test_a_login_ends_in_time(start_node: NodeFactory, broker: Broker, window: WindowFactory) -> None:
    node = await start_node(admin_session_s=2)
    key = await make_key(broker, "admin")
    await known(node, key)
    page = await window()
    await log_in(page, node, key)
    await expect(page.locator("#view h1")).to_have_text("Nodes")
    await expect(page.locator("#login-problem")).to_have_text("Your login has ended.")
