"""One connection, many rooms: what it asks, what it hears of each, and what none of it may cost the others."""

import json
from typing import Any

import aiohttp
import pytest

from tests.cluster.chat import key
from tests.conftest import NodeFactory
from tests.support.broker import Broker
from tests.support.client import Client, Crowd
from tests.support.node import Node
from tests.support.raw import handshake
from tests.support.until import until

SETTINGS = {"messages_per_s": 0, "rooms_per_connection_max": 40, "history_max": 50}


async def come(crowd: Crowd, node: Node) -> Client:
    """A connection to `/ws/`, in no room yet."""
    client = await crowd.come(node)
    welcome = await client.welcome()
    assert (welcome["room"], welcome["last_id"], welcome["recovered"]) == (None, None, False)
    return client


async def test_a_connection_hears_each_of_its_rooms_by_name(crowd: Crowd, shared_node: Node) -> None:
    """And says something in whichever it is in; its answers name the room, too."""
    ann, bob = await come(crowd, shared_node), await crowd.join(shared_node, "by-name-1")
    for room in ("by-name-1", "by-name-2"):
        joined = await ann.ask("join", room=room)
        said = {"room": room, "last_id": "0-0", "recovered": False, "rights": "rwp", "read": None}
        assert joined == {"type": "joined", **said, "ref": joined["ref"]}
    acked = await ann.ask("message", room="by-name-2", message="two")
    assert acked["room"] == "by-name-2"
    await bob.say("one")  # as a client of today says it, who knows no rooms
    await ann.until(lambda: len(ann.messages) == 2, "both messages")
    assert {(said["room"], said["message"]) for said in ann.of_type("message")} == {
        ("by-name-1", "one"),
        ("by-name-2", "two"),
    }
    await bob.hears("one")


async def test_who_left_hears_no_more_and_may_come_back_behind_what_it_heard(crowd: Crowd, shared_node: Node) -> None:
    """`left` is the room's last frame; a later join resumes, exactly."""
    ann, bob = await come(crowd, shared_node), await crowd.join(shared_node, "back")
    await ann.ask("join", room="back")
    await bob.say("before")
    await ann.hears("before")
    assert (await ann.ask("leave", room="back"))["room"] == "back"
    for said in ("meanwhile", "and more"):
        await bob.say(said, ref=said)
        await bob.answer(said)
    assert (await ann.ask("message", room="back", message="x"))["code"] == "not_joined"
    assert ann.messages == ["before"] and ann.heard[-2]["type"] == "left"
    assert (await ann.ask("join", room="back", after=ann.ids[-1]))["recovered"] is True
    await ann.hears("before", "meanwhile", "and more")
    assert (await ann.ask("leave", room="back"))["type"] == "left"
    assert (await ann.ask("join", room="back", history=2))["recovered"] is False
    await ann.hears("before", "meanwhile", "and more", "meanwhile", "and more")
    await ann.ask("leave", room="back")
    assert (await ann.ask("join", room="back", after="99999999999999-1", history=1))["recovered"] is False
    await ann.until(lambda: ann.messages[-1:] == ["and more"] and len(ann.messages) == 6, "history, for want of the id")


async def test_what_cannot_be_done_is_an_error_and_the_rest_stands(crowd: Crowd, shared_node: Node) -> None:
    """Nothing that a client asks closes its connection, and one wrong room costs the others nothing."""
    ann = await come(crowd, shared_node)
    await ann.ask("join", room="stands")
    for asked, code in (
        ({"type": "message", "room": "elsewhere", "message": 1}, "not_joined"),
        ({"type": "leave", "room": "elsewhere"}, "not_joined"),
        ({"type": "leave", "room": "no room!"}, "not_joined"),
        ({"type": "join", "room": "no room!"}, "room_name"),
        ({"type": "join", "room": ""}, "room_name"),
        ({"type": "join", "room": "stands", "history": 51}, "history"),
        ({"type": "join", "room": "stands", "history": -1}, "history"),
        ({"type": "join", "room": "stands", "history": "5"}, "bad_json"),
        ({"type": "join", "room": 5}, "bad_json"),
        ({"type": "join", "room": "a", "after": 5}, "bad_json"),
        ({"type": "join"}, "bad_json"),
        ({"type": "leave"}, "bad_json"),
        ({"type": "telegram"}, "bad_json"),
    ):
        answer = await ann.ask(**asked)
        assert (answer["type"], answer["code"]) == ("error", code), asked
    for after in ("nonsense", "1-1", "99999999999999-1", ""):
        assert (await ann.ask("join", room=f"resumed{len(after)}", after=after))["recovered"] is False
    assert (await ann.ask("message", message=1))["code"] == "not_joined"  # which of them?
    assert (await ann.ask("message", room="stands", message=1))["type"] == "ack"
    assert await shared_node.metric("hiroba_errors_told_total", code="not_joined") >= 4


