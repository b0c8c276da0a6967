"""Who types: told to the others of the room on all nodes, bounded, never stored, and lost without harm."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.broker.keys import Keys
from gateway.core.entry import decode_bell
from gateway.core.names import RoomName
from tests.conftest import NodeFactory
from tests.node.conftest import redis_only
from tests.support.broker import Broker
from tests.support.client import Client, Crowd, Frame
from tests.support.events import listen
from tests.support.node import Node
from tests.support.proxy import Proxy
from tests.support.raw import frame
from tests.support.tokens import SECRET, by, token
from tests.support.until import until

SETTINGS = {
    "token_keys": f"HS256:{SECRET}",
    "guests": True,
    "messages_per_s": 0,
    "linger_s": 0.2,
    "sweep_s": 1,
    "typing_s": 2,
    "typing_users_max": 3,
}


@pytest.fixture
def start_beside(house: tuple[Broker, Node], tmp_path: Path) -> Callable[..., Awaitable[Node]]:
    """Another node on the broker of the shared one."""

    async def start(url: str = house[0].url, **settings: object) -> Node:
        return await Node(url, tmp_path, "beside", **{**SETTINGS, **settings}).start()

    return start


async def come(crowd: Crowd, node: Node, room: str, user: str | None, **claims: object) -> Client:
    """In the room; None: somebody without a name."""
    headers = None if user is None else {"Authorization": f"Bearer {token(sub=user, **claims)}"}
    return await crowd.join(node, room, headers=headers)


async def types(client: Client, room: str, **fields: object) -> None:
    await client.send(json.dumps({"type": "typing", "room": room, **fields}))


def lists(client: Client) -> list[list[str | None]]:
    """Who types, as it was told again and again: ids, None for who has no name."""
    return [[user and user["id"] for user in frame["users"]] for frame in client.of_type("typing")]


async def hears(client: Client, *users: str | None) -> None:
    await client.until(lambda: lists(client)[-1:] == [list(users)], f"{users} type")


async def heard_in(broker: Broker, room: str, nodes: int = 1) -> None:
    """Waits until so many nodes listen: a room does not wait for that, and what is whispered before is lost."""
    channel = Keys("hiroba", 0).typing(RoomName(room))
    async with broker.client() as client:

        async def listen() -> bool:
            return bool(await client.execute_command("PUBSUB", "SHARDNUMSUB", channel) == [channel, nodes])

        await until(listen, f"{nodes} nodes hear who types in {room}")


async def settled(client: Client) -> None:
    """What it sent before was looked at, and answers that it had are heard."""
    await client.ask("ping")


async def dropped(node: Node, reason: str) -> float:
    return (await node.metrics())[f'hiroba_typing_dropped_total{{reason="{reason}"}}']


async def test_the_others_of_a_room_hear_who_types_on_all_nodes_and_nobody_of_themselves(
    house: tuple[Broker, Node], shared_node: Node, start_beside: Callable[..., Awaitable[Node]], crowd: Crowd
) -> None:
    """Ann's own tabs, on both nodes, hear nothing; nor does who has another wire, or another room, or only watches."""
    here, there = shared_node, await start_beside()
    ann, tab = await come(crowd, here, "lobby", "ann", name="Ann"), await come(crowd, there, "lobby", "ann")
    bob, carl = await come(crowd, here, "lobby", "bob"), await come(crowd, there, "lobby", "carl")
    plain = await crowd.join(here, "lobby", "plain", headers=by("dora"))
    stream = await listen(crowd, here, "lobby")
    elsewhere = await come(crowd, there, "attic", "emil")
    watcher = await crowd.come(there, headers=by("fay"))
    await watcher.ask("watch", rooms=["lobby"])
    await heard_in(house[0], "lobby", nodes=2)
    await types(ann, "lobby")
    for other in (bob, carl):
        await hears(other, "ann")
        assert other.of_type("typing") == [
            {"type": "typing", "room": "lobby", "users": [{"id": "ann", "name": "Ann"}], "for_s": 2.0}
        ]
    await types(carl, "lobby")
    for listener in (ann, tab):  # the first that is not about herself
        await hears(listener, "carl")
        assert lists(listener) == [["carl"]]
    await hears(bob, "ann", "carl")
    for silent in (elsewhere, watcher):
        await settled(silent)
        assert not silent.of_type("typing", "error")
    assert plain.heard == [] and {event.type for event in stream.events} == {"welcome"}


async def test_it_ends_with_what_was_said_or_by_itself(
    house: tuple[Broker, Node], crowd: Crowd, shared_node: Node
) -> None:
    """Who says something types no more, on whatever of his devices; who is silent does not after typing_s."""
    ann, other = await come(crowd, shared_node, "ends", "ann"), await come(crowd, shared_node, "ends", "ann")
    bob, guest = await come(crowd, shared_node, "ends", "bob"), await come(crowd, shared_node, "ends", None)
    await heard_in(house[0], "ends")
    await types(ann, "ends")
    await types(guest, "ends")
    await hears(bob, "ann", None)
    await other.say("from the phone")
    await guest.say("it was me")
    await hears(bob)
    assert [frame["message"] for frame in bob.of_type("message")] == ["from the phone", "it was me"]
    began = time.monotonic()
    await types(guest, "ends")
    await hears(bob, None)
    await hears(ann, None)
    await hears(bob)
    await hears(ann)
    assert time.monotonic() - began > 1.5
    assert not any(None in users for users in lists(guest)), "nor do the nameless hear of themselves"
    await until(lambda: _stirs(shared_node, 0), "the room forgets all about it")


