"""Many rooms over one connection: each room of each connection is judged as if it had a connection of its own."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest

from loadtest import stamp
from loadtest.frames import BadFrame
from loadtest.member import Member, Record
from loadtest.sorter import Sorter
from loadtest.spec import BadSpec, read_endpoint
from loadtest.tape import Tape, Times
from loadtest.wires import V1, Heard
from tests.conftest import BrokerFactory
from tests.loadtest.harness import run, start
from tests.loadtest.lying_server import Lies, LyingServer, lying_server
from tests.loadtest.theatre import server_frame
from tests.support.node import Node
from tests.support.until import until

MANY = ("--wire", "v1", "--rooms-per-connection")
CROWD = (
    "-u",
    "12",
    "--rooms",
    "8",
    *MANY,
    "3",
    "-r",
    "20",
    "--rate",
    "300",
    "-t",
    "3s",
    "--settle",
    "2s",
    "--seed",
    "7",
)
KINDS = ("lost", "doubled", "reordered", "foreign")


@pytest.fixture
async def nodes(start_broker: BrokerFactory, tmp_path: Path) -> AsyncIterator[list[Node]]:
    """Two nodes of one broker."""
    broker = await start_broker(kind="redis")
    made = [Node(broker.url, tmp_path, name, messages_per_s=0, joins_per_s=0) for name in ("first", "second")]
    await asyncio.gather(*(node.start() for node in made))
    yield made
    await asyncio.gather(*(node.kill() for node in made))


def urls(nodes: list[Node]) -> tuple[str, ...]:
    return tuple(word for node in nodes for word in ("-H", node.url().replace("http://", "ws://")))


class Listening:
    """A connection in rooms `a`, `b`, `c`, and what it was told that is no message of theirs."""

    def __init__(self) -> None:
        self.told: list[Heard] = []
        self.control: list[tuple[int, bytes]] = []
        self.sorter = Sorter(V1, self.told.append, self._control)
        self.members = {room: self._member(room) for room in "abc"}

    def _member(self, room: str) -> Member:
        member = Member(Tape("run", room), V1, Record(0, 0), Times("x"), self.told.append, self._control)
        self.sorter.members[room.encode()] = member
        return member

    def _control(self, opcode: int, payload: bytes) -> None:
        self.control.append((opcode, payload))

    def heard(self, room: str) -> list[int]:
        tape, record = self.members[room].tape, self.members[room].record
        return [tape.id_of(frame)[1] for frame in range(max(record.first, 0), record.end)]


def message(room: str, number: int, compact: bool = True) -> bytes:
    mark = stamp.Stamp("run", room, 1, number, 1, 1)
    body = {"type": "message", "room": room, "id": f"1-{number}", "message": stamp.write(mark, "", 90)}
    return server_frame(json.dumps(body, separators=(",", ":") if compact else None).encode())


def test_each_room_hears_its_own_frames_however_the_bytes_are_cut() -> None:
    """And however the server writes its JSON; what is of no room, or of one that nobody is in, is told apart."""
    random = Random(5)
    for _ in range(50):
        here, numbers, frames = Listening(), dict.fromkeys("abc", 0), [server_frame(b'{"type":"joined","room":"a"}')]
        for _ in range(60):
            room = random.choice("abc")
            numbers[room] += 1
            frames.append(message(room, numbers[room], compact=random.random() < 0.8))
        frames += [message("elsewhere", 1), b"\x89\x02hi"]
        data, now_us = b"".join(frames), 1
        while data:
            size = random.choice((1, 7, 100, 1_000))
            here.sorter.feed(data[:size], now_us)
            data = data[size:]
        assert {room: here.heard(room) for room in "abc"} == {r: [*range(1, n + 1)] for r, n in numbers.items()}
        assert [heard.kind for heard in here.told] == ["joined", "message"]
        assert here.control == [(9, b"hi")]


def test_a_message_in_fragments_is_its_rooms_too() -> None:
    here = Listening()
    whole = message("b", 1)
    at = 2 + 2  # of an extended length (RFC 6455, 5.2)
    payload = whole[at:]
    half = len(payload) // 2
    for head, piece in ((0x01, payload[:half]), (0x80, payload[half:])):
        here.sorter.feed(bytes((head, len(piece))) + piece, 1)
    assert here.heard("b") == [1]
    with pytest.raises(BadFrame):
        here.sorter.feed(b"\xc1\x00", 1)


def test_its_address_is_one_without_a_room() -> None:
    assert read_endpoint("ws://h:8000", 5, many=True).url == "ws://h:8000/ws/"
    assert read_endpoint("ws://h/prefix/ws/", 5, many=True).path == "/prefix/ws/"
    with pytest.raises(BadSpec, match="without a room"):
        read_endpoint("ws://h/ws/chat/{room}/", 5, many=True)


async def test_every_lie_about_one_of_many_rooms_is_counted_exactly(tmp_path: Path) -> None:
    """By one process, and by two that share every room."""
    lies = Lies(drop=0.03, double=0.03, swap=0.03, delay=0.03, foreign=0.03)

    async def lied_to(seed: int, processes: int) -> LyingServer:
        directory = tmp_path / str(seed)
        async with lying_server(lies, seed) as (server, url):
            outcome = await run(directory, "-H", url, *CROWD, "--processes", str(processes))
            await until(lambda: not any(server.rooms.values()), "everyone has left")
        assert {kind: outcome.counts[kind] for kind in KINDS} == {kind: server.tally[kind] for kind in KINDS}
        assert outcome.counts["delivered"] == server.tally["delivered"]
        assert outcome.counts["connected"] == 12
        assert outcome.result["run"]["rooms_per_connection"] == 3
        return server

    servers = await asyncio.gather(lied_to(1, 1), lied_to(2, 2))
    assert all(sum(server.tally[kind] for server in servers) for kind in KINDS), "every kind of lie was told"


async def test_a_room_that_is_refused_is_asked_for_again(tmp_path: Path) -> None:
    """On the same connection; its other rooms stay."""

    def refuse(server: LyingServer) -> None:
        server.refuses_first_joins = True

    async with lying_server(Lies(), prepare=refuse) as (_, url):
        outcome = await run(tmp_path, "-H", url, *CROWD)
    outcome.assert_clean()
    assert outcome.result["refusals"] == {"a join was answered busy": 8}
    assert outcome.counts["connected"] == 12
    assert outcome.counts["never_in"] == 0


async def test_a_room_that_the_server_ends_is_joined_again(tmp_path: Path) -> None:
    """Nothing is owed of it meanwhile, the connection stays, and the report says why it was left."""

    def end(server: LyingServer) -> None:
        server.ends_at = 20

    async with lying_server(Lies(), prepare=end) as (server, url):
        outcome = await run(tmp_path, "-H", url, *CROWD)
    outcome.assert_clean()
    assert outcome.result["closes"] == {"a room was left: error": 8}
    assert outcome.counts["not_recovered"] == 8
    assert outcome.counts["connected"] == 12
    assert outcome.counts["delivered"] == server.tally["delivered"]


async def test_many_rooms_on_two_nodes_lose_nothing_as_users_come_and_go(nodes: list[Node], tmp_path: Path) -> None:
    """They leave in order, are cut, and come back at once to all their rooms."""
    named = [word for name in ("chatter", "churn", "stampede", "jitter") for word in ("-f", name)]
    fast = ["--set", "every_s=1", "--set", "away_s=0.3", "--set", "stay_s=1"]
    crowd = ("-u", "40", "--rooms", "20", *MANY, "8", "-r", "60", "--rate", "150", "-t", "5s")
    outcome = await run(tmp_path, *urls(nodes), *named, *fast, *crowd)
    outcome.assert_clean()
    assert outcome.counts["sent"] > 0
    assert outcome.counts["resumed"] > 0 and outcome.counts["replayed"] > 0
    assert outcome.counts["resumed"] % 8 == 0, "whole connections come back"
    assert outcome.counts["not_recovered"] == 0
    assert await nodes[0].metric("hiroba_handshakes_total") + await nodes[1].metric("hiroba_handshakes_total") > 40


async def test_a_node_that_is_killed_costs_resuming_users_of_many_rooms_nothing(
    nodes: list[Node], tmp_path: Path
) -> None:
    crowd = ("-u", "30", "--rooms", "12", *MANY, "6", "-r", "100", "--rate", "100", "-t", "10m")
    harness = await start(tmp_path, "--prometheus-port", "0", *urls(nodes), *crowd)

    async def sessions() -> list[float]:
        return [await node.metric("hiroba_sessions_live") for node in nodes]

    async def all_are_in() -> bool:
        return await sessions() == [90, 90]

    await until(all_are_in, "all users are in all rooms", within_s=60)
    await nodes[0].kill()

    async def all_are_back() -> bool:
        return await nodes[1].metric("hiroba_sessions_live") == 180

    await until(all_are_back, "all users are on the second node", within_s=60)
    harness.process.send_signal(signal.SIGINT)
    outcome = await harness.finish()
    outcome.assert_clean()
    assert outcome.counts["resumed"] == 15 * 6
    assert outcome.counts["closed"] == 15
    assert outcome.counts["gaps"] == outcome.counts["not_recovered"] == 0


async def test_a_server_that_allows_fewer_rooms_is_named_with_its_setting(
    start_broker: BrokerFactory, tmp_path: Path
) -> None:
    broker = await start_broker(kind="redis")
    node = Node(broker.url, tmp_path, "strict", rooms_per_connection_max=2)
    await node.start()
    outcome = await run(
        tmp_path, *urls([node]), "-u", "3", "-r", "9", *MANY, "3", "--rate", "9", "-t", "2s", "--settle", "1s"
    )
    await node.kill()
    assert any("too_many_rooms" in note and "rooms_per_connection_max" in note for note in outcome.result["notes"])
    assert outcome.counts["never_in"] == 3
    assert outcome.exit_code in (98, 99)
