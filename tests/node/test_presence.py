"""Who is here: the users in a room, whatever nodes and however many tabs they are in it by."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.auth.guests import Guests
from gateway.broker.keys import Keys
from gateway.core.names import room_name
from gateway.core.rights import Rights
from tests.conftest import NodeFactory
from tests.node.conftest import redis_only
from tests.support.broker import Broker
from tests.support.client import Crowd, Frame
from tests.support.node import Node
from tests.support.onlooker import Onlooker, come, look
from tests.support.raw import frame
from tests.support.tokens import SECRET, by, token
from tests.support.until import until

# Long enough that no node is late with a heartbeat on a busy machine; the tests that wait for it have less.
SETTINGS = {"messages_per_s": 0, "probe_s": 2, "token_keys": f"HS256:{SECRET}", "presence_grace_s": 10}


@pytest.fixture
async def start(start_node: NodeFactory) -> Callable[..., Awaitable[Node]]:
    async def started(**settings: object) -> Node:
        return await start_node(**{**SETTINGS, **settings})

    return started


async def test_people_on_two_nodes_see_each_other_come_and_go(broker: Broker, start: NodeFactory, crowd: Crowd) -> None:
    """Who asks is given the list with its answer, itself in it, and hears who comes and goes; who never asked is listed
    all the same, whatever wire they are on."""
    here, there = await start(presence_grace_s=1), await start(presence_grace_s=1)
    silent = await come(crowd, there, "carl")
    ann = await look(crowd, here, "ann")
    assert [member["id"] for member in ann.joined["members"]] == ["ann"] and ann.joined["count"] == 1
    assert ann.joined["members"][0] == {"id": "ann", "name": "ann", "guest": False}
    await ann.sees("ann", "carl")
    bob = await look(crowd, there, "bob")
    await bob.sees("ann", "bob", "carl")
    await ann.sees("ann", "bob", "carl")
    plain = await crowd.join(there, "room", "plain", headers=by("dora"))
    for onlooker in (ann, bob):
        await onlooker.sees("ann", "bob", "carl", "dora")
    await silent.leave()
    await bob.client.ask("leave", room="room")
    await ann.sees("ann", "dora")
    await plain.leave()
    await ann.sees("ann")
    assert sorted(ann.left) == ["bob", "carl", "dora"]
    assert not silent.of_type("members")


@redis_only
async def test_two_tabs_are_one_member_and_a_reload_is_no_leave(
    broker: Broker, start: NodeFactory, crowd: Crowd
) -> None:
    """On whatever node, and in whatever order they go. Who is gone for presence_grace_s has left."""
    here, there = await start(presence_grace_s=2), await start(presence_grace_s=2)
    ann = await look(crowd, here, "ann")
    tab, other = await come(crowd, here, "bob"), await come(crowd, there, "bob")
    await ann.sees("ann", "bob")
    await tab.leave()
    await come(crowd, here, "carl")
    await other.leave()
    back = await come(crowd, here, "bob")
    await ann.sees("ann", "bob", "carl")
    await back.ask("leave", room="room")
    again = await look(crowd, there, "bob")
    await again.sees("ann", "bob", "carl")
    await again.client.leave()
    await ann.sees("ann", "carl")
    assert ann.left == ["bob"]


@redis_only
async def test_a_room_in_which_nobody_asks_costs_nothing(broker: Broker, start: NodeFactory, crowd: Crowd) -> None:
    """No key, no call. Where nobody asks any more, the node forgets it, and the broker too."""
    node = await start(presence_grace_s=1)
    for at in range(3):
        await come(crowd, node, f"user{at}")
    async with broker.client() as redis:

        async def keys() -> list[bytes]:
            return [key for kind in ("members", "claims", "presence") async for key in redis.scan_iter(f"*:{kind}:*")]

        assert await keys() == [] and await node.metric("hiroba_presence_rooms") == 0
        assert await node.metric("hiroba_members_said_total") == 0
        ann = await look(crowd, node, "ann")
        await ann.sees("ann", "user0", "user1", "user2")
        assert await node.metric("hiroba_presence_rooms") == 1

        async def said() -> bool:
            return await node.metric("hiroba_members_said_total") >= 4 and len(await keys()) == 3

        await until(said, "all four")
        assert await node.metric("hiroba_presence_bytes") > 0
        await ann.client.leave()

        async def forgotten() -> bool:
            return await node.metric("hiroba_presence_rooms") == 0 and not await keys()

        await until(forgotten, "nobody asks")
        assert await node.metric("hiroba_presence_bytes") == 0


@redis_only
async def test_only_who_may_see_is_told_who_is_there(broker: Broker, start: NodeFactory, crowd: Crowd) -> None:
    """The right p. It may be lost by a refresh; then nothing more is told."""
    node = await start()
    blind = await crowd.come(node, headers=by("blind", rooms={"*": "rw"}))
    joined = await blind.ask("join", room="room", presence=True)
    assert joined["type"] == "joined" and not joined.keys() & {"members", "count"}
    answer = await blind.ask("presence", room="room")
    assert (answer["type"], answer["code"], answer["room"]) == ("error", "forbidden", "room")
    ann, bob = await look(crowd, node, "ann"), await look(crowd, node, "bob")
    await bob.sees("ann", "blind", "bob")
    less = token(sub="bob", rooms={"*": "rw"})
    assert (await bob.client.ask("refresh", token=less))["type"] == "refreshed"
    await come(crowd, node, "carl")
    await ann.sees("ann", "blind", "bob", "carl")
    assert "carl" not in (bob.members or {}) and not blind.of_type("members", "presence")


@redis_only
async def test_who_is_there_is_answered_to_who_is_in_the_room(broker: Broker, start: NodeFactory, crowd: Crowd) -> None:
    """`presence`: once, also to who did not join with it; on another node than the others too."""
    here, there = await start(), await start()
    info = {"colour": "red", "部屋": [1, 2]}
    ann = await crowd.come(here, headers=by("ann", name="Ann", info=info))
    assert (await ann.ask("presence", room="room"))["code"] == "not_joined"
    assert (await ann.ask("presence", room="no room!"))["code"] == "not_joined"
    assert (await ann.ask("presence"))["code"] == "bad_json"
    await ann.ask("join", room="room")
    await come(crowd, there, "bob")
    answer = await ann.ask("presence", room="room")
    assert (answer["type"], answer["count"], answer["more"]) == ("presence", 2, False)
    assert {"id": "ann", "name": "Ann", "guest": False, "info": info} in answer["members"]
    assert {member["id"] for member in answer["members"]} == {"ann", "bob"}
    await come(crowd, here, "carl")
    assert (await ann.ask("presence", room="room"))["count"] == 3
    assert not ann.of_type("members")


@redis_only
async def test_guests_are_told_as_guests_and_who_has_no_name_not_at_all(
    broker: Broker, start: NodeFactory, crowd: Crowd
) -> None:
    node = await start(token_keys="", guest_secret="signs the names of guests in this test only")
    _, cookie = Guests(b"signs the names of guests in this test only", Rights({"*": "rwp"})).named("Gus", None)
    guest = await crowd.come(node, headers={"Cookie": f"hiroba_guest={cookie}"})
    nobody = await crowd.come(node)
    assert (await nobody.ask("join", room="room", presence=True))["count"] == 0
    joined = await guest.ask("join", room="room", presence=True)
    (member,) = joined["members"]
    assert (member["name"], member["guest"], joined["count"]) == ("Gus", True, 1)
    assert member["id"].startswith("guest:")
    onlooker = Onlooker(nobody, "room")
    await onlooker.sees(member["id"])


@redis_only
async def test_of_too_many_members_only_how_many_is_told(broker: Broker, start: NodeFactory, crowd: Crowd) -> None:
    """presence_members_max: in frames, in answers, to who comes. Once they are fewer, the list comes."""
    node = await start(presence_members_max=3, presence_grace_s=1)
    ann = await look(crowd, node, "ann")
    others = [await come(crowd, node, f"user{at}") for at in range(2)]
    await ann.sees("ann", "user0", "user1")
    others += [await come(crowd, node, f"user{at}") for at in range(2, 4)]
    await ann.client.until(lambda: ann.members is None and ann.count == 5, "they are too many")
    late = await look(crowd, node, "late")
    assert late.joined["members"] is None
    await late.client.until(lambda: late.members is None and late.count == 6, "they are six")
    answer = await ann.client.ask("presence", room="room")
    assert (answer["members"], answer["count"], answer["more"]) == (None, 6, False)
    for other in others[1:]:
        await other.leave()
    for onlooker in (ann, late):
        await onlooker.sees("ann", "late", "user0")


@redis_only
async def test_what_a_node_knows_of_who_is_where_is_bounded(broker: Broker, start: NodeFactory, crowd: Crowd) -> None:
    """presence_bytes_max: of one room more only how many are in it."""
    node = await start(presence_bytes_max=1000)
    ann = await look(crowd, node, "ann")
    await come(crowd, node, "bob")
    await ann.sees("ann", "bob")
    await come(crowd, node, "carl", "other")
    dora = await look(crowd, node, "dora", "other")
    await dora.client.until(lambda: dora.members is None and dora.count == 2, "only how many")
    await ann.sees("ann", "bob")
    assert await node.metric("hiroba_presence_bytes") <= 1000


@redis_only
async def test_a_long_list_comes_in_pages(broker: Broker, start: NodeFactory, crowd: Crowd) -> None:
    """Above 200 members, or 32 KiB of them: to who joins, and to who asks."""
    node = await start()
    info = "x" * 1000
    names = [f"user{at}" for at in range(40)]
    clients = [await crowd.come(node, headers=by(name, info=info)) for name in names]
    for client in clients:
        await client.ask("join", room="room")
    first = await look(crowd, node, "first")
    await first.sees("first", *names)
    ann = await look(crowd, node, "ann")
    assert "members" not in ann.joined and ann.joined["count"] == 41
    await ann.sees("ann", "first", *names)
    looks = len(ann.client.of_type("presence"))
    assert looks == 2
    await ann.client.send('{"type": "presence", "room": "room"}')
    await ann.client.until(lambda: len(ann.client.of_type("presence")) == 2 * looks, "pages")
    pages = ann.client.of_type("presence")[looks:]
    assert [page["more"] for page in pages] == [True, False]
    assert sorted(member["id"] for page in pages for member in page["members"]) == sorted(["ann", "first", *names])


@redis_only
async def test_who_reads_slowly_is_told_the_list_later(broker: Broker, start: NodeFactory, crowd: Crowd) -> None:
    """Its socket is not filled beyond the bound by who comes and goes, and nobody waits for it."""
    node = await start(outgoing_bytes_max=4096, message_bytes_max=4096)
    ann = await look(crowd, node, "ann")
    slow = await crowd.connect(node, receive_bytes=4096)
    await slow.enter("room", v1=True, headers="".join(f"{name}: {value}\r\n" for name, value in by("slow").items()))
    slow.write(frame(b'{"type": "join", "room": "room", "presence": true}'))
    await until(lambda: any(told["type"] == "joined" for told in _told(slow)), "it asked")
    slow.transport.pause_reading()
    fill = json.dumps({"type": "watch", "rooms": [f"{'long' * 20}{at}" for at in range(40)]}).encode()
    slow.write(frame(fill) * 60)  # answers that fill whatever lies between
    users = list[str]()

    async def put_off() -> bool:
        users.append(f"user{len(users)}")
        await come(crowd, node, users[-1])
        return await node.metric("hiroba_members_put_off_total") >= 1

    await until(put_off, "it is put off", every_s=0.2)
    await ann.sees("ann", "slow", *users)
    slow.transport.resume_reading()
    await until(lambda: any(told["type"] == "presence" for told in _told(slow)), "the list came")
    listed = [told for told in _told(slow) if told["type"] in ("presence", "members")]
    last = max(at for at, told in enumerate(listed) if told["type"] == "presence")
    known = {
        member["id"]
        for told in listed[last:]
        for member in (*told.get("joined", ()), *(told["members"] if told["type"] == "presence" else ()))
    }
    assert known == {"ann", "slow", *users}


def _told(raw: Any) -> list[Frame]:
    return [json.loads(payload) for payload in raw.payloads()]


@redis_only
@pytest.mark.denied
async def test_a_broker_whose_rules_are_older_denies_presence_and_nothing_else(
    broker: Broker, start: NodeFactory, crowd: Crowd
) -> None:
    """People come and speak, and see at least themselves; what is missing is said once."""
    node = await start(broker_timeout_s=1)
    async with broker.client() as redis:
        await redis.execute_command("ACL", "SETUSER", "gateway", "-hlen")
        ann = await look(crowd, node, "ann")
        await ann.sees("ann")
        assert (await ann.client.ask("message", room="room", message=1))["type"] == "ack"
        denied = [line for line in map(json.loads, node.lines()) if "+hlen" in line.get("missing", "")]
        assert len(denied) == 1
        await redis.execute_command("ACL", "SETUSER", "gateway", "+hlen")
    bob = await look(crowd, node, "bob")
    for onlooker in (ann, bob):
        await onlooker.sees("ann", "bob")


@redis_only
async def test_nonsense_about_who_is_there_harms_nobody(broker: Broker, start: NodeFactory, crowd: Crowd) -> None:
    """A stranger on the channel, in the set, in the log, in their places: read over, and it heals."""
    node = await start(presence_grace_s=2)
    ann = await look(crowd, node, "ann")
    members, claims, log = Keys("hiroba", 0).members(room_name("room"))
    async with broker.client() as redis:
        for bell in (b"", b"what?", b"1", b"9-9", b"who is there", b"who room"):
            await redis.execute_command("SPUBLISH", log, bell)
            await redis.execute_command("SPUBLISH", Keys("hiroba", 0).log(room_name("room")), bell)
        await redis.hset(members, mapping={"": "nonsense", "odd": "nonsense", b"\xff": b"\xff"})
        await come(crowd, node, "bob")
        await ann.sees("ann", "bob")
        await redis.xadd(log, {"a": "b"})
        await redis.set(members, "no hash")
        await redis.delete(claims)
        await come(crowd, node, "carl")
        await ann.client.ask("ping")
        await redis.delete(members)
        await ann.sees("ann", "bob", "carl")
    assert (await ann.client.ask("message", room="room", message=1))["type"] == "ack"
