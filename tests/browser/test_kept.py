"""What is not sent survives a reload and the end of its tab, and goes out once, whoever else has the room open."""

import pytest
from playwright.async_api import Page

from tests.browser.conftest import WindowFactory
from tests.browser.door import Door
from tests.browser.room import LOOK_S, TYPING_BYTES_MAX, enter, log, outbox_is, say, shows, state
from tests.conftest import NodeFactory
from tests.support.node import Node
from tests.support.proxy import Proxy
from tests.support.until import until

pytestmark = pytest.mark.parametrize("broker", ["redis"], indirect=True)

# The items that this browser keeps, as [message, state].
KEPT = """() => new Promise((done) => {
  const asked = indexedDB.open("hiroba", 1);
  asked.onsuccess = () => {
    const all = asked.result.transaction("outbox").objectStore("outbox").getAll();
    all.onsuccess = () => {
      asked.result.close();
      done(all.result.map(({ json, state }) => [JSON.parse(json), state]));
    };
  };
})"""


async def kept(page: Page, *items: list[str]) -> None:
    """Waits until exactly these items lie in the browser's storage, in whatever order."""

    async def are() -> bool:
        return sorted(await page.evaluate(KEPT)) == sorted(items)

    await until(are, f"{items} are kept", every_s=LOOK_S)


async def tab(page: Page, url: str) -> Page:
    """Another tab of the same browser."""
    other = await page.context.new_page()
    await other.goto(url)
    return other


async def test_a_reload_keeps_what_was_not_sent(node: Node, window: WindowFactory) -> None:
    alice, bob = await window(), await window()
    async with Door(node.port) as door:
        await enter(alice, door.url("/chat/lobby/"))
        await enter(bob, node.url("/chat/lobby/"))
        door.refusing = True
        door.cut()
        await state(alice, "reconnecting")
        for text in ("one", "two"):
            await say(alice, text)
        await kept(alice, ["one", "waiting"], ["two", "waiting"])
        await alice.reload()
        await outbox_is(alice, ["one", "two"])
        await say(alice, "three")
        await outbox_is(alice, ["one", "two", "three"])
        door.refusing = False
        await shows(bob, "one\ntwo\nthree\n")
        await shows(alice, "one\ntwo\nthree\n")
        await outbox_is(alice, [])
        await kept(alice)
        assert [frame["message"] for frame in door.sent] == ["one", "two", "three"]


async def test_a_text_under_way_at_the_reload_is_found_in_the_log(node: Node, window: WindowFactory) -> None:
    """More was said since than a page shows on entering: it is looked for where it went out."""
    alice, bob = await window(), await window()
    async with Door(node.port) as door:
        await enter(alice, door.url("/chat/lobby/"))
        await enter(bob, node.url("/chat/lobby/"))
        door.lose_next_ack = door.refusing = True
        await say(alice, "perhaps")
        await shows(bob, "perhaps\n")
        await state(alice, "reconnecting")
        await kept(alice, ["perhaps", "sent"])
        for n in range(60):
            await say(bob, str(n))
        spoken = "".join(f"{n}\n" for n in range(60))
        await shows(bob, f"perhaps\n{spoken}")
        await alice.reload()
        await outbox_is(alice, ["perhaps"])
        await say(alice, "later")
        door.refusing = False
        await outbox_is(alice, [])
        await shows(bob, f"perhaps\n{spoken}later\n")
        # The fifty that were there on entering, and not one of them twice.
        await shows(alice, "".join(f"{n}\n" for n in range(10, 60)) + "later\n")
        await kept(alice)


async def test_a_text_that_was_lost_at_the_reload_is_sent_again(start_node: NodeFactory, window: WindowFactory) -> None:
    """Not before its old node can no longer have it."""
    node = await start_node(publish_timeout_s=0.1, ping_s=0.5)
    alice, bob = await window(), await window()
    async with Door(node.port) as door:
        await enter(alice, door.url("/chat/lobby/"))
        await enter(bob, node.url("/chat/lobby/"))
        door.lose_next_message = door.refusing = True
        await say(alice, "perhaps")
        await state(alice, "reconnecting")
        await kept(alice, ["perhaps", "sent"])
        await alice.reload()
        door.refusing = False
        await shows(bob, "perhaps\n")
        await outbox_is(alice, [])
        await say(alice, "done")
        await shows(bob, "perhaps\ndone\n")
        await shows(alice, "perhaps\ndone\n")


