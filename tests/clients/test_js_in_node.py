"""The browser client (clients/js) with Node's WebSocket, against real nodes that are killed, drained and cut off."""

import subprocess
from pathlib import Path

import pytest

from tests.clients.person import Person, need_node
from tests.conftest import NodeFactory
from tests.support.client import Crowd
from tests.support.node import Node
from tests.support.ports import free_port
from tests.support.proxy import Proxy
from tests.support.tokens import SECRET, token
from tests.support.until import until

pytestmark = pytest.mark.parametrize("broker", ["redis"], indirect=True)

BACKOFF = Path(__file__).parent / "backoff.mjs"


def address(road: Proxy) -> str:
    return f"http://127.0.0.1:{road.port}/"


async def connections(node: Node) -> float:
    return (await node.metrics())["hiroba_connections"]


async def test_two_rooms(start_node: NodeFactory) -> None:
    """On one connection, or on two where the server takes one room on each: nobody has to know which it is."""
    node = await start_node()
    async with Person(node.url()) as alice, Person(node.url()) as bob:
        await alice.join("lobby", "部屋")
        await bob.join("lobby", "部屋")
        for n in range(5):
            alice.do("send", room="lobby", message=f"here {n}")
            bob.do("send", room="部屋", message={"there": n})
        for person, own in ((alice, "lobby"), (bob, "部屋")):
            await person.reads("lobby", [f"here {n}" for n in range(5)])
            await person.reads("部屋", [{"there": n} for n in range(5)])
            for room in ("lobby", "部屋"):
                assert {event["own"] for event in person.events("message", room)} == {room == own}
        assert not alice.events("gap", "lobby") + alice.events("error")
        alice.do("leave", room="lobby")
        await alice.state("lobby", "closed")
        bob.do("send", room="lobby", message="not for her")
        await bob.hears("message", "lobby", 6)
        bob.do("send", room="部屋", message="still")
        await alice.hears("message", "部屋", 6)
        assert len(alice.events("message", "lobby")) == 5
        alice.do("close")
        bob.do("close")
        await until(lambda: _are(node, 0), "all connections end")


async def _are(node: Node, count: int) -> bool:
    return await connections(node) == count


async def test_what_a_server_does_not_know_is_refused_in_words(start_node: NodeFactory) -> None:
    """Or answered by one that does; a whisper may be lost. The connection stays, and so does what the page shows."""
    node = await start_node()
    async with Person(node.url()) as alice:
        await alice.join("lobby")
        alice.do("typing", room="lobby")
        alice.do("send", room="lobby", message="hello")
        await alice.reads("lobby", ["hello"])
        alice.do("read", room="lobby", id=alice.events("message", "lobby")[0]["id"])
        alice.do("watch", names=["部屋"])
        await until(lambda: alice.events("error") or alice.events("tops"), "an answer")
        assert all(error["code"] == "bad_json" for error in alice.events("error"))
        alice.do("unread", room="lobby")
        assert await alice.hears("unread", "lobby") == 0
        alice.do("send", room="lobby", message="still here")
        await alice.reads("lobby", ["hello", "still here"])
        assert [event["state"] for event in alice.events("state", "lobby")] == ["connected"]


async def test_half_of_an_emoji_holds_nothing_back(start_node: NodeFactory) -> None:
    """It is no text, and no log can have it: its item says so, and the later ones go on."""
    node = await start_node()
    async with Person(node.url()) as alice:
        await alice.join("lobby")
        for message in ("before", "half \ud83d", "after"):
            alice.do("send", room="lobby", message=message)
        await alice.reads("lobby", ["before", "after"])
        await until(lambda: alice.events("outbox", "lobby")[-1:] == [[["half \ud83d", "failed"]]], "it failed")


async def test_it_pages_back_to_the_beginning_of_a_room(start_node: NodeFactory) -> None:
    """What came by itself and what was asked for are the whole room; what can't be asked for rejects with its code."""
    node = await start_node(messages_per_s=0)
    async with Person(node.url()) as alice, Person(node.url()) as bob:
        await alice.join("lobby")
        for n in range(90):
            alice.do("send", room="lobby", message=n)
        await alice.reads("lobby", list(range(90)))
        await bob.join("lobby")
        await until(lambda: len(bob.events("message", "lobby")) == 50, "the history")
        shown = bob.events("message", "lobby")
        bob.do("history", room="lobby", options={"limit": 30})
        newer = await bob.hears("history", "lobby")
        bob.do("history", room="lobby", options={"limit": 30, "before": newer["entries"][0]["id"]})
        older = await bob.hears("history", "lobby", 2)
        told = [*older["entries"], *newer["entries"], *shown]
        assert [entry["message"] for entry in told] == list(range(90))
        assert (older["more"], newer["more"], older["gaps"]) == (False, True, [])
        bob.do("history", room="lobby", options={"limit": 0})
        await until(lambda: [one for one in bob.heard if one.get("code") == "history"], "a refusal")


