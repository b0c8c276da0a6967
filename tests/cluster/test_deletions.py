"""A message that is deleted is nowhere any more, and everybody sees that it is: who has it, who comes back, who pages
back, whoever reads by whatever wire, on every node. Its place among the counts stays."""

import json
from urllib.parse import quote

from gateway.broker.keys import Keys
from gateway.core.entry import parse_id
from gateway.core.names import RoomName
from tests.cluster.conftest import Stage, redis_only
from tests.cluster.test_control_log import back, cut_off
from tests.cluster.test_which_history import replicate
from tests.conftest import BrokerFactory, NodeFactory
from tests.support.api import ask as api
from tests.support.broker import Broker
from tests.support.client import Client, Crowd, Frame
from tests.support.deletions import deletions
from tests.support.durable import ask
from tests.support.events import listen
from tests.support.proxy import Proxy
from tests.support.until import until

KEYS = Keys("hiroba", 0)


async def say(client: Client, *messages: object) -> list[str]:
    """Their ids."""
    ids = []
    for message in messages:
        await client.say(message, ref=f"said {message}")
        ids.append((await client.answer(f"said {message}"))["id"])
    return ids


async def say_in(client: Client, room: str, *messages: object) -> list[str]:
    """The same, of a client that is in several rooms."""
    answers = await client.ask_all([{"type": "message", "room": room, "message": message} for message in messages])
    return [answer["id"] for answer in answers]


async def delete(broker: Broker, room: str, *ids: str) -> int:
    async with deletions(broker) as hand:
        return (await hand.delete(RoomName(room), list(map(parse_id, ids)), "eve")).entries


async def told(client: Client, *ids: str) -> None:
    """Waits until it heard that exactly these are deleted."""
    await client.until(lambda: len(client.of_type("deleted")) >= len(ids), f"{ids} are deleted")
    assert [frame["id"] for frame in client.of_type("deleted")] == list(ids)


def tombstone(id: str) -> Frame:
    return {"id": id, "from": "", "user": None, "message": None, "at": int(id.split("-")[0]), "deleted": True}


async def text_in(broker: Broker, room: str, text: bytes) -> bool:
    async with broker.client() as client:
        return any(text in b" ".join(fields.values()) for _, fields in await client.xrange(KEYS.log(RoomName(room))))


async def test_everybody_sees_it_who_was_there_and_who_comes(stage: Stage, crowd: Crowd, room: str) -> None:
    """Live on both nodes, by paging back, by resuming from before it and from behind it, by joining with history, as
    events, as a Durable Stream; `plain` has no word for it and is shown nothing. Nobody is told a gap."""
    near, far = stage.nodes
    ann, bob = await crowd.join(near, room), await crowd.join(far, room)
    plain = await crowd.join(far, room, "plain")
    events = await listen(crowd, near, room)
    ids = await say(ann, "one", "secret", "three")
    for client in (ann, bob, plain):
        await client.hears("one", "secret", "three")
    known = {"If-None-Match": (await ask(crowd, near, room, offset="-1")).headers["ETag"]}
    assert (await ask(crowd, near, room, headers=known, offset="-1")).status == 304
    assert await delete(stage.broker, room, ids[1]) == 1
    assert not await text_in(stage.broker, room, b"secret")
    for client in (ann, bob):
        await told(client, ids[1])
        assert client.of_type("deleted") == [{"type": "deleted", "room": room, "id": ids[1]}]
    await until(lambda: events.of_type("deleted"), "the event")
    assert (events.events[-1].data["id"], events.events[-1].id) == (ids[1], ids[2]), "it comes back behind the newest"

    for node in stage.nodes:
        page = await (await crowd.join(node, room)).ask("history", room=room, limit=10)
        assert page["entries"][1] == tombstone(ids[1]) and page["gaps"] == []
        late = await crowd.join(node, room, history=10)
        await late.hears("one", "three")
        await told(late, ids[1])
        before, behind = await crowd.join(node, room, after=ids[0]), await crowd.join(node, room, after=ids[2])
        await before.hears("three")
        await told(before, ids[1])
        await told(behind, ids[1])
        listener = await listen(crowd, node, room, history=10)
        await until(lambda: "three" in listener.messages, "all of it")  # noqa: B023
        assert [event.type for event in listener.events] == ["welcome", "message", "deleted", "message"]
        assert [event.id for event in listener.events[1:]] == ids
        mute = await crowd.join(node, room, "plain", history=10)
        await mute.hears("one", "three")
        answer = await ask(crowd, node, room, offset="-1")
        assert (await ask(crowd, node, room, headers=known, offset="-1")).status == 200, "a cache learns of it"
        assert answer.messages == ["one", "three"] and "Stream-Lost" not in answer.headers
    await say(bob, "four")
    await plain.hears("one", "secret", "three", "four")
    for client in (ann, bob, late, before, behind, plain, mute):
        assert client.close_code is None
        if client.ws.protocol:
            assert not client.of_type("gap")