async def test_two_tabs_send_each_its_own(node: Node, window: WindowFactory) -> None:
    """Both know what the other keeps, and leave it alone while it lives."""
    alice, bob = await window(), await window()
    async with Door(node.port) as door:
        url = door.url("/chat/lobby/")
        await enter(alice, url)
        second = await tab(alice, url)
        await state(second, "connected")
        await enter(bob, node.url("/chat/lobby/"))
        door.refusing = True
        door.cut()
        for page, texts in ((alice, ("a1", "a2")), (second, ("b1", "b2"))):
            await state(page, "reconnecting")
            for text in texts:
                await say(page, text)
            await outbox_is(page, list(texts))
        await kept(alice, *([text, "waiting"] for text in ("a1", "a2", "b1", "b2")))
        # One that is opened meanwhile has none of it.
        third = await tab(alice, url)
        await say(third, "c1")
        await outbox_is(third, ["c1"])
        door.refusing = False
        await until(lambda: _lines(bob, 5), "all five")
        for page in (alice, second, third):
            await outbox_is(page, [])
            await until(lambda page=page: _lines(page, 5), "all five")
        said = (await log(bob)).split()
        assert sorted(said) == ["a1", "a2", "b1", "b2", "c1"]
        assert said.index("a1") < said.index("a2") and said.index("b1") < said.index("b2")
        assert sorted(frame["message"] for frame in door.sent) == sorted(said)
        await kept(alice)


async def _lines(page: Page, count: int) -> bool:
    return (await log(page)).count("\n") >= count


async def test_one_of_the_others_sends_what_a_closed_tab_left(node: Node, window: WindowFactory) -> None:
    """Three tabs; two go, one of them with a text of which nobody knew yet whether it had arrived."""
    alice, bob = await window(), await window()
    async with Door(node.port) as door:
        url = door.url("/chat/lobby/")
        await enter(bob, node.url("/chat/lobby/"))
        await enter(alice, url)
        door.lose_next_ack = True
        door.refusing = True
        await say(alice, "perhaps")
        await shows(bob, "perhaps\n")
        await state(alice, "reconnecting")
        await say(alice, "first")
        second, third = await tab(alice, url), await tab(alice, url)
        await say(second, "second")
        await say(third, "third")
        left = [["perhaps", "sent"], ["first", "waiting"], ["second", "waiting"], ["third", "waiting"]]
        await kept(third, *left)
        await second.close()
        # One of the two has it, either of them.
        await until(lambda: _between(alice, third, "second"), "the closed tab's text is with one of the others")
        await alice.close()
        await outbox_is(third, ["perhaps", "first", "second", "third"])
        door.refusing = False
        await shows(bob, "perhaps\nfirst\nsecond\nthird\n")
        await shows(third, "perhaps\nfirst\nsecond\nthird\n")
        await outbox_is(third, [])
        await kept(third)
        assert [frame["message"] for frame in door.sent] == ["perhaps", "first", "second", "third"]


async def _between(one: Page, other: Page, text: str) -> bool:
    return (
        await one.locator("#chat-outbox").get_by_text(text, exact=True).count()
        + await other.locator("#chat-outbox").get_by_text(text, exact=True).count()
        == 1
    )


