"""Watching: how far rooms grew, without what was said in them. Each top against the log's own last id."""

import json
import time

from tests.conftest import NodeFactory
from tests.node.conftest import redis_only
from tests.support.broker import Broker
from tests.support.client import Client, Crowd
from tests.support.node import Node
from tests.support.raw import frame
from tests.support.until import until

SETTINGS = {"messages_per_s": 0, "linger_s": 0.2, "sweep_s": 1, "watches_per_connection_max": 40, "probe_s": 2}


def tops(client: Client) -> dict[str, str]:
    """What it knows now, of all that it was told."""
    return {room: id for frame in client.of_type("tops") for room, id in frame["rooms"].items()}


async def told(client: Client, room: str, id: str) -> None:
    await client.until(lambda: tops(client).get(room) == id, f"{room} at {id}")


async def say(client: Client, *messages: object) -> str:
    """The id of the last one."""
    for message in messages:
        answer = await client.ask("message", message=message)
    id: str = answer["id"]
    return id


async def test_who_watches_hears_how_far_rooms_are_and_grow(crowd: Crowd, shared_node: Node) -> None:
    """At once what is, later what has grown, and nothing that was said."""
    ann, bob = await crowd.come(shared_node), await crowd.join(shared_node, "grows")
    first = await say(bob, 1, 2)
    answer = await ann.ask("watch", rooms=["grows", "silent", "grows"])
    assert answer == {"type": "tops", "rooms": {"grows": first, "silent": "0-0"}, "ref": answer["ref"]}
    last = await say(bob, 3)
    await told(ann, "grows", last)
    assert ann.heard[-1] == {"type": "tops", "rooms": {"grows": last}}
    assert int(last.partition("-")[2]) - int(first.partition("-")[2]) == 1, "unread is a subtraction"
    assert ann.of_type("message") == []
    again = await ann.ask("watch", rooms=["grows"])
    assert again["rooms"] == {"grows": last}


async def test_a_node_that_only_watches_reads_nothing(broker: Broker, start_node: NodeFactory, crowd: Crowd) -> None:
    """It hears bells: no group on the log, no tail, no room open. Said on one node, watched on another."""
    here, there = await start_node(**SETTINGS), await start_node(**SETTINGS)
    ann, bob = await crowd.come(here), await crowd.join(there, "far")
    assert (await ann.ask("watch", rooms=["far", "part"]))["rooms"] == {"far": "0-0", "part": "0-0"}
    for at in range(3):
        await told(ann, "far", await say(bob, at))
    assert await here.metric("hiroba_rooms") == 0
    assert await here.metric("hiroba_rooms_watched") == 2
    assert await here.metric("hiroba_tails_bytes") == 0
    async with broker.client() as client:
        (log,) = [key async for key in client.scan_iter("hiroba:*:log:far")]
        assert len(await client.xinfo_groups(log)) == 1, "that of the node where somebody is"


async def test_tops_come_once_a_second_whatever_is_said(crowd: Crowd, shared_node: Node) -> None:
    """A thousand messages in two rooms are a frame a second, which has the rooms' last ids."""
    ann, bob = await crowd.come(shared_node), await crowd.come(shared_node)
    rooms = ["loud1", "loud2"]
    await ann.ask("watch", rooms=rooms)
    await bob.ask_all([{"type": "join", "room": room} for room in rooms])
    began, ids = time.monotonic(), dict[str, str]()
    while time.monotonic() < began + 2.2:
        answers = await bob.ask_all([{"type": "message", "room": room, "message": 1} for room in rooms * 20])
        ids |= {answer["room"]: answer["id"] for answer in answers}
    for room in rooms:
        await told(ann, room, ids[room])
    frames = len(ann.of_type("tops")) - 1
    assert 1 <= frames <= time.monotonic() - began + 1
    assert all(frame["rooms"].keys() <= set(rooms) for frame in ann.of_type("tops"))


async def test_who_watches_no_more_hears_no_more(crowd: Crowd, shared_node: Node) -> None:
    """Of that room; and the node forgets it when nobody watches it."""
    ann, bob = await crowd.come(shared_node), await crowd.come(shared_node)
    await bob.ask_all([{"type": "join", "room": room} for room in ("kept", "dropped")])
    await ann.ask("watch", rooms=["kept", "dropped"])
    watched = await shared_node.metric("hiroba_rooms_watched")
    await ann.send('{"type": "unwatch", "rooms": ["dropped", "never watched"]}')
    answer = await ann.ask("unwatch", rooms=["dropped"])
    assert answer == {"type": "tops", "rooms": {}, "ref": answer["ref"]}
    answers = await bob.ask_all([{"type": "message", "room": room, "message": 1} for room in ("dropped", "kept")])
    await told(ann, "kept", answers[1]["id"])
    assert tops(ann)["dropped"] == "0-0"
    await _fewer(shared_node, watched, 1)
    await ann.leave()
    await _fewer(shared_node, watched, 2)


async def _fewer(node: Node, watched: float, by: int) -> None:
    async def fewer() -> bool:
        return await node.metric("hiroba_rooms_watched") <= watched - by

    await until(fewer, f"{by} rooms less are watched")


async def test_a_room_that_is_joined_and_watched_loses_neither_when_the_other_ends(
    crowd: Crowd, shared_node: Node
) -> None:
    """They share the doorbell: whoever goes leaves it to the other. Bells are all there is, but for a slow sweep."""
    ann, bob = await crowd.come(shared_node), await crowd.come(shared_node)
    await bob.ask("join", room="both")
    await ann.ask("watch", rooms=["both"])
    await told(ann, "both", await say(bob, 1))
    await ann.ask("unwatch", rooms=["both"])
    await until(lambda: _unwatched(shared_node), "it is watched no more")
    assert await say(bob, 2)
    await bob.hears(1, 2)
    await ann.ask("watch", rooms=["both"])
    await bob.ask("leave", room="both")
    carl = await crowd.join(shared_node, "both")
    await told(ann, "both", await say(carl, 3))
    await carl.hears(3)


