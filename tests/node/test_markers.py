"""Read markers: up to where a user has read, the same for all his connections, on whatever node they are."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway.broker.keys import Keys
from tests.conftest import NodeFactory
from tests.node.conftest import redis_only
from tests.support.broker import Broker
from tests.support.client import Client, Crowd, Frame
from tests.support.node import Node
from tests.support.tokens import SECRET, by
from tests.support.until import until

SETTINGS = {
    "messages_per_s": 0,
    "linger_s": 0.2,
    "sweep_s": 1,
    "probe_s": 2,
    "broker_timeout_s": 1,
    "token_keys": f"HS256:{SECRET}",
}


@pytest.fixture
async def start(start_node: NodeFactory) -> Callable[..., Awaitable[Node]]:
    async def started(**settings: object) -> Node:
        return await start_node(**{**SETTINGS, **settings})

    return started


async def come(crowd: Crowd, node: Node, user: str, *rooms: str) -> Client:
    client = await crowd.come(node, headers=by(user))
    if rooms:
        await joined(client, *rooms)
    return client


async def joined(client: Client, *rooms: str) -> dict[str, Any]:
    """Room -> the marker that it was given."""
    answers = await client.ask_all([{"type": "join", "room": room} for room in rooms])
    assert all(answer["type"] == "joined" for answer in answers), answers
    return {answer["room"]: answer["read"] for answer in answers}


async def said(client: Client, room: str, count: int = 1) -> list[str]:
    """The ids of so many messages."""
    answers = await client.ask_all([{"type": "message", "room": room, "message": at} for at in range(count)])
    return [answer["id"] for answer in answers]


async def read(client: Client, room: str, id: str, **fields: object) -> None:
    await client.send(json.dumps({"type": "read", "room": room, "id": id, **fields}))


def told(client: Client, room: str) -> list[str]:
    return [frame["id"] for frame in client.of_type("read") if frame["room"] == room]


async def hears(client: Client, room: str, id: str) -> None:
    await client.until(lambda: id in told(client, room), f"read {room} {id}")


async def kept(redis: Redis, user: str) -> dict[str, str]:
    """What the broker has of a user."""
    fields = await redis.hgetall(Keys("hiroba", 0).read(user))
    return {room.decode(): id.decode() for room, id in fields.items()}


async def until_kept(redis: Redis, user: str, room: str, id: str) -> None:
    async def there() -> bool:
        return (await kept(redis, user)).get(room) == id

    await until(there, f"{user} has read {room} up to {id}")


async def test_what_is_read_on_one_device_is_read_on_the_others(
    broker: Broker, start: NodeFactory, crowd: Crowd
) -> None:
    """Two nodes, three devices: those that are in the room or watch it are told, the one that read is not, nor is
    anybody else. Who comes later is given the marker as it joins or watches."""
    here, there = await start(), await start()
    phone, laptop = await come(crowd, here, "ann", "部屋"), await come(crowd, there, "ann", "部屋")
    tablet, bob = await come(crowd, there, "ann"), await come(crowd, there, "bob", "部屋")
    assert "read" not in await tablet.ask("watch", rooms=["部屋"])
    ids = await said(bob, "部屋", 5)
    await read(phone, "部屋", ids[2])
    await hears(laptop, "部屋", ids[2])
    await hears(tablet, "部屋", ids[2])
    late = await come(crowd, here, "ann")
    assert await joined(late, "部屋", "lobby") == {"部屋": ids[2], "lobby": None}
    watching = await (await come(crowd, there, "ann")).ask("watch", rooms=["lobby", "部屋"])
    assert (watching["rooms"], watching["read"]) == ({"lobby": "0-0", "部屋": ids[4]}, {"部屋": ids[2]})
    await read(laptop, "部屋", ids[4])
    for other in (phone, tablet, late):
        await hears(other, "部屋", ids[4])
    assert told(laptop, "部屋") == [ids[2]]
    assert bob.of_type("read") == []
    assert await joined(bob, "部屋") == {"部屋": None}
    async with broker.client() as redis:
        assert (await kept(redis, "ann"))["部屋"] == ids[4]
        assert 89 * 86_400 < await redis.ttl(Keys("hiroba", 0).read("ann")) <= 90 * 86_400


@redis_only
async def test_a_marker_never_moves_back_and_of_two_devices_the_larger_stays(
    broker: Broker, start: NodeFactory, crowd: Crowd
) -> None:
    """Said at once on two nodes, in any order, many times, in one burst; and by who read something long ago."""
    nodes = [await start(), await start()]
    devices = [await come(crowd, node, "ann", "room") for node in nodes]
    ids = await said(devices[0], "room", 40)
    for at in range(0, 40, 2):
        for n, device in enumerate(devices):
            await read(device, "room", ids[at + n])
            await read(device, "room", ids[at // 2])
    await hears(devices[0], "room", ids[39])
    await read(devices[0], "room", ids[7])
    await read(devices[1], "room", ids[8])
    async with broker.client() as redis:
        before = (await kept(redis, "ann"))["#"]
        other = await come(crowd, nodes[0], "ann", "other")
        await read(other, "other", (await said(other, "other"))[0])
        await until(lambda: _moved(redis, before), "something moved behind it")
        assert (await kept(redis, "ann"))["room"] == ids[39]
    assert await joined(await come(crowd, nodes[1], "ann"), "room") == {"room": ids[39]}


async def _moved(redis: Redis, before: str) -> bool:
    return (await kept(redis, "ann"))["#"] != before


@redis_only
async def test_who_scrolls_costs_the_broker_no_call_for_each_marker(
    broker: Broker, start: NodeFactory, crowd: Crowd
) -> None:
    """300 markers in a row are a few calls, and the other device hears few frames, the last one for sure."""
    node = await start()
    phone, laptop = await come(crowd, node, "ann", "room"), await come(crowd, node, "ann", "room")
    ids = await said(phone, "room", 300)
    for id in ids:
        await read(phone, "room", id)
    await hears(laptop, "room", ids[-1])
    assert await node.metric("hiroba_markers_said_total") == 300
    assert await node.metric("hiroba_markers_written_total") <= 5
    assert len(told(laptop, "room")) <= 5
    assert await node.metric("hiroba_markers_waiting") == 0


@redis_only
async def test_who_asks_for_nothing_is_told_of_nothing_and_the_first_question_tells_all(
    start: NodeFactory, crowd: Crowd
) -> None:
    """A client that only has the room of its address costs the broker nothing; one that asks hears of that room too."""
    node = await start()
    phone = await come(crowd, node, "ann", "room")
    quiet = await crowd.join(node, "room", headers=by("ann"))
    ids = await said(phone, "room", 3)
    readers = await node.metric("hiroba_readers")
    await read(phone, "room", ids[1])
    laptop = await crowd.join(node, "room", headers=by("ann"))
    await laptop.ask("watch", rooms=["elsewhere"])
    await hears(laptop, "room", ids[1])
    assert quiet.of_type("read") == []
    assert readers == await node.metric("hiroba_readers") == 1
    for client in (phone, laptop):
        await client.leave()

    async def nobody() -> bool:
        return await node.metric("hiroba_readers") == 0

    await until(nobody, "nobody is listened for")


@redis_only
async def test_nobody_has_no_markers_and_may_say_them_all_the_same(
    broker: Broker, start: NodeFactory, crowd: Crowd
) -> None:
    """A connection without a user: nothing is kept, nobody is told, nothing is asked of the broker."""
    node = await start(token_keys="")
    ann, other = await crowd.come(node), await crowd.come(node)
    for client in (ann, other):
        assert await joined(client, "room") == {"room": None}
    (id,) = await said(ann, "room")
    await read(ann, "room", id)
    assert (await ann.ask("ping"))["type"] == "pong"
    assert await joined(ann, "room") == {"room": None}
    assert await node.metric("hiroba_markers_asked_total") == 0 == await node.metric("hiroba_readers")
    async with broker.client() as redis:
        assert [key async for key in redis.scan_iter("*:read:*")] == []
    assert other.of_type("read") == []


BAD: Sequence[tuple[Frame, str]] = (
    ({}, "bad_json"),
    ({"room": "room"}, "bad_json"),
    ({"id": "1-1"}, "bad_json"),
    ({"room": "room", "id": 1}, "bad_json"),
    ({"room": "room", "id": None}, "bad_json"),
    ({"room": "room", "id": "newest"}, "bad_json"),
    ({"room": "room", "id": "1-1 "}, "bad_json"),
    ({"room": "room", "id": "-1-1"}, "bad_json"),
    ({"room": "room", "id": "9" * 19 + "-1"}, "bad_json"),
    ({"room": ["room"], "id": "1-1"}, "bad_json"),
    ({"room": "other", "id": "1-1"}, "not_joined"),
    ({"room": "no room!", "id": "1-1"}, "not_joined"),
    ({"room": "", "id": "1-1"}, "not_joined"),
    ({"room": "room", "id": "9" * 18 + "-1"}, "read"),
    ({"room": "watched", "id": "9" * 18 + "-" + "9" * 18}, "read"),
)


@redis_only
async def test_what_is_no_marker_is_an_error_and_the_connection_stays(
    broker: Broker, start: NodeFactory, crowd: Crowd
) -> None:
    """Told with its ref; what was read stays as it is, and so do room and connection."""
    node = await start()
    ann, other = await come(crowd, node, "ann", "room"), await come(crowd, node, "ann", "room")
    await ann.ask("watch", rooms=["watched"])
    (id,) = await said(ann, "room")
    for fields, code in BAD:
        answer = await ann.ask("read", **fields)
        assert (answer["type"], answer["code"]) == ("error", code), fields
    await read(ann, "room", id, ref="a marker is not answered")
    await hears(other, "room", id)
    assert told(other, "room") == [id]
    assert not [frame for frame in ann.heard if frame.get("ref") == "a marker is not answered"]
    async with broker.client() as redis:
        assert (await kept(redis, "ann")).keys() == {"#", "room"}


@redis_only
async def test_a_user_s_markers_are_bounded_and_the_oldest_go(broker: Broker, start: NodeFactory, crowd: Crowd) -> None:
    """read_rooms_max: a user who reads in ever more rooms costs the broker no more."""
    node = await start(read_rooms_max=3)
    ann = await come(crowd, node, "ann", *"abcde")
    ids = {room: (await said(ann, room))[0] for room in "abcde"}
    async with broker.client() as redis:
        for room in "abcde":
            await read(ann, room, ids[room])
            await until_kept(redis, "ann", room, ids[room])
        assert await kept(redis, "ann") == {"c": ids["c"], "d": ids["d"], "e": ids["e"], "#": "5"}
    assert await joined(await come(crowd, node, "ann"), "a", "e") == {"a": None, "e": ids["e"]}


@redis_only
async def test_what_a_stranger_left_among_markers_goes_before_any(
    broker: Broker, start: NodeFactory, crowd: Crowd
) -> None:
    """And costs no other reader of the same call his."""
    node = await start(read_rooms_max=3)
    ann, bob = await come(crowd, node, "ann", *"abc"), await come(crowd, node, "bob", "a")
    ids = {room: (await said(ann, room))[0] for room in "abc"}
    async with broker.client() as redis:
        for room in "ab":
            await read(ann, room, ids[room])
            await until_kept(redis, "ann", room, ids[room])
        await redis.hset(Keys("hiroba", 0).read("ann"), mapping={"odd": "nonsense", "more": "1-"})
        await asyncio.gather(read(ann, "c", ids["c"]), read(bob, "a", ids["a"]))
        await until_kept(redis, "ann", "c", ids["c"])
        await until_kept(redis, "bob", "a", ids["a"])
        assert (await kept(redis, "ann")).keys() == {"#", *"abc"}
        assert (await ann.ask("ping"))["type"] == "pong" and "error" not in {frame["type"] for frame in ann.heard}


ODD = ["a b", "{7}", "ann\n#", "ann db1", "東京", "%", "x" * 128]


@redis_only
async def test_whatever_a_user_s_id_is_his_markers_are_his(start: NodeFactory, crowd: Crowd) -> None:
    """Ids are the site's: spaces, braces, line breaks and all scripts."""
    node = await start()
    clients = {user: await come(crowd, node, user, "room") for user in ODD}
    for user, client in clients.items():
        (id,) = await said(client, "room")
        await read(client, "room", id)
        other = await come(crowd, node, user, "room")

        async def moved(other: Client = other, id: str = id) -> bool:
            return (await joined(other, "room"))["room"] == id

        await until(moved, user)


@redis_only
@pytest.mark.denied
async def test_a_broker_whose_rules_are_older_denies_markers_and_nothing_else(
    broker: Broker, start: NodeFactory, crowd: Crowd
) -> None:
    """Nodes of this version before `hiroba broker apply`: people come and speak; what is missing is said once."""
    node = await start()
    async with broker.client() as redis:
        await redis.execute_command("ACL", "SETUSER", "gateway", "-hmget", "-hset", "-hget")
        ann = await come(crowd, node, "ann")
        assert await joined(ann, "room") == {"room": None}
        (id,) = await said(ann, "room")
        assert (await ann.ask("read", room="room", id=id))["code"] == "refused"
        assert "read" not in await ann.ask("watch", rooms=["room"])
        denied = [line for line in map(json.loads, node.lines()) if line.get("missing") == "+hmget"]
        assert len(denied) == 1
        await redis.execute_command("ACL", "SETUSER", "gateway", "+hmget", "+hset", "+hget")
        await read(ann, "room", id)
        await until_kept(redis, "ann", "room", id)
