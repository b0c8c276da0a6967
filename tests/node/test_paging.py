"""Paging back through a room: the pages and what came live are the log, each entry once, or a hole that says so."""

import asyncio
import json
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio

from tests.conftest import NodeFactory
from tests.node.conftest import redis_only
from tests.node.test_history import all_leave, log_of
from tests.support.broker import Broker
from tests.support.client import Client, Crowd, Frame
from tests.support.node import Node
from tests.support.raw import frame, handshake
from tests.support.until import until

SETTINGS = {"messages_per_s": 0, "linger_s": 0.1, "sweep_s": 0.3, "probe_s": 1, "tail_entries_max": 100}


@pytest.fixture
def node(shared_node: Node) -> Node:
    return shared_node


@pytest.fixture
async def redis_client(house: tuple[Broker, Node]) -> AsyncIterator[redis.asyncio.Redis]:
    async with house[0].client() as client:
        yield client


async def page(client: Client, room: str, limit: int = 100, before: str | None = None) -> Frame:
    asked: Frame = {"room": room, "limit": limit}
    answer = await client.ask("history", **asked if before is None else {**asked, "before": before})
    assert answer["type"] == "history", answer
    assert answer.keys() == {"type", "room", "entries", "gaps", "more", "ref"} and answer["room"] == room
    return answer


async def all_pages(client: Client, room: str, limit: int = 100, before: str | None = None) -> list[Frame]:
    """From where the client's messages began to where the log does; the oldest first."""
    pages = [await page(client, room, limit, before)]
    while pages[0]["more"]:
        pages.insert(0, await page(client, room, limit, pages[0]["entries"][0]["id"]))
    return pages


def entries(pages: list[Frame]) -> list[Any]:
    return [entry["message"] for page in pages for entry in page["entries"]]


def gaps(pages: list[Frame]) -> list[Frame]:
    return [gap for page in pages for gap in page["gaps"]]


async def speak(speaker: Client, first: int, count: int) -> None:
    """In bursts; they are in the log on return."""
    for at in range(first, first + count, 100):
        await asyncio.gather(*(speaker.say(n) for n in range(at, min(at + 100, first + count))))
    last = first + count - 1
    await speaker.until(lambda: speaker.messages and speaker.messages[-1] == last, f"{last} said")


async def test_a_log_paged_back_to_its_beginning_while_others_speak(crowd: Crowd, node: Node) -> None:
    """Several thousand entries, from the log and from memory: with what came live, exactly once each."""
    speaker = await crowd.join(node, "long")
    await speak(speaker, 0, 2_500)
    guests = [
        await crowd.join(node, "long"),
        await crowd.join(node, "long", history=20),
        await crowd.join(node, "long", after=speaker.ids[2_400]),
    ]
    speaking = asyncio.create_task(speak(speaker, 2_500, 500))
    limits = dict(zip(guests, (190, 1_000, 77), strict=True))
    paged = await asyncio.gather(*(all_pages(guest, "long", limit) for guest, limit in limits.items()))
    await speaking
    for guest, pages in zip(guests, paged, strict=True):
        await guest.until(lambda guest=guest: guest.messages[-1] == 2_999, "the last entry")
        assert entries(pages) + guest.messages == list(range(3_000))
        assert gaps(pages) == guest.of_type("gap") == []
    assert paged[0][0]["entries"][0] == {
        key: value for key, value in speaker.of_type("message")[0].items() if key not in ("type", "room")
    }
    assert len(paged[1]) > 3, "a page ends at its bytes"


async def test_a_page_ends_at_its_bytes_and_one_long_message_comes_alone(crowd: Crowd, node: Node) -> None:
    speaker = await crowd.join(node, "letters")
    for size in (10, 60_000, 60_000, 20_000, 10_000, 10):
        await speaker.say("x" * size)
    await speaker.until(lambda: len(speaker.messages) == 6, "all")
    pages = await all_pages(await crowd.join(node, "letters"), "letters")
    assert [[len(entry["message"]) for entry in page["entries"]] for page in pages] == [
        [10], [60_000], [60_000], [20_000, 10_000, 10],
    ]  # fmt: skip
    assert [page["more"] for page in pages] == [False, True, True, True]


async def test_where_the_log_begins_there_is_no_more(crowd: Crowd, node: Node) -> None:
    """Also where a page holds just all there is; and of a room where nobody spoke yet."""
    speaker = await crowd.join(node, "short")
    assert await page(speaker, "short") | {"ref": 0} == {
        "type": "history", "room": "short", "entries": [], "gaps": [], "more": False, "ref": 0,
    }  # fmt: skip
    await speak(speaker, 0, 10)
    guest = await crowd.join(node, "short")
    for limit, more in ((9, True), (10, False), (11, False)):
        answer = await page(guest, "short", limit)
        assert (len(answer["entries"]), answer["more"]) == (min(limit, 10), more)
    assert await page(guest, "short", 1, speaker.ids[0]) | {"ref": 0} == {
        "type": "history", "room": "short", "entries": [], "gaps": [], "more": False, "ref": 0,
    }  # fmt: skip
    assert (await page(speaker, "short"))["entries"] == [], "what it heard live is not paged to it"