async def _unwatched(node: Node) -> bool:
    return await node.metric("hiroba_watchers") == 0 == await node.metric("hiroba_rooms_watched")


async def test_what_cannot_be_watched_is_an_error_and_the_rest_stands(crowd: Crowd, shared_node: Node) -> None:
    """A wrong name in a list, too many rooms, no list: the connection stays, and so does what it watches."""
    ann = await crowd.come(shared_node)
    answer = await ann.ask("watch", rooms=["good", "no room!", "", "か\u3099く"])
    assert (answer["type"], answer["code"]) == ("error", "room_name")
    assert tops(ann) == {"good": "0-0", "がく": "0-0"}, "the good ones, under their own names"
    await ann.ask("watch", rooms=[f"more{at}" for at in range(37)])
    full = await ann.ask("watch", rooms=["good", "one_more", "two_more", "three_more"])
    assert (full["type"], full["code"], full["room"]) == ("error", "too_many_rooms", "two_more")
    assert (await ann.ask("watch", rooms=[f"r{at}" for at in range(41)]))["code"] == "too_many_rooms"
    for asked in ({}, {"rooms": "good"}, {"rooms": [1]}, {"rooms": None}):
        assert (await ann.ask("watch", **asked))["code"] == "bad_json", asked
    assert (await ann.ask("unwatch", rooms=["no room!"]))["code"] == "room_name"
    assert len(tops(ann)) == 40
    bob = await crowd.join(shared_node, "good")
    await told(ann, "good", await say(bob, 1))


async def test_a_full_node_watches_no_more_rooms(start_node: NodeFactory, crowd: Crowd) -> None:
    """Those that nobody watches make space at once."""
    node = await start_node(**{**SETTINGS, "linger_s": 60, "watched_rooms_max": 3})
    ann = await crowd.come(node)
    answer = await ann.ask("watch", rooms=["a", "b", "c", "d"])
    assert (answer["type"], answer["code"], answer["room"]) == ("error", "busy", "d")
    assert tops(ann) == {"a": "0-0", "b": "0-0", "c": "0-0"}
    await ann.ask("unwatch", rooms=["b"])
    assert (await ann.ask("watch", rooms=["d"]))["rooms"] == {"d": "0-0"}
    assert await node.metric("hiroba_rooms_watched") == 3


@redis_only
async def test_tops_say_what_is_after_a_flush_and_whoever_rings(
    broker: Broker, start_node: NodeFactory, crowd: Crowd
) -> None:
    """A log that is gone is at 0-0; a stranger's bell is believed for a sweep at most, and nonsense is counted."""
    node, far = await start_node(**SETTINGS), await start_node(**SETTINGS)
    ann, bob = await crowd.come(node), await crowd.join(far, "gone")
    await ann.ask("watch", rooms=["gone"])
    await told(ann, "gone", last := await say(bob, 1, 2, 3))
    async with broker.client() as client:
        (log,) = [key async for key in client.scan_iter("hiroba:*:log:gone")]

        async def believed() -> bool:
            assert await client.execute_command("SPUBLISH", log, "99999999999999-7") == 2
            return tops(ann)["gone"] == "99999999999999-7"

        await until(believed, "a stranger is believed")
        await told(ann, "gone", last)
        for nonsense in ("what?", "1-", "5"):
            await client.execute_command("SPUBLISH", log, nonsense)
        await until(lambda: _nonsense(node), "nonsense is counted")
        await client.flushall()
        await told(ann, "gone", "0-0")
        await told(ann, "gone", await say(bob, 4))
        assert tops(ann)["gone"].endswith("-1")
        await client.delete(log)
        await client.set(log, "no stream")
        await told(ann, "gone", "0-0")


async def _nonsense(node: Node) -> bool:
    return await node.metric("hiroba_broker_nonsense_total", what="bell") == 3


async def test_who_reads_slowly_is_told_later_what_is_then(start_node: NodeFactory, crowd: Crowd) -> None:
    """Its socket is not filled beyond the bound, and once it reads nothing is missing."""
    node = await start_node(**SETTINGS, message_bytes_max=4096, outgoing_bytes_max=4096)
    rooms = [f"{'long' * 20}{at}" for at in range(40)]
    bob = await crowd.come(node)
    await bob.ask_all([{"type": "join", "room": room} for room in rooms])
    slow = await crowd.connect(node, receive_bytes=4096)
    await slow.enter("lobby", v1=True)
    slow.transport.pause_reading()
    asked = [json.dumps({"type": "watch", "rooms": rooms[at : at + 20]}).encode() for at in (0, 20)]
    slow.write(b"".join(map(frame, asked * 30)))  # answers that fill whatever lies between
    ids = dict[str, str]()

    async def put_off() -> bool:
        answers = await bob.ask_all([{"type": "message", "room": room, "message": 1} for room in rooms])
        ids.update((answer["room"], answer["id"]) for answer in answers)
        return await node.metric("hiroba_tops_put_off_total") >= 2

    await until(put_off, "its tops are put off")
    slow.transport.resume_reading()

    def known() -> dict[str, str]:
        frames = [json.loads(payload) for payload in slow.payloads()]
        return {room: id for frame in frames if frame["type"] == "tops" for room, id in frame["rooms"].items()}

    await until(lambda: known() == ids, "it knows how far all rooms are")