async def test_more_rooms_than_allowed_are_refused_and_the_rest_stands(crowd: Crowd, shared_node: Node) -> None:
    """Asked for in one burst, and what was joined twice counts once."""
    ann = await come(crowd, shared_node)
    names = [f"many{at}" for at in range(40)]
    answers = await ann.ask_all([{"type": "join", "room": room} for room in (*names, "many0", "many40", *names)])
    assert [answer.get("room") for answer in answers] == [*names, "many0", "many40", *names], "in the order of asking"
    refused = [answer for answer in answers if answer["type"] == "error"]
    assert [(answer["room"], answer["code"]) for answer in refused] == [("many40", "too_many_rooms")]
    await ann.ask("leave", room="many7")
    assert (await ann.ask("join", room="many40"))["type"] == "joined"
    assert (await ann.ask("join", room="many7"))["code"] == "too_many_rooms"
    assert (await ann.ask("message", room="many39", message="hello"))["type"] == "ack"
    await ann.hears("hello")


async def test_two_spellings_are_one_room(crowd: Crowd, shared_node: Node) -> None:
    """Names are normalised wherever a client writes them; frames have the room's own."""
    apart, whole = "か\u3099く", "がく"
    ann = await come(crowd, shared_node)
    assert (await ann.ask("join", room=apart))["room"] == whole
    assert (await ann.ask("join", room=whole))["room"] == whole
    assert (await ann.ask("message", room=apart, message="hello"))["room"] == whole
    await ann.hears("hello")
    assert (await ann.ask("leave", room=apart))["room"] == whole
    assert (await ann.ask("message", room=whole, message="hello"))["code"] == "not_joined"


async def test_a_full_node_refuses_a_room_and_keeps_the_connection(start_node: NodeFactory, crowd: Crowd) -> None:
    """As a handshake is told 503: with what to do next."""
    node = await start_node(rooms_max=2)
    ann = await come(crowd, node)
    answers = await ann.ask_all([{"type": "join", "room": room} for room in ("a", "b", "c", "a", "c")])
    assert [answer.get("code") for answer in answers] == [None, None, "busy", None, "busy"]
    assert (await ann.ask("message", room="a", message=1))["type"] == "ack"


async def test_the_address_without_a_room_is_for_v1(crowd: Crowd, shared_node: Node) -> None:
    """On the wire plain nobody could say which room a message is for."""
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await crowd.http.ws_connect(f"ws://127.0.0.1:{shared_node.port}/ws/")
    assert refused.value.status == 400
    bare = await crowd.connect(shared_node)
    assert await bare.ask(handshake("r").replace(b"/ws/chat/r/", b"/ws/")) == 400
    assert b"hiroba.v1" in bare.data


async def test_joins_have_a_rate_of_their_own(start_node: NodeFactory, crowd: Crowd) -> None:
    """All rooms at once, whatever messages may; then as fast as joins_per_s, without a close."""
    node = await start_node(messages_per_s=0.001, messages_burst=3, joins_per_s=100, rooms_per_connection_max=60)
    ann = await come(crowd, node)
    answers = await ann.ask_all([{"type": "join", "room": f"r{at}"} for at in range(60)])
    assert {answer["type"] for answer in answers} == {"joined"}
    slowed = await node.metric("hiroba_frames_slowed_total")
    answers = await ann.ask_all([{"type": "join", "room": f"r{at}"} for at in range(60)])
    assert {answer["type"] for answer in answers} == {"joined"}
    assert await node.metric("hiroba_frames_slowed_total") > slowed