async def _stirs(node: Node, rooms: int) -> bool:
    return await node.metric("hiroba_rooms_typing") == rooms


async def test_who_listens_at_the_bell_hears_nothing_of_it(
    house: tuple[Broker, Node], crowd: Crowd, shared_node: Node
) -> None:
    """A node of a former version, in a rolling upgrade, would take it for nonsense and read the room each time."""
    ann, bob = await come(crowd, shared_node, "upgrade", "ann"), await come(crowd, shared_node, "upgrade", "bob")
    await heard_in(house[0], "upgrade")
    async with house[0].client() as client, client.pubsub() as former:
        await former.ssubscribe(Keys("hiroba", 0).log(RoomName("upgrade")))
        await types(ann, "upgrade")
        await hears(bob, "ann")
        await ann.say("said")
        heard = list[bytes]()
        while not heard:
            message = await former.get_message(ignore_subscribe_messages=True, timeout=1)
            heard += [] if message is None else [message["data"]]
        assert decode_bell(heard[0]) is not None, "its first word is of what was said"


async def test_a_thousand_keys_a_second_are_two_whispers_and_a_frame(
    house: tuple[Broker, Node], crowd: Crowd, shared_node: Node
) -> None:
    """Bounded per user and room, whatever a client does and in how many tabs; nobody is told off for it."""
    tabs = [await come(crowd, shared_node, "keys", "ann") for _ in range(2)]
    bob = await come(crowd, shared_node, "keys", "bob")
    await heard_in(house[0], "keys")
    said, often = await shared_node.metric("hiroba_typing_said_total"), await dropped(shared_node, "often")
    for _ in range(200):
        for tab in tabs:
            await types(tab, "keys", ref="key")
    for tab in tabs:
        await settled(tab)
        assert not tab.of_type("error", "typing")
    await hears(bob, "ann")
    passed = await shared_node.metric("hiroba_typing_said_total") - said
    assert passed + await dropped(shared_node, "often") - often == 400
    assert passed < 20, "two, and one a second on a slow machine"
    assert len(lists(bob)) < 10


async def test_of_a_crowd_so_many_are_told_and_once_a_second(
    house: tuple[Broker, Node], crowd: Crowd, shared_node: Node
) -> None:
    """30 people type at once: listeners know three of them, and the broker hears of few more."""
    people = [await come(crowd, shared_node, "crowd", f"user{n}") for n in range(30)]
    quiet = await come(crowd, shared_node, "crowd", "quiet")
    await heard_in(house[0], "crowd")
    began, said = time.monotonic(), await shared_node.metric("hiroba_typing_said_total")
    for _ in range(5):
        for person in people:
            await types(person, "crowd")
        await asyncio.gather(*map(settled, people))
    await quiet.until(lambda: [users for users in lists(quiet) if len(users) == 3], "three of them")
    first = next(users for users in lists(quiet) if len(users) == 3)
    (one,) = [person for person in people if f"user{people.index(person)}" == first[0]]
    assert all(len(users) <= 3 for users in lists(quiet)) and all(first[0] not in users for users in lists(one))
    assert all(len(lists(person)) <= time.monotonic() - began + 2 for person in (*people, quiet))
    passed = await shared_node.metric("hiroba_typing_said_total") - said
    assert passed <= 30 + 3 * 5, "what is said before the first three are heard, and what these say"
    assert await dropped(shared_node, "crowd") >= 5 * 30 - passed - 15


async def test_who_may_not_write_does_not_type(house: tuple[Broker, Node], crowd: Crowd, shared_node: Node) -> None:
    """Nor does who is not in the room. Each is an error with its ref, and nobody hears of it."""
    reader = await come(crowd, shared_node, "rights", "ann", rooms={"*": "r"})
    bob = await come(crowd, shared_node, "rights", "bob")

    async def refused(room: str) -> Frame:
        answer = await reader.ask("typing", room=room)
        return {key: answer[key] for key in ("type", "code", "room")}

    assert await refused("rights") == {"type": "error", "code": "forbidden", "room": "rights"}
    assert await refused("elsewhere") == {"type": "error", "code": "not_joined", "room": "elsewhere"}
    assert (await reader.ask("typing"))["code"] == "bad_json"
    await heard_in(house[0], "rights")
    await types(bob, "rights")
    await hears(reader, "bob")
    assert not lists(bob)


