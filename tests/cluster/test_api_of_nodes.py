"""What the API says of all nodes, whichever is asked: rooms by an index, users, nodes; and how somebody is put out."""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest

from gateway.broker.keys import Keys, partition
from tests.cluster.conftest import QUICK, redis_only
from tests.conftest import NodeFactory
from tests.support.api import ask, make_key
from tests.support.broker import Broker
from tests.support.client import Crowd
from tests.support.node import Node
from tests.support.tokens import SECRET, token
from tests.support.until import until

KEYS = Keys("hiroba", 0)
SETTINGS = {**QUICK, "token_keys": f"HS256:{SECRET}", "guests": True}

pytestmark = redis_only


@pytest.fixture
async def nodes(start_node: NodeFactory, broker: Broker) -> AsyncIterator[tuple[Node, Node]]:
    one, two = await asyncio.gather(start_node(**SETTINGS), start_node(**SETTINGS))
    yield one, two


def same_partition(count: int) -> list[str]:
    """Names of rooms whose index is one."""
    names = (f"r{n}" for n in range(1_000_000))
    wanted = partition("r0")
    return [name for _, name in zip(range(count), (n for n in names if partition(n) == wanted), strict=False)]


async def listed(node: Node, limit: int) -> list[list[str]]:
    """The rooms, page by page."""
    pages, after = [], ""
    while True:
        page = (await ask(node, "GET", f"/rooms?limit={limit}&after={quote(after)}")).said
        pages.append([room["room"] for room in page["rooms"]])
        after = page["next"]
        if after is None:
            return pages


async def test_every_room_in_which_somebody_spoke_is_listed_once(nodes: tuple[Node, Node], broker: Broker) -> None:
    """Also those that one call made in one ms, and those of one partition; a room that was flushed is not."""
    one, two = nodes
    names = [*same_partition(7), *(f"部屋{n}" for n in range(60))]
    items = [{"room": name, "message": 1} for name in names]
    assert (await ask(one, "POST", "/batch", {"publishes": items})).said["failed"] == 0
    for limit in (1, 3, 50, 200):
        pages = await listed(two, limit)
        assert sorted(name for page in pages for name in page) == sorted(names)
        assert {len(page) for page in pages[:-1]} <= {limit}
    room = (await ask(two, "GET", f"/rooms/{quote('部屋7')}")).said
    assert (room["room"], room["entries"], room["first_id"]) == ("部屋7", 1, room["last_id"])
    assert (await ask(two, "GET", "/rooms/nobody")).said["code"] == "no_room"
    async with broker.client() as client:
        await client.delete(KEYS.log("r0"))  # type: ignore[arg-type]
    assert "r0" not in [name for page in await listed(two, 50) for name in page]
    for bad in ("x", "1~2", "300~1~a", "1~-1~a", "1~x~a"):
        assert (await ask(one, "GET", f"/rooms?after={quote(bad)}")).status == 400


async def test_a_room_leaves_the_index_when_it_expires(start_node: NodeFactory, broker: Broker, crowd: Crowd) -> None:
    """Unless somebody sits in it: then its log and its place are renewed together."""
    node = await start_node(**{**SETTINGS, "room_idle_s": 2, "sweep_s": 0.5, "retention_s": 1})
    ann = await crowd.join(node, "sat")
    names = same_partition(3)
    items = [{"room": name, "message": 1} for name in ("sat", *names)]
    await ask(node, "POST", "/batch", {"publishes": items})
    await ann.hears(1)

    async def left() -> bool:
        return await listed(node, 50) == [["sat"]]

    await until(left, "the others have expired", 15)
    await ask(node, "POST", "/publish", {"room": names[0], "message": 2})
    async with broker.client() as client:
        assert await client.zcard(KEYS.rooms(partition("r0"))) < 3, "who is renewed takes two of the dead out"