async def test_trimmed_while_somebody_pages(crowd: Crowd, node: Node, redis_client: redis.asyncio.Redis) -> None:
    """What is gone is a hole below the last page's end, that once, and the end."""
    speaker = await crowd.join(node, "trimmed")
    await speak(speaker, 0, 300)
    ids = speaker.ids
    guest = await crowd.join(node, "trimmed")
    first = await page(guest, "trimmed", 50)
    assert (entries([first]), first["more"]) == (list(range(250, 300)), True)
    log = await log_of(redis_client, "trimmed")
    await redis_client.xtrim(log, minid=ids[230], approximate=False)
    second = await page(guest, "trimmed", 50, first["entries"][0]["id"])
    assert (entries([second]), second["more"]) == (list(range(230, 250)), False)
    assert second["gaps"] == [{"after": "0-0", "before": ids[230], "lost": 230}]
    await redis_client.xtrim(log, minid=ids[299], approximate=False)
    third = await page(guest, "trimmed", 50, second["entries"][0]["id"])
    assert (third["entries"], third["gaps"]) == ([], [{"after": "0-0", "before": ids[230], "lost": 230}])
    assert third["more"] is False


async def test_holes_are_told_inside_the_page_and_at_its_end(
    crowd: Crowd, node: Node, redis_client: redis.asyncio.Redis
) -> None:
    speaker = await crowd.join(node, "holes")
    await speak(speaker, 0, 40)
    ids = speaker.ids
    await all_leave(node, speaker)
    await redis_client.xdel(await log_of(redis_client, "holes"), ids[4], ids[5], ids[19], ids[39])
    guest = await crowd.join(node, "holes")
    pages = await all_pages(guest, "holes", 19)
    assert entries(pages) == [n for n in range(40) if n not in (4, 5, 19, 39)]
    assert [page["more"] for page in pages] == [False, True]
    assert gaps(pages) == [
        {"after": ids[3], "before": ids[6], "lost": 2},
        {"after": ids[18], "before": ids[20], "lost": 1},
    ]
    assert gaps([pages[0]]) == gaps(pages), "the second one lies between the pages: the older one has it"


async def test_a_log_that_was_flushed_has_nothing_below_what_was_shown_of_it(
    crowd: Crowd, node: Node, redis_client: redis.asyncio.Redis
) -> None:
    speaker = await crowd.join(node, "flushed")
    await speak(speaker, 0, 30)
    guest = await crowd.join(node, "flushed", history=5)
    await guest.hears(*range(25, 30))
    await redis_client.delete(await log_of(redis_client, "flushed"))
    answer = await page(guest, "flushed", 50)
    assert (answer["entries"], answer["more"]) == ([], False)
    assert [(gap["after"], gap["lost"]) for gap in answer["gaps"]] == [("0-0", 25)]
    await speaker.say("anew")
    await guest.hears(*range(25, 30), "anew")
    assert guest.of_type("gap") == []
    answer = await page(guest, "flushed", 50, guest.ids[0])
    assert (answer["entries"], answer["more"]) == ([], False)
    assert answer["gaps"] == [{"after": "0-0", "before": guest.ids[0], "lost": 25}]
    newcomer = await crowd.join(node, "flushed")
    answer = await page(newcomer, "flushed", 10)
    assert (entries([answer]), answer["more"]) == (["anew"], False)
    assert answer["gaps"] == [{"after": "0-0", "before": guest.ids[-1], "lost": 30}], "what that log took along"


async def test_ten_page_back_and_another_room_has_its_order(crowd: Crowd, node: Node) -> None:
    """Each as fast as it can; the other room's every entry arrives once, in order, and everybody gets what is his."""
    speaker = await crowd.join(node, "archive")
    await speak(speaker, 0, 1_000)
    readers = [await crowd.join(node, "archive") for _ in range(10)]
    ann, bob = await crowd.join(node, "other"), await crowd.join(node, "other", "plain")

    async def read(reader: Client) -> None:
        for _ in range(3):
            assert entries(await all_pages(reader, "archive", 60)) == list(range(1_000))

    async with asyncio.TaskGroup() as all_read:
        for reader in readers:
            all_read.create_task(read(reader))
        all_read.create_task(speak(ann, 0, 1_000))
    await bob.hears(*range(1_000))
    assert ann.messages == bob.messages and ann.of_type("gap") == []