async def test_a_room_that_cannot_be_entered_keeps_nobody_from_the_others(start_node: NodeFactory) -> None:
    """A browser is not told why a handshake failed; so another room has its turn."""
    node = await start_node()
    async with Person(node.url()) as alice:
        alice.do("join", room="no such name!")
        await alice.join("lobby", "部屋")
        alice.do("send", room="lobby", message="hello")
        await alice.reads("lobby", ["hello"])
        assert not alice.events("joined", "no such name!")


async def test_it_moves_to_another_node_when_its_own_is_killed(start_node: NodeFactory) -> None:
    """Two rooms, two talkers: everybody reads the same, nothing is missing, nothing twice."""
    first, second = await start_node(), await start_node()
    async with Proxy(first.port) as road, Person(address(road)) as alice, Person(second.url()) as bob:
        await alice.join("lobby", "部屋")
        await bob.join("lobby", "部屋")
        alice.do("send", room="lobby", message="before")
        await bob.reads("lobby", ["before"])
        road.lead_to(second.port)
        await first.kill()
        for n in range(3):
            alice.do("send", room="lobby", message=f"mine {n}")
            bob.do("send", room="部屋", message=f"yours {n}")
        await alice.hears("message", "lobby", 4)
        await alice.hears("message", "部屋", 3)
        await bob.reads("lobby", ["before", "mine 0", "mine 1", "mine 2"])
        await alice.reads("lobby", ["before", "mine 0", "mine 1", "mine 2"])
        await alice.reads("部屋", ["yours 0", "yours 1", "yours 2"])
        assert not alice.events("gap", "lobby") + alice.events("gap", "部屋")


async def test_a_draining_node_sends_it_elsewhere(start_node: NodeFactory) -> None:
    first, second = await start_node(lb_wait_s=0, drain_s=1), await start_node()
    async with Proxy(first.port) as road, Person(address(road)) as alice, Person(second.url()) as bob:
        await alice.join("lobby")
        await bob.join("lobby")
        road.lead_to(second.port)
        # Under way while the node says that it goes.
        for n in range(5):
            alice.do("send", room="lobby", message=n)
        assert await first.stop() == 0
        bob.do("send", room="lobby", message="done")
        await bob.hears("message", "lobby", 6)
        await alice.hears("message", "lobby", 6)
        assert sorted(map(str, (event["message"] for event in bob.events("message", "lobby")))) == [*"01234", "done"]
        assert alice.events("message", "lobby") == [
            {**event, "own": event["message"] != "done"} for event in bob.events("message", "lobby")
        ]


async def test_a_network_that_falls_silent_is_noticed_and_what_was_said_arrives_once(start_node: NodeFactory) -> None:
    node = await start_node(ping_s=1)
    async with Proxy(node.port) as road, Person(address(road)) as alice, Person(node.url()) as bob:
        await alice.join("lobby")
        await bob.join("lobby")
        road.freeze()
        alice.do("send", room="lobby", message="perhaps")
        alice.do("send", room="lobby", message="later")
        await alice.state("lobby", "reconnecting")
        bob.do("send", room="lobby", message="meanwhile")
        await bob.hears("message", "lobby")
        road.thaw()
        await bob.hears("message", "lobby", 3)
        alice.do("send", room="lobby", message="done")
        await bob.hears("message", "lobby", 4)
        await alice.hears("message", "lobby", 4)
        told = [event["message"] for event in bob.events("message", "lobby")]
        assert sorted(told) == ["done", "later", "meanwhile", "perhaps"] and told[-1] == "done"
        assert [event["message"] for event in alice.events("message", "lobby")] == told
        for message in ("perhaps", "later", "done"):
            (settled,) = [one for one in alice.heard if one["on"] == "settled" and one["message"] == message]
            assert settled["id"] == next(
                event["id"] for event in bob.events("message", "lobby") if event["message"] == message
            )