async def test_a_text_that_a_dead_network_delivers_after_the_reload_is_not_doubled(
    start_node: NodeFactory, window: WindowFactory
) -> None:
    """The page that sent it is gone; the kernel has it, until the node cuts off the silent connection."""
    node = await start_node(publish_timeout_s=0.1)
    alice, bob = await window(), await window()
    await alice.clock.install()
    async with Proxy(node.port) as road:
        await enter(bob, node.url("/chat/lobby/"))
        road.hold_at(b"Upgrade: websocket")
        await alice.goto(f"http://127.0.0.1:{road.port}/chat/lobby/")
        link = await road.held()
        link.up.thaw()
        await state(alice, "connected")
        link.up.freeze()
        await say(alice, "perhaps")
        await until(lambda: link.up.held_bytes > TYPING_BYTES_MAX, "the text is on its way")
        await kept(alice, ["perhaps", "sent"])
        await alice.reload()
        await state(alice, "connected")
        await outbox_is(alice, ["perhaps"])
        await alice.clock.run_for(5_000)
        await state(alice, "connected")
        await alice.clock.run_for(5_000)
        await outbox_is(alice, ["perhaps"])
        link.up.thaw()
        await shows(bob, "perhaps\n")
        await outbox_is(alice, [])
        await say(alice, "done")
        await shows(bob, "perhaps\ndone\n")


async def test_nobody_sends_what_another_user_had_typed(node: Node, window: WindowFactory) -> None:
    alice = await window()
    async with Door(node.port) as door:
        await alice.goto(door.url("/chat/"))
        door.refusing = True
        join = """async ([user, room]) => {
          const { Hiroba } = await import("/static/client/index.js");
          window.room = new Hiroba("/", { user }).join(room);
        }"""
        await alice.evaluate(join, ["alice", "lobby"])
        await alice.evaluate("window.room.send('for your eyes only')")
        await kept(alice, ["for your eyes only", "waiting"])
        await alice.reload()
        door.refusing = False
        for user, room in (("bob", "lobby"), ("alice", "other")):
            await alice.evaluate(join, [user, room])
            await alice.evaluate("window.room.send('hello')")
            await kept(alice, ["for your eyes only", "waiting"])
            await until(lambda: alice.evaluate("window.room.outbox.length === 0"), "sent")
        assert [frame["message"] for frame in door.sent] == ["hello", "hello"]
        await alice.evaluate(join, ["alice", "lobby"])
        await kept(alice)
        assert [frame["message"] for frame in door.sent] == ["hello", "hello", "for your eyes only"]


async def test_a_browser_that_throws_its_storage_away_still_sends(node: Node, window: WindowFactory) -> None:
    """Somebody clears the site's data, or the disk is full: what cannot be kept is sent all the same."""
    alice = await window()
    async with Door(node.port) as door:
        await enter(alice, door.url("/chat/lobby/"))
        door.refusing = True
        door.cut()
        await state(alice, "reconnecting")
        await say(alice, "kept")
        await kept(alice, ["kept", "waiting"])
        tools = await alice.context.new_cdp_session(alice)
        await tools.send("Storage.clearDataForOrigin", {"origin": door.url(""), "storageTypes": "all"})
        await say(alice, "not kept")
        door.refusing = False
        await shows(alice, "kept\nnot kept\n")
        await outbox_is(alice, [])
        assert [frame["message"] for frame in door.sent] == ["kept", "not kept"]


async def test_without_storage_the_page_says_what_a_reload_would_lose(node: Node, window: WindowFactory) -> None:
    """On plain http there are no locks; and a browser may have storage blocked."""
    alice = await window()
    await alice.add_init_script("Object.defineProperty(window, 'indexedDB', { get: () => undefined })")
    async with Door(node.port) as door:
        await enter(alice, door.url("/chat/lobby/"))
        await say(alice, "hello")
        await shows(alice, "hello\n")
        door.refusing = True
        door.cut()
        await state(alice, "reconnecting")
        await say(alice, "waits")
        await outbox_is(alice, ["waits"])
        unloading = (
            "const e = new Event('beforeunload', {cancelable: true}); window.dispatchEvent(e); e.defaultPrevented"
        )
        assert await alice.evaluate(unloading)
        door.refusing = False
        await shows(alice, "hello\nwaits\n")
        assert not await alice.evaluate(f"(() => {{ {unloading.replace('; e.d', '; return e.d')} }})()")