async def test_asked_again_it_is_the_same_and_what_was_never_there_is_missing(
    stage: Stage, crowd: Crowd, room: str
) -> None:
    ann = await crowd.join(stage.nodes[0], room)
    ids = await say(ann, "one", "two")
    async with deletions(stage.broker) as hand:
        once = await hand.delete(RoomName(room), [parse_id(ids[0]), parse_id("1-1")])
        again = await hand.delete(RoomName(room), [parse_id(ids[0])])
        nowhere = await hand.delete(RoomName(f"{room}_empty"), [parse_id(ids[0])])
    assert (once.entries, once.missing) == (1, [parse_id("1-1")])
    assert (again.entries, again.missing) == (0, [])
    assert (nowhere.entries, nowhere.missing) == (0, [parse_id(ids[0])])
    await told(ann, ids[0], ids[0])
    (three,) = await say(ann, "three")
    assert three.endswith("-3"), "the counts go on"


async def test_an_emptied_room_has_its_places_and_no_words(stage: Stage, crowd: Crowd, room: str) -> None:
    near, far = stage.nodes
    ann, bob = await crowd.join(near, room), await crowd.join(far, room, "plain")
    ids = await say(ann, *range(5))
    async with deletions(stage.broker) as hand:
        assert (await hand.empty(RoomName(room))).entries == 5
    await ann.until(lambda: ann.of_type("deleted"), "that it is empty")
    assert ann.of_type("deleted") == [{"type": "deleted", "room": room, "up_to": ids[-1]}]
    await say(ann, "five")
    await bob.hears(*range(5), "five")
    late = await crowd.join(far, room, history=10)
    await late.hears("five")
    assert not late.of_type("gap")


async def test_all_that_a_user_said_in_a_room_goes_and_nothing_else(stage: Stage, room: str) -> None:
    """By his id, which may be the beginning of another's, in as many pages as it takes."""
    async with stage.broker.client() as client:
        log = KEYS.log(RoomName(room))
        for n in range(1, 2_501):
            user = b'{"id":"ann","name":"A"}' if n % 5 == 0 else b'{"id":"anna","name":"ann"}'
            fields = {"v": "2", "b": f"{n}.1", "f": "s", "u": user, "m": b'"ann %d"' % n}
            await client.xadd(log, fields, id=f"1000-{n}")  # type: ignore[arg-type]
        async with deletions(stage.broker) as hand:
            deleted = await hand.erase(RoomName(room), "ann")
        assert deleted.entries == 500
        held = await client.xrange(log)
    assert [id for id, _ in held] == [b"1000-%d" % n for n in range(1, 2_501)], "each has its place"
    assert all((fields[b"v"] == b"3") == (n % 5 == 0) for n, (_, fields) in enumerate(held, 1))
    assert not any(b'"ann"' in fields[b"u"] and b"anna" not in fields[b"u"] for _, fields in held)


async def test_groups_and_the_expiry_stand_where_they_stood(stage: Stage, crowd: Crowd, room: str) -> None:
    """The log is written anew. A group that was lost or put back would cost others their messages, or give them twice;
    nodes would have to heal it."""
    near, _ = stage.nodes
    ann = await crowd.join(near, room)
    ids = await say(ann, "one", "two", "three")
    log = KEYS.log(RoomName(room))
    async with stage.broker.client() as client:
        await client.xgroup_create(log, "worker", ids[1])
        before = {group["name"]: group["last-delivered-id"] for group in await client.xinfo_groups(log)}
        assert len(before) >= 2
        await delete(stage.broker, room, ids[0], ids[2])
        assert {group["name"]: group["last-delivered-id"] for group in await client.xinfo_groups(log)} == before
        assert await client.ttl(log) > 60
    await say(ann, "four")
    await ann.hears("one", "two", "three", "four")
    assert await stage.grown(near, "hiroba_groups_healed_total") == 0
    assert await stage.grown(near, "hiroba_logs_rewound_total") == 0