@redis_only
async def test_typing_is_lost_while_the_broker_is_away_and_works_again_behind_it(
    broker: Broker, start_node: NodeFactory, crowd: Crowd
) -> None:
    node = await start_node(**{**SETTINGS, "typing_s": 0.5, "probe_s": 1})
    ann, bob = await come(crowd, node, "away", "ann"), await come(crowd, node, "away", "bob")
    await broker.kill()
    await until(lambda: _drops(ann, node), "what is said is dropped")
    assert not ann.of_type("error", "typing")
    await broker.start()

    async def heard() -> bool:
        await types(ann, "away")
        return lists(bob)[-1:] == [["ann"]]

    await until(heard, "it is heard again")


async def _drops(client: Client, node: Node) -> bool:
    await types(client, "away")
    await settled(client)
    return await dropped(node, "broker") > 0


async def test_what_a_silent_broker_has_not_answered_is_bounded(
    house: tuple[Broker, Node], start_beside: Callable[..., Awaitable[Node]], crowd: Crowd
) -> None:
    """Of what is said meanwhile whispers_max are on their way, the rest is dropped; nobody waits and nobody is told."""
    async with Proxy(house[0].port) as road:
        url = house[0].url.replace(str(house[0].port), str(road.port))
        node = await start_beside(url, whispers_max=2, probe_s=30, typing_s=20)
        people = [await come(crowd, node, "silent", f"user{n}") for n in range(3)]
        quiet = await come(crowd, node, "silent", "quiet")
        await heard_in(house[0], "silent")
        road.freeze("up")
        for person in people:
            await types(person, "silent")
            await settled(person)
            assert not person.of_type("error", "typing")
        assert await dropped(node, "broker") == 1
        road.thaw()
        await hears(quiet, "user0", "user1")
        await types(people[2], "silent")
        await hears(quiet, "user0", "user1", "user2")


async def test_who_reads_slowly_is_not_told_and_holds_nobody_up(
    start_beside: Callable[..., Awaitable[Node]], crowd: Crowd
) -> None:
    """A socket is not filled beyond its bound with what is worth nothing later."""
    node = await start_beside(message_bytes_max=4096, outgoing_bytes_max=4096, typing_s=0.5)
    ann, bob = await come(crowd, node, "slow", "ann"), await come(crowd, node, "slow", "bob")
    slow = await crowd.connect(node, receive_bytes=4096)
    await slow.enter("slow", v1=True)
    slow.transport.pause_reading()
    asked = json.dumps({"type": "watch", "rooms": [f"{'long' * 20}{at}" for at in range(20)]}).encode()
    slow.write(frame(asked) * 60)  # answers that fill whatever lies between

    async def not_told() -> bool:
        await types(ann, "slow")
        return await dropped(node, "slow") >= 1

    await until(not_told, "it is not told", every_s=0.1)
    assert ["ann"] in lists(bob)


async def test_what_strangers_whisper_is_held_against_what_a_user_is(
    house: tuple[Broker, Node], start_beside: Callable[..., Awaitable[Node]], crowd: Crowd
) -> None:
    """Whoever may publish on the broker can say that somebody types; no more than that. A newer node may say more."""
    node = await start_beside()
    bob = await come(crowd, node, "strange", "bob")
    channel = Keys("hiroba", 0).typing(RoomName("strange"))
    await heard_in(house[0], "strange")
    bad = [b"", b"\xff", b"[]", b"{}", b'{"session":"","user":null}', b'{"session":"s","user":{"id":"","name":"x"}}']
    async with house[0].client() as client:
        for told in bad:
            await client.execute_command("SPUBLISH", channel, told)
        newer = {"session": "s", "user": {"id": "zoe", "name": "Zoe", "info": 1}, "since": 7}
        await client.execute_command("SPUBLISH", channel, json.dumps(newer))
    await hears(bob, "zoe")
    assert bob.of_type("typing")[-1]["users"] == [{"id": "zoe", "name": "Zoe"}]
    metrics = await node.metrics()
    assert metrics['hiroba_broker_nonsense_total{what="whisper"}'] == len(bad)
    assert metrics['hiroba_broker_nonsense_total{what="bell"}'] == 0


async def test_a_node_listens_only_where_somebody_could_hear(
    house: tuple[Broker, Node], shared_node: Node, start_beside: Callable[..., Awaitable[Node]], crowd: Crowd
) -> None:
    """One channel for a room while somebody of v1 is in it; none for plain, for watching, or where nobody wants it."""
    off = await start_beside(typing_users_max=0)
    ann = await come(crowd, shared_node, "heard", "ann")
    bob = await come(crowd, off, "heard", "bob")
    await crowd.join(shared_node, "plain", "plain")
    watcher = await crowd.come(shared_node)
    await watcher.ask("watch", rooms=["watched"])
    async with house[0].client() as client:

        async def channels() -> list[bytes]:
            found = await client.execute_command("PUBSUB", "SHARDCHANNELS", "*:typing:*")
            return [bytes(one).rpartition(b":")[2] for one in found]

        async def only(*wanted: bytes) -> bool:
            return await channels() == list(wanted)

        await until(lambda: only(b"heard"), "one channel")
        await heard_in(house[0], "heard", nodes=1)
        await types(bob, "heard")
        await settled(bob)
        assert await dropped(off, "crowd") == 1
        await ann.leave()
        await until(only, "none")