async def test_a_connection_of_many_rooms_has_one_line_in_the_log(crowd: Crowd, shared_node: Node) -> None:
    """It says how many rooms it joined; sessions are counted beside connections."""
    before = await shared_node.metrics()
    ann = await come(crowd, shared_node)
    await ann.ask_all([{"type": "join", "room": f"line{at}"} for at in range(5)])
    now = await shared_node.metrics()
    grown = {name: now[name] - before[name] for name in ("hiroba_connections", "hiroba_sessions_live")}
    assert grown == {"hiroba_connections": 1, "hiroba_sessions_live": 5}
    id = ann.heard[0]["session"]
    await ann.leave()

    def line() -> list[dict[str, Any]]:
        lines = map(json.loads, shared_node.lines())
        return [line for line in lines if line.get("session") == id and line.get("step") == "DISCONNECT"]

    (said,) = await ann.until(line, "its line")
    assert (said["room"], said["rooms"], said["path"]) == (None, 5, "/ws/")


async def test_rooms_joined_together_share_their_round_trips(house: tuple[Broker, Node], crowd: Crowd) -> None:
    """Opening 40 rooms one by one would ask the broker 40 times of each kind."""
    broker, node = house
    ann = await come(crowd, node)
    async with broker.client() as client:
        await client.config_resetstat()
        answers = await ann.ask_all([{"type": "join", "room": f"together{at}"} for at in range(40)])
        calls = await client.info("commandstats")
    assert {answer["type"] for answer in answers} == {"joined"}
    # One for the bell of each and one for who types there would be 80.
    assert calls["cmdstat_ssubscribe"]["calls"] <= 40
    assert calls["cmdstat_xrevrange"]["calls"] >= 40, "each log is asked where it ends"


async def test_a_key_that_is_no_log_spoils_one_room_of_those_joined_together(
    start_node: NodeFactory, broker: Broker, crowd: Crowd
) -> None:
    """Somebody else's key under a room's name is refused; those that were asked for in the same call are well."""
    node = await start_node()
    ann = await come(crowd, node)
    async with broker.client() as client:
        await client.set(key("foreign"), "not a stream")
        answers = await ann.ask_all([{"type": "join", "room": room} for room in ("a", "foreign", "b")])
        assert [answer.get("code") for answer in answers] == [None, "refused", None]
        await client.delete(key("foreign"))
    assert (await ann.ask("join", room="foreign"))["type"] == "joined"
    for room in ("a", "foreign", "b"):
        assert (await ann.ask("message", room=room, message=room))["type"] == "ack"
    await ann.until(lambda: len(ann.messages) == 3, "each room is heard")


async def test_a_log_that_becomes_a_foreign_key_keeps_no_other_room_from_being_read(
    start_node: NodeFactory, broker: Broker, crowd: Crowd
) -> None:
    """Their places in their logs are proven in one call."""
    node = await start_node(sweep_s=0.5)
    ann = await come(crowd, node)
    await ann.ask_all([{"type": "join", "room": room} for room in ("a", "foreign", "b")])
    for room in ("a", "foreign", "b"):
        await ann.ask("message", room=room, message=1)
    await ann.until(lambda: len(ann.messages) == 3, "each room is heard")
    async with broker.client() as client:
        await client.set(key("foreign"), "not a stream")
        healed = await node.metric("hiroba_groups_healed_total")

        async def proven_anew() -> bool:
            return await node.metric("hiroba_groups_healed_total") > healed

        await until(proven_anew, "the groups are proven again")
    for room in ("a", "b"):
        await ann.ask("message", room=room, message=2)
    await ann.until(lambda: len(ann.messages) == 5, "the others are heard")