@redis_only
async def test_a_node_that_was_cut_off_hears_it_when_it_is_back(
    lasting_node: NodeFactory, quick_node: NodeFactory, broker: Broker, proxy: Proxy, crowd: Crowd
) -> None:
    """And those who stayed connected to it; its memory of the room has the text no more."""
    near, far = await quick_node(), await lasting_node(sweep_s=60)
    ann, bob = await crowd.join(near, "lobby"), await crowd.join(far, "lobby")
    ids = await say(ann, "one", "secret", "three")
    await bob.hears("one", "secret", "three")
    await cut_off(far, proxy)
    await delete(broker, "lobby", ids[1])
    await told(ann, ids[1])
    await back(far, proxy)
    await told(bob, ids[1])
    late = await crowd.join(far, "lobby", history=3)
    await late.hears("one", "three")


@redis_only
async def test_a_node_that_fell_off_the_control_log_asks_the_rooms_logs(
    lasting_node: NodeFactory, quick_node: NodeFactory, broker: Broker, proxy: Proxy, crowd: Crowd
) -> None:
    """Nothing says to it any more what was deleted, but the tombstones."""
    near, far = await quick_node(), await lasting_node(sweep_s=60)
    ann, bob = await crowd.join(near, "lobby"), await crowd.join(far, "lobby")
    ids = await say(ann, "one", "secret", "three")
    others = await say(await crowd.join(near, "den"), "hidden", "word")
    await bob.hears("one", "secret", "three")
    await cut_off(far, proxy)
    await delete(broker, "lobby", ids[1])
    await delete(broker, "den", *others)
    async with broker.client() as client:
        await client.xtrim(KEYS.orders, maxlen=1, approximate=False)
    await back(far, proxy)
    await told(bob, ids[1])
    assert await far.metric("hiroba_deletions_missed_total") == 1
    late = await crowd.join(far, "lobby", history=3)
    await late.hears("one", "three")


@redis_only
async def test_a_node_that_starts_later_tells_who_comes_back_to_it(
    quick_node: NodeFactory, broker: Broker, crowd: Crowd
) -> None:
    near = await quick_node()
    ann = await crowd.join(near, "lobby")
    ids = await say(ann, "one", "two")
    await delete(broker, "lobby", ids[0])
    await told(ann, ids[0])
    later = await quick_node()
    back_again = await crowd.join(later, "lobby", after=ids[1])
    await told(back_again, ids[0])
    assert (await back_again.welcome())["recovered"] is True


@redis_only
async def test_a_new_master_that_did_not_hear_of_it_is_told_again(
    far_node: NodeFactory, start_broker: BrokerFactory, broker: Broker, proxy: Proxy, crowd: Crowd
) -> None:
    """A failover to a replica that lacks the last writes would bring the text back, for good."""
    replica = await start_broker()
    node = await far_node()
    ann = await crowd.join(node, "lobby")
    ids = await say(ann, "one", "secret", "three")
    await replicate(replica, broker)
    async with replica.client() as client:
        await client.replicaof("NO", "ONE")  # from here on it hears no more
    assert await text_in(replica, "lobby", b"secret")
    await delete(broker, "lobby", ids[1])
    await told(ann, ids[1])
    proxy.lead_to(replica.port)
    await broker.process.kill()

    async def gone() -> bool:
        return not await text_in(replica, "lobby", b"secret")

    await until(gone, "it is deleted there too")

    async def counted() -> bool:
        return await node.metric("hiroba_deleted_again_total") == 1

    await until(counted, "and counted")


async def test_trimming_goes_on_over_tombstones(
    start_broker: BrokerFactory, start_node: NodeFactory, crowd: Crowd
) -> None:
    """They have the running bytes of what they were, and go with age and number as all do."""
    broker = await start_broker()
    node = await start_node(
        broker_url=broker.url, messages_per_s=0, retention_s=1, retention_entries_min=0, retention_entries_max=100
    )
    ann = await crowd.join(node, "lobby")
    for n in range(150):
        await ann.say(n)
    await ann.hears(*range(150))
    async with deletions(broker) as hand:
        held = (await hand.empty(RoomName("lobby"))).entries
    assert held <= 150
    for n in range(150, 500):
        await ann.say(n)
    await ann.hears(*range(500))
    async with broker.client() as client:
        left = await client.xrange(KEYS.log(RoomName("lobby")))
    assert len(left) <= 300 and not any(fields[b"v"] == b"3" for _, fields in left)