async def test_what_is_read_on_one_device_is_read_on_the_other_and_said_once_a_second(start_node: NodeFactory) -> None:
    """In the room of the address, one joined beside it, one only watched; said again after a loss only if need be."""
    node = await start_node(token_keys=f"HS256:{SECRET}")
    ann = token(sub="ann")
    async with Person(node.url(), ann) as phone, Person(node.url(), ann) as laptop:
        await phone.join("lobby", "部屋", "広場")
        await laptop.join("lobby", "部屋")
        laptop.do("watch", names=["広場"])
        await laptop.hears("tops")
        for room in ("lobby", "部屋", "広場"):
            for n in range(5):
                phone.do("send", room=room, message=n)
            await phone.reads(room, list(range(5)))
            ids = [event["id"] for event in phone.events("message", room)]
            for id in [*ids, ids[0]]:
                phone.do("read", room=room, id=id)
            told = {"on": "read", "event": {"type": "read", "room": room, "id": ids[-1]}}
            await until(lambda told=told: told in laptop.heard, f"{room} is read")  # type: ignore[misc]
            if room != "広場":
                await until(
                    lambda room=room, id=ids[-1]: {"id": id} in laptop.events("read", room),  # type: ignore[misc]
                    "the room says so, too",
                )
                assert laptop.events("read", room)[-1] == {"id": ids[-1]}
                laptop.do("unread", room=room)
                assert await laptop.hears("unread", room) == 0
        assert await node.metric("hiroba_markers_said_total") <= 2 * 3
        assert not phone.events("read")
        laptop.do("letGo")
        await laptop.hears("joined", "部屋", count=2)
        assert laptop.events("joined", "部屋")[-1]["read"] == laptop.events("read", "部屋")[-1]["id"]
        assert not [event for person in (phone, laptop) for event in person.events("error")]


async def test_a_reader_of_a_log_that_lost_something_is_told(start_node: NodeFactory) -> None:
    node = await start_node(retention_entries_min=1, retention_entries_max=10, messages_per_s=0)
    async with Proxy(node.port) as road, Person(address(road)) as alice, Crowd() as crowd:
        await alice.join("lobby")
        bob = await crowd.join(node, "lobby")
        await bob.say("first")
        await alice.reads("lobby", ["first"])
        road.refusing = True
        road.cut()
        await alice.state("lobby", "reconnecting")
        for n in range(300):
            await bob.say(n, ref=n)
        await bob.answer(299)
        road.refusing = False
        alice.do("hurry")
        await until(lambda: [e for e in alice.events("message", "lobby") if e["message"] == 299], "the newest")
        told = alice.events("message", "lobby")
        assert alice.events("joined", "lobby")[-1]["recovered"] is False
        assert sum(event["lost"] for event in alice.events("gap", "lobby")) == 301 - len(told)


async def test_the_token_is_asked_for_before_each_connect_and_goes_along(start_node: NodeFactory) -> None:
    """Who cannot give one is a try that failed: it is told, and tried again."""
    node = await start_node()
    async with Proxy(node.port) as road:
        road.hold_at(b"hiroba.v1, hiroba.token.first.of_all")
        async with Person(address(road), tokens="first.of_all,,not a token,third") as alice:
            alice.do("join", room="lobby")
            link = await road.held()
            link.up.thaw()
            await alice.hears("joined", "lobby")
            # In its history: proof that the node took the other subprotocol of the two.
            road.hold_at(b"hiroba.token.third")
            link.cut()
            assert (await alice.hears("error"))["code"] == "token"
            assert (await alice.hears("error", count=2))["code"] == "token"
            (await road.held()).up.thaw()
            await alice.hears("joined", "lobby", count=2)


async def test_a_token_that_comes_too_late_opens_no_second_connection(start_node: NodeFactory) -> None:
    """The network went away while it was asked for: that try is over, and the next one asks again."""
    node = await start_node()
    async with Person(node.url(), tokens="?,second") as alice:
        alice.do("join", room="lobby")
        await alice.hears("asked")
        alice.do("letGo")
        alice.do("give", token="first")
        await alice.hears("asked", count=2)
        await alice.hears("joined", "lobby")
        alice.do("send", room="lobby", message="hello")
        await alice.reads("lobby", ["hello"])
        assert await connections(node) == 1


def test_waits_between_tries(broker: object) -> None:
    """At most the step, which doubles from 0.5 s to 5 s, and after a minute goes on to 30 s (docs/protocol.md)."""
    url = f"http://127.0.0.1:{free_port()}/"
    done = subprocess.run([*need_node(), BACKOFF, url], capture_output=True, text=True, timeout=60, check=True)
    waits = [float(line) for line in done.stdout.split()]
    assert waits[:5] == pytest.approx([0.5, 1, 2, 4, 5], abs=0.01)
    minute = next(n for n in range(len(waits)) if sum(waits[:n]) > 60)
    assert waits[4:minute] == pytest.approx([5.0] * (minute - 4), abs=0.01)
    assert waits[minute:] == pytest.approx([30.0] * (len(waits) - minute), abs=0.01)
    assert minute < len(waits) - 2
