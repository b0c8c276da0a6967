"""The client's second module: who is here and who types, kept by one page of what real nodes tell it."""

import time
from collections.abc import AsyncIterator

import pytest

from tests.clients.person import Person
from tests.conftest import NodeFactory
from tests.support.client import Crowd
from tests.support.node import Node
from tests.support.tokens import SECRET, by, token
from tests.support.until import until

pytestmark = pytest.mark.parametrize("broker", ["redis"], indirect=True)

TYPING_S = 2.0


@pytest.fixture
async def node(start_node: NodeFactory) -> AsyncIterator[Node]:
    yield await start_node(token_keys=f"HS256:{SECRET}", guests=True, typing_s=TYPING_S, presence_grace_s=1)


async def types(person: Person, seen_by: Person, *users: str | None) -> None:
    """At a key every now and then, until it is seen: what is said before a node listens is lost."""

    def seen() -> bool:
        person.do("typing", room="lobby")
        return seen_by.events("types", "lobby")[-1:] == [list(users)]

    await until(seen, f"{users} type", every_s=0.1)


async def sees(person: Person, *users: str | None) -> None:
    await until(lambda: person.events("types", "lobby")[-1:] == [list(users)], f"{users} type")


async def test_who_types_is_seen_until_they_say_it_or_stop_or_nobody_hears_of_them(node: Node) -> None:
    """At once by what they say; by themselves after a while; and with the connection. Whoever types sees nothing."""
    async with Person(node.url(), token(sub="ann")) as ann, Person(node.url()) as guest:
        await ann.join("lobby")
        await guest.join("lobby")
        await types(ann, guest, "ann")
        ann.do("send", room="lobby", message="hello")
        await guest.hears("message", "lobby")
        await sees(guest)
        said = [one["on"] for one in guest.heard if one["on"] in ("message", "types", "typing")]
        at = said.index("message")
        assert said[at : at + 2] == ["message", "types"], "no frame had to say so"
        await types(ann, guest, "ann")
        began = time.monotonic()
        await sees(guest)
        assert time.monotonic() - began < 10 * TYPING_S
        await types(guest, ann, None)
        guest.do("send", room="lobby", message="somebody said")
        await sees(ann)
        await types(ann, guest, "ann")
        guest.do("letGo")
        await sees(guest)
        assert not [users for users in ann.events("types", "lobby") if "ann" in users]


async def here(person: Person, room: str, *users: str) -> None:
    """Waits until it knows that these are here, and how many they are."""

    def known() -> bool:
        told = person.events("here", room)[-1:]
        return bool(told) and sorted(told[0]["all"]) == sorted(users) and told[0]["count"] == len(users)

    await until(known, f"{users} are in {room}")


def moved(person: Person, room: str) -> tuple[list[str], list[str]]:
    """Who came and who went, of all that it was told."""
    told = person.events("here", room)
    return [id for one in told for id in one["joined"]], [id for one in told for id in one["left"]]


async def test_who_is_here_is_kept_over_comings_goings_and_losses(node: Node) -> None:
    """In the room of the address and in one beside it. Whoever was there at the first look has not come, nor has who
    came back; who came and went while the page was away has."""
    rooms = ("lobby", "部屋")
    async with Person(node.url(), token(sub="ann")) as ann, Person(node.url(), token(sub="bob")) as bob:
        await bob.join(*rooms)
        await ann.join(*rooms, presence=True)
        for room in rooms:
            await here(ann, room, "ann", "bob")
        async with Person(node.url(), token(sub="carl")) as carl:
            await carl.join(*rooms)
            for room in rooms:
                await here(ann, room, "ann", "bob", "carl")
                assert moved(ann, room) == (["carl"], []) and not bob.events("here", room)
            ann.do("letGo")
            await ann.hears("joined", "lobby", count=2)
            await ann.hears("joined", "部屋", count=2)
            bob.do("leave", room="部屋")
            await here(ann, "部屋", "ann", "carl")
            assert moved(ann, "部屋") == (["carl"], ["bob"])
        await here(ann, "lobby", "ann", "bob")
        assert moved(ann, "lobby") == (["carl"], ["carl"]) and not ann.events("error")


async def test_of_too_many_it_is_known_how_many_and_of_a_long_list_all_pages(start_node: NodeFactory) -> None:
    """A list comes in pages where it is long (here by its bytes), and not at all where it is too long."""
    settings = {"token_keys": f"HS256:{SECRET}", "presence_members_max": 40, "presence_grace_s": 1}
    node = await start_node(**settings)
    long = {"text": "x" * 1000}
    async with Crowd() as crowd, Person(node.url(), token(sub="ann")) as ann:
        people = [await crowd.join(node, "lobby", headers=by(f"u{n}", info=long)) for n in range(39)]
        await ann.join("lobby", presence=True)
        await here(ann, "lobby", "ann", *(f"u{n}" for n in range(39)))
        assert moved(ann, "lobby") == ([], [])
        people.append(await crowd.join(node, "lobby", headers=by("one too many")))
        await until(lambda: ann.events("here", "lobby")[-1] == {"joined": [], "left": [], "count": 41, "all": []}, "41")
        await people.pop().leave()
        await here(ann, "lobby", "ann", *(f"u{n}" for n in range(39)))
        assert moved(ann, "lobby") == ([], [])


async def test_keys_are_whispered_every_3_s_and_again_behind_a_message(node: Node) -> None:
    """A thousand keys are one frame; what was sent ends the wait, for others see that typing has ended."""
    async with Person(node.url(), token(sub="ann")) as ann, Person(node.url()) as bob:
        await ann.join("lobby")
        await bob.join("lobby")
        await types(ann, bob, "ann")

        async def said() -> float:
            metrics = await node.metrics()
            often = metrics['hiroba_typing_dropped_total{reason="often"}']
            return metrics["hiroba_typing_said_total"] + often

        before, began = await said(), time.monotonic()
        for _ in range(1000):
            ann.do("typing", room="lobby")
        ann.do("send", room="lobby", message="hello")
        ann.do("typing", room="lobby")
        await bob.hears("message", "lobby")
        await until(lambda: ann.events("outbox", "lobby")[-1:] == [[]], "it is in the log")
        assert 1 <= await said() - before <= 1 + (time.monotonic() - began) / 3 + 1