async def test_who_is_connected_where_and_how_they_are_put_out(
    nodes: tuple[Node, Node], broker: Broker, crowd: Crowd
) -> None:
    """An id with whatever characters; the node that is asked need not be the one where they are."""
    one, two = nodes
    id = "a/b ü?"
    who = {"Authorization": f"Bearer {token(sub=id, name='Ann')}"}
    here, there = await crowd.join(one, "hall", headers=who), await crowd.join(two, "kitchen", headers=who)
    path = f"/users/{quote(id, safe='')}"
    state = (await ask(two, "GET", path)).said
    assert (state["id"], state["rooms"], state["silent"]) == (id, ["hall", "kitchen"], [])
    assert {(one["node"] is not None, one["wire"]) for one in state["connections"]} == {(True, "v1")}
    assert len({one["node"] for one in state["connections"]}) == 2
    assert (await ask(two, "GET", "/users/nobody")).said["connections"] == []
    for node in nodes:
        present = (await ask(node, "GET", "/presence?room=hall")).said
        assert (present["count"], [one["id"] for one in present["members"]]) == (1, [id])
    assert (await ask(one, "GET", "/presence?room=nobody")).said["members"] == []
    nodes_ = (await ask(one, "GET", "/nodes")).said
    assert [node["connections"] for node in nodes_["nodes"]] == [1, 1] and nodes_["silent"] == []
    done = await ask(two, "POST", "/disconnect", {"user": id, "room": "hall"}, Idempotency_Key="out")
    assert done.said["heard"] is True
    assert (await here.closed())[0] == 4003
    assert (
        await ask(one, "POST", "/disconnect", {"user": id, "room": "hall"}, Idempotency_Key="out")
    ).said == done.said
    await ask(one, "POST", "/revoke", {"user": id})
    assert (await there.closed())[0] == 4001
    for body in (
        {},
        {"user": id, "everybody": True},
        {"token": "t", "issued_before": 1},
        {"user": id, "issued_before": 1},
    ):
        assert (await ask(one, "POST", "/revoke", body)).status == 400
    moderator = await make_key(broker, "moderate")

    async def closed() -> bool:
        return (await ask(one, "POST", "/publish", {"room": "a", "message": 1}, key=moderator)).status == 403

    await until(closed, "the key is known")


async def test_a_node_that_stands_still_is_named(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    two.pause()
    try:
        said = (await ask(one, "GET", "/nodes")).said
    finally:
        two.cont()
    assert len(said["nodes"]) == 1 and len(said["silent"]) == 1
    info = (await ask(one, "GET", "/info")).said
    assert info["node"]["id"] == said["nodes"][0]["id"] and "geheim" not in info["broker"]


async def test_what_was_ordered_is_told_and_can_be_taken_back(nodes: tuple[Node, Node], broker: Broker) -> None:
    """By whichever node, with who gave it; a key that is not for all of it hears nothing."""
    one, two = nodes
    ids = [(await ask(one, "POST", "/publish", {"room": "hall", "message": n})).said["id"] for n in range(2)]
    await ask(one, "POST", "/disconnect", {"user": "7", "room": "hall", "for_s": 60})
    await ask(one, "POST", "/revoke", {"everybody": True})
    await ask(one, "DELETE", f"/rooms/hall/messages/{ids[0]}")
    await ask(one, "DELETE", "/rooms/hall/messages")

    async def stands() -> bool:
        return (await ask(two, "GET", "/control")).said["standing_count"] == 2  # type: ignore[no-any-return]

    await until(stands, "the other node has heard")
    log = (await ask(two, "GET", "/control")).said
    assert [word["kind"] for word in log["words"]] == ["deletion", "deletion", "issued", "kick"]
    assert {word["by"] for word in log["words"]} == {"api:this machine"}
    emptied, deleted, issued, kick = log["words"]
    assert emptied["emptied"] and deleted["messages"] == 1 and deleted["room"] == "hall" and "user" not in issued
    assert (kick["user"], kick["room"]) == ("7", "hall") and kick["until"] > kick["at"]
    assert [one["kind"] for one in log["standing"]] == ["issued", "kick"]
    assert len((await ask(two, "GET", "/control?limit=1")).said["words"]) == 1
    await ask(two, "POST", "/disconnect", {"user": "7", "room": "hall", "lift": True})
    log = (await ask(two, "GET", "/control?limit=1")).said
    assert log["words"][0]["lifted"] and "until" not in log["words"][0]

    async def lifted() -> bool:
        return (await ask(one, "GET", "/control")).said["standing_count"] == 1  # type: ignore[no-any-return]

    await until(lifted, "it stands no more")
    assert (await ask(one, "POST", "/drain", {"node": "nobody"})).said["code"] == "no_node"
    key = await make_key(broker, "read", "moderate")

    async def known() -> bool:
        return (await ask(one, "GET", "/info", key=key)).status == 200

    await until(known, "the key is known", every_s=0.5)
    id = (await ask(one, "GET", "/info", key=key)).said["node"]["id"]
    for method, path, body in (("GET", "/control", None), ("GET", "/settings", None), ("POST", "/drain", {"node": id})):
        assert (await ask(one, method, path, body, key=key)).said["code"] == "scope"


async def test_settings_are_told_without_secrets(start_node: NodeFactory, broker: Broker) -> None:
    """Neither the broker's password nor any secret, whatever is asked."""
    secrets = {"guest_secret": "g" * 40, "api_key": "hiroba_00000000_" + "k" * 43}
    node = await start_node(**SETTINGS, **secrets)
    said = (await ask(node, "GET", "/settings")).said
    shown = {one["name"]: one for one in said["settings"]}
    assert shown["guest_secret"]["value"] == shown["api_key"]["value"] == "***"
    assert shown["history_max"]["default"] and not shown["sweep_s"]["default"]
    assert broker.url.split(":")[2].split("@")[0] not in shown["broker_url"]["value"]
    text = str(said)
    assert not any(secret in text for secret in (SECRET, *secrets.values()))
