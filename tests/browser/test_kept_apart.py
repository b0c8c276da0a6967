"""What is kept when storage, clock or page do not behave: nothing is sent twice, and nothing waits for ever."""

import json

import pytest
from playwright.async_api import Page

from tests.browser.conftest import WindowFactory
from tests.browser.door import Door
from tests.browser.room import outbox_is, say, shows, state
from tests.browser.test_kept import enter, kept
from tests.conftest import NodeFactory
from tests.support.client import Crowd
from tests.support.node import Node

pytestmark = pytest.mark.parametrize("broker", ["redis"], indirect=True)

# Puts an item under an owner that is gone: [place, owner, ref, the other fields].
LEAVE = """([place, owner, ref, item]) => new Promise((done) => {
  const asked = indexedDB.open("hiroba", 1);
  asked.onsuccess = () => {
    const through = asked.result.transaction("outbox", "readwrite");
    const sessions = new Set(item.sessions);
    through.objectStore("outbox").put({ ...item, key: [...place, owner, ref], reason: null, sessions });
    through.oncomplete = () => {
      asked.result.close();
      done();
    };
  };
})"""


@pytest.fixture
async def node(start_node: NodeFactory) -> Node:
    return await start_node(publish_timeout_s=0.1, ping_s=0.5)


async def leave(page: Page, url: str, message: str, session: str, at: int) -> None:
    place = [json.dumps([url.removeprefix("http://").removesuffix("chat/lobby/"), ""], separators=(",", ":")), "lobby"]
    item = {"json": json.dumps(message), "at": at, "state": "sent", "after": "0-0", "sessions": [session]}
    await page.evaluate(LEAVE, [place, f"owner of {message}", 1, item])


async def test_what_came_late_is_not_kept_again_beside_what_never_came(node: Node, window: WindowFactory) -> None:
    """Two closed tabs had a text under way each. One appears while both are waited for: that one is done with."""
    alice = await window()
    url = node.url("/chat/lobby/")
    async with Crowd() as crowd:
        bob = await crowd.join(node, "lobby")
        await enter(alice, url)
        await leave(alice, url, "late", (await bob.welcome())["session"], 1)
        await leave(alice, url, "never", "who is gone", 2)
        await alice.reload()
        await outbox_is(alice, ["late", "never"])
        await state(alice, "connected")
        await bob.say("late")
        await outbox_is(alice, ["never"])
        await shows(alice, "late\nnever\n")
        await outbox_is(alice, [])
        await kept(alice)


async def test_a_clock_that_is_set_back_keeps_the_order(node: Node, window: WindowFactory) -> None:
    alice = await window()
    async with Door(node.port) as door:
        await enter(alice, door.url("/chat/lobby/"))
        door.refusing = True
        door.cut()
        await say(alice, "first")
        await alice.evaluate("Date.now = () => 1000")
        await say(alice, "second")
        await kept(alice, ["first", "waiting"], ["second", "waiting"])
        await alice.reload()
        await outbox_is(alice, ["first", "second"])
        door.refusing = False
        await shows(alice, "first\nsecond\n")


# Another room of the same page, and what is said there once it is joined.
OTHER = """async () => {
  const { Hiroba } = await import("/static/client/index.js");
  window.room = new Hiroba("/").join("other");
  await new Promise((joined) => room.on("joined", joined));
  room.send("hello");
}"""


async def test_a_room_left_while_its_text_is_written_down_complains_of_nothing(
    node: Node, window: WindowFactory
) -> None:
    """And the text is kept for whoever joins the room next."""
    alice = await window()
    await enter(alice, node.url("/chat/lobby/"))
    await alice.evaluate("""() => {
      const { put } = IDBObjectStore.prototype;
      IDBObjectStore.prototype.put = function (item) {
        if (item.state === "sent") room.leave();
        return put.call(this, item);
      };
    }""")
    await alice.evaluate(OTHER)
    await kept(alice, ["hello", "sent"])


async def test_a_room_left_before_it_is_known_whether_anything_can_be_kept_keeps_its_text(
    node: Node, window: WindowFactory
) -> None:
    """Said and left at once, on a slow machine: the storage had not answered yet, and the text was lost."""
    alice = await window()
    await enter(alice, node.url("/chat/lobby/"))
    await alice.evaluate("""() => {
      const { request } = LockManager.prototype;
      const answering = new Promise((answer) => { window.answer = answer; });
      LockManager.prototype.request = async function (...asked) {
        await answering;
        return request.apply(this, asked);
      };
    }""")
    await alice.evaluate(OTHER)
    await alice.evaluate("room.leave()")
    await alice.evaluate("answer()")
    await kept(alice, ["hello", "waiting"])


async def test_what_can_no_longer_be_written_down_is_not_kept_as_unsent(node: Node, window: WindowFactory) -> None:
    """A full disk: the old record, which says "waiting", has to go before the text does. Else a crash doubles it."""
    alice = await window()
    await alice.add_init_script("""
      window.order = [];
      const { put, delete: remove } = IDBObjectStore.prototype;
      IDBObjectStore.prototype.put = function (item) {
        if (item.state === "sent") throw new DOMException("full", "QuotaExceededError");
        return put.call(this, item);
      };
      IDBObjectStore.prototype.delete = function (key) {
        this.transaction.addEventListener("complete", () => order.push("removed"));
        return remove.call(this, key);
      };
      const { send } = WebSocket.prototype;
      WebSocket.prototype.send = function (text) {
        order.push(JSON.parse(text).type);
        return send.call(this, text);
      };
    """)
    await enter(alice, node.url("/chat/lobby/"))
    await say(alice, "hello")
    await shows(alice, "hello\n")
    told = await alice.evaluate("order.filter((one) => one === 'removed' || one === 'message')")
    assert told[:2] == ["removed", "message"]


async def test_storage_that_never_answers_keeps_no_text_back(node: Node, window: WindowFactory) -> None:
    """Browsers had such faults (WebKit 226547): opening a database neither worked nor failed."""
    alice = await window()
    await alice.clock.install()
    await alice.add_init_script("IDBFactory.prototype.open = () => ({})")
    await enter(alice, node.url("/chat/lobby/"))
    await say(alice, "hello")
    await outbox_is(alice, ["hello"])
    await alice.clock.run_for(5_000)
    await shows(alice, "hello\n")