async def test_an_operator_deletes_by_the_api_and_each_deed_has_its_line(stage: Stage, crowd: Crowd, room: str) -> None:
    near, far = stage.nodes
    ann, bob = await crowd.join(near, room), await crowd.join(far, room)
    ids = await say(ann, "one", "secret", "three")
    lines = len(near.lines())
    there = f"/rooms/{room}/messages"
    for deleted in (1, 0):
        answer = await api(near, "DELETE", f"{there}/{ids[1]}")
        assert (answer.status, answer.said) == (200, {"room": room, "deleted": deleted})
    for client in (ann, bob):
        await told(client, ids[1], ids[1])
    assert (await api(near, "DELETE", f"{there}/1-1")).said["code"] == "no_message"
    assert (await api(near, "DELETE", f"{there}/nonsense")).status == 400
    page = (await api(far, "GET", f"/history?room={room}")).said["entries"]
    assert [entry["deleted"] for entry in page] == [False, True, False] and page[1]["message"] is None
    assert (await api(near, "DELETE", there)).said == {"room": room, "deleted": 2}
    assert (await api(near, "DELETE", f"/rooms/{room}_nobody/messages")).status == 404
    audit = [json.loads(line) for line in near.lines()[lines:] if '"operation": ' in line]
    assert [(line["operation"], line["status"], line.get("message")) for line in audit] == [
        ("delete_message", 200, ids[1]),
        ("delete_message", 200, ids[1]),
        ("delete_message", 404, "1-1"),
        ("delete_message", 400, None),
        ("empty_room", 200, None),
        ("empty_room", 404, None),
    ]
    assert all(line["key"] == "this machine" for line in audit) and audit[0]["deleted"] == 1


async def test_a_deleted_room_puts_all_out_and_begins_anew(stage: Stage, crowd: Crowd, room: str) -> None:
    """On both nodes; a connection of many rooms keeps the others. It leaves the index, and its counts begin with 1."""
    near, far = stage.nodes
    ann, plain = await crowd.join(near, room), await crowd.join(far, room, "plain")
    await ann.ask("join", room=f"{room}_other")
    await say_in(ann, room, "one", "two")
    await plain.hears("one", "two")
    assert (await api(near, "DELETE", f"/rooms/{room}")).said == {"room": room, "deleted": 2}
    await ann.until(lambda: ann.of_type("left"), "that it is over")
    assert ann.of_type("left") == [{"type": "left", "room": room, "reason": "deleted"}]
    assert await plain.closed() == (4004, "this room was deleted")
    assert (await api(near, "GET", f"/rooms/{room}")).status == 404
    assert (await api(near, "DELETE", f"/rooms/{room}")).status == 404
    joined = await ann.ask("join", room=room, history=10)
    assert joined["type"] == "joined"
    late = await crowd.join(far, room, "plain", history=10)
    (first,) = await say_in(ann, room, "new")
    assert first.endswith("-1")
    await late.hears("new")
    assert not ann.of_type("gap")


async def test_all_that_a_user_said_anywhere_goes_in_the_background(stage: Stage, crowd: Crowd, room: str) -> None:
    """And how far it is any node says."""
    near, far = stage.nodes
    user = {"id": f"ann {room}", "name": "Ann"}
    for name in (room, f"{room}_b", f"{room}_c"):
        for who in (user, {"id": "bob", "name": "Bob"}):
            said = {"room": name, "message": "words", "user": who}
            assert (await api(near, "POST", "/publish", said)).status == 200
    path = f"/users/{quote(user['id'])}/messages"
    assert (await api(far, "GET", path)).said["state"] == "none"
    lines = len(near.lines())
    assert (await api(near, "DELETE", path)).said["state"] == "running"

    async def done() -> bool:
        return bool((await api(far, "GET", path)).said["state"] == "done")

    await until(done, "it is done")
    assert (await api(far, "GET", path)).said["deleted"] == 3
    for name in (room, f"{room}_c"):
        entries = (await api(far, "GET", f"/history?room={name}")).said["entries"]
        assert [(entry["deleted"], entry["user"] and entry["user"]["id"]) for entry in entries] == [
            (True, None),
            (False, "bob"),
        ]
    (line,) = [json.loads(line) for line in near.lines()[lines:] if '"operation": "erased"' in line]
    assert (line["state"], line["user"], line["deleted"]) == ("done", user["id"], 3)