async def test_many_requests_in_one_burst_are_answered_in_order(crowd: Crowd, node: Node) -> None:
    """By one who joined two rooms; between them, live messages come on."""
    for room in ("one", "two"):
        await speak(await crowd.join(node, room), 0, 120)
    guest = await crowd.join(node, "one")
    await guest.ask("join", room="two")
    asked = [{"type": "history", "room": ("one", "two")[at % 2], "limit": at + 1} for at in range(100)]
    answers = await guest.ask_all(asked)
    for request, answer in zip(asked, answers, strict=True):
        assert answer["room"] == request["room"]
        assert entries([answer]) == list(range(120 - int(str(request["limit"])), 120))


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"room": "here", "limit": 0}, "history"),
        ({"room": "here", "limit": -1}, "history"),
        ({"room": "here", "limit": 1_001}, "history"),
        ({"room": "here", "limit": 10**30}, "history"),
        ({"room": "here", "limit": 1.5}, "bad_json"),
        ({"room": "here", "limit": "10"}, "bad_json"),
        ({"room": "here", "limit": None}, "bad_json"),
        ({"room": "here"}, "bad_json"),
        ({"limit": 1}, "bad_json"),
        ({"room": 7, "limit": 1}, "bad_json"),
        ({"room": "elsewhere", "limit": 1}, "not_joined"),
        ({"room": "", "limit": 1}, "not_joined"),
        ({"room": "no/room", "limit": 1}, "not_joined"),
        ({"room": "here", "limit": 1, "before": "nonsense"}, "bad_json"),
        ({"room": "here", "limit": 1, "before": "-1-1"}, "bad_json"),
        ({"room": "here", "limit": 1, "before": "1" * 30 + "-1"}, "bad_json"),
        ({"room": "here", "limit": 1, "before": 7}, "bad_json"),
    ],
)
async def test_a_bad_request_is_an_error_with_its_code_and_nothing_is_closed(
    crowd: Crowd, node: Node, said: Frame, code: str
) -> None:
    guest = await crowd.join(node, "here")
    answer = await guest.ask("history", **said)
    assert (answer["type"], answer["code"]) == ("error", code)
    assert answer["text"]
    await guest.say("still here")
    await guest.until(lambda: "still here" in guest.messages, "its own message")


@pytest.mark.parametrize("before", ["0-0", "0-1", "1-0", "5-3", "9999999999999-5", "9" * 18 + "-" + "9" * 18])
async def test_an_id_that_the_log_never_gave_is_no_harm(crowd: Crowd, node: Node, before: str) -> None:
    """What lies below it comes; that something is missing in between nobody can count."""
    room = f"never{len(before)}_{before[0]}"
    speaker = await crowd.join(node, room)
    await speak(speaker, 0, 5)
    answer = await page(await crowd.join(node, room), room, 10, before)
    assert entries([answer]) == ([0, 1, 2, 3, 4] if before[0] == "9" else [])
    assert answer["more"] is False
    assert all(gap["before"] == before for gap in answer["gaps"])


async def test_pages_are_compressed_where_frames_are(crowd: Crowd, node: Node) -> None:
    speaker = await crowd.join(node, "packed")
    await asyncio.gather(*(speaker.say("many words " * 20) for _ in range(50)))
    await speaker.until(lambda: len(speaker.messages) == 50, "all")
    raw = await crowd.connect(node)
    offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n"
    assert await raw.ask(handshake("packed", v1=True, headers=offer)) == 101
    await until(raw.payloads, "the welcome")
    raw.data.clear()
    raw.write(frame(b'{"type":"history","room":"packed","limit":50}'))
    (packed,) = await until(raw.payloads, "the page")
    assert raw.data[0] & 0x40 and len(packed) < 5_000
    answer = json.loads(zlib.decompressobj(-15).decompress(packed + b"\0\0\xff\xff"))
    assert entries([answer]) == ["many words " * 20] * 50


@redis_only
async def test_while_the_broker_is_away_a_page_waits_and_then_says_so(
    start_node: NodeFactory, crowd: Crowd, broker: Broker
) -> None:
    """A page asked for in between is late; one that waited too long is an error. The connection stays."""
    node = await start_node(messages_per_s=0, handshake_timeout_s=1, probe_s=0.5, linger_s=0.1)
    speaker = await crowd.join(node, "away")
    await speak(speaker, 0, 200)
    guest = await crowd.join(node, "away")
    broker.pause()
    await until(lambda: _unready(node), "the node notices")
    answer = await guest.ask("history", room="away", limit=200)
    assert (answer["type"], answer["code"], answer["room"]) == ("error", "timeout", "away")
    asking = asyncio.create_task(page(guest, "away", 200))
    broker.cont()
    assert len((await asking)["entries"]) > 100


async def _unready(node: Node) -> bool:
    return not await node.is_ready()
