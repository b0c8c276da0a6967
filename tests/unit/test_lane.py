"""A lane's connection against a server of the test's own that says what no real one can be made to say."""

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import hiredis
import pytest

from gateway.broker.connection import Connection
from gateway.broker.doorbell import Doorbell
from gateway.broker.endpoint import Endpoint
from gateway.broker.errors import BrokerGone, BrokerRefused
from gateway.broker.lane import Lane
from gateway.telemetry.metrics import Metrics
from tests.support.until import BUDGET_S, until


class Peer:
    """One connection as the server sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.ended = False
        self._parser = hiredis.Reader()

    async def command(self) -> list[bytes] | None:
        """The next command; None: the connection ended."""
        while (command := self._parser.gets()) is False:
            try:
                data = await self.reader.read(65_536)
            except ConnectionError:
                data = b""
            if not data:
                self.ended = True
                return None
            self._parser.feed(data)
        return list(command)

    async def commands(self, count: int) -> list[list[bytes] | None]:
        return [await self.command() for _ in range(count)]

    def say(self, data: bytes) -> None:
        self.writer.write(data)


class Server:
    """A RESP server without a mind of its own. `serve` may be set to something that answers."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self.port = 0
        self.serve: Callable[[Peer], Any] | None = None

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self.peers.append(peer)
        if self.serve is not None:
            await self.serve(peer)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    listening = await asyncio.start_server(server.accept, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    yield server
    listening.close()
    for peer in server.peers:
        peer.writer.transport.abort()


class Counted(Connection):
    """Counts what arrived, so that the server can wait between two bytes."""

    def __init__(self, pushes: list[list[Any]], strays: list[BrokerRefused]) -> None:
        super().__init__(pushes.append, strays.append)
        self.pushes = pushes
        self.strays = strays
        self.arrived = 0

    def data_received(self, data: bytes) -> None:
        self.arrived += len(data)
        super().data_received(data)


@asynccontextmanager
async def connected(server: Server) -> AsyncIterator[tuple[Counted, Peer]]:
    count = len(server.peers)
    _, connection = await asyncio.get_running_loop().create_connection(
        lambda: Counted([], []), "127.0.0.1", server.port
    )
    await until(lambda: len(server.peers) > count, "the server accepts")
    try:
        yield connection, server.peers[-1]
    finally:
        connection.abort(BrokerGone("the test is over"))


async def said(connection: Counted, peer: Peer, parts: Iterator[bytes]) -> None:
    """Each part arrives by itself."""
    for part in parts:
        expected = connection.arrived + len(part)
        peer.say(part)
        await until(lambda expected=expected: connection.arrived == expected, "the part arrives", every_s=0)


# Five replies, a push before, between and behind them; the kinds of reply that the node asks for.
PUSH = b">3\r\n$8\r\nsmessage\r\n$1\r\nc\r\n$0\r\n\r\n"
STREAM = (
    PUSH + b"+OK\r\n" + PUSH + b":42\r\n-WRONGTYPE no stream\r\n" + b"%1\r\n$1\r\nk\r\n*1\r\n*2\r\n$3\r\n1-1\r\n*1\r\n"
    b"$2\r\n\r\n\r\n" + PUSH + b"_\r\n" + PUSH
)
PUSHED = [b"smessage", b"c", b""]


async def answers(connection: Counted, peer: Peer, parts: Iterator[bytes]) -> None:
    asked = [connection.ask("GET", str(at)) for at in range(5)]
    assert await peer.commands(5) == [[b"GET", b"%d" % at] for at in range(5)]
    await said(connection, peer, parts)
    ok, number, wrong, read, nothing = await asyncio.gather(*asked, return_exceptions=True)
    assert (ok, number, nothing) == (b"OK", 42, None)
    assert isinstance(wrong, BrokerRefused) and (wrong.code, str(wrong)) == ("WRONGTYPE", "WRONGTYPE no stream")
    assert read == {b"k": [[b"1-1", [b"\r\n"]]]}
    assert list(map(list, connection.pushes)) == [PUSHED] * 4
    assert connection.strays == [] and not connection.lost.done()


async def test_replies_find_who_asked_wherever_the_stream_is_cut(server: Server) -> None:
    for cut in range(1, len(STREAM)):
        async with connected(server) as (connection, peer):
            await answers(connection, peer, iter((STREAM[:cut], STREAM[cut:])))


async def test_replies_come_byte_by_byte_and_all_at_once(server: Server) -> None:
    for parts in ([bytes((byte,)) for byte in STREAM], [STREAM]):
        async with connected(server) as (connection, peer):
            await answers(connection, peer, iter(parts))


async def test_who_stopped_waiting_keeps_its_place(server: Server) -> None:
    """A joiner's deadline passes while its command is under way: the next one must not get its reply."""
    async with connected(server) as (connection, peer):
        first, second, third = (connection.ask("GET", name) for name in ("a", "b", "c"))
        second.cancel()
        await peer.commands(3)
        peer.say(b"$1\r\na\r\n-ERR for nobody\r\n$1\r\nc\r\n")
        assert (await first, await third) == (b"a", b"c")
        assert second.cancelled() and connection.strays == []


async def test_what_is_told_takes_no_place(server: Server) -> None:
    """SSUBSCRIBE is answered by pushes; when it fails, by an error reply that belongs to nobody."""
    async with connected(server) as (connection, peer):
        connection.tell("SSUBSCRIBE", b"c")
        assert await peer.command() == [b"SSUBSCRIBE", b"c"]
        peer.say(b"-NOPERM no channel\r\n")
        await until(lambda: connection.strays, "the refusal is heard")
        assert connection.strays[0].code == "NOPERM" and not connection.lost.done()
        asked = connection.ask("PING")
        await peer.command()
        peer.say(PUSH + b"+PONG\r\n")
        assert await asked == b"PONG"


@pytest.mark.parametrize(
    "reply",
    ["LOADING Redis is loading the dataset in memory", "READONLY You can't write against a read only replica.",
     "MASTERDOWN Link with MASTER is down", "CLUSTERDOWN The cluster is down", "MOVED 3999 127.0.0.1:6381",
     "NOAUTH Authentication required."],
    ids=lambda reply: reply.split()[0],
)  # fmt: skip
async def test_a_server_that_cannot_serve_is_left(server: Server, reply: str) -> None:
    """Everybody hears why, those who were not answered yet too; what follows in the stream is nobody's."""
    async with connected(server) as (connection, peer):
        asked = [connection.ask("GET", str(at)) for at in range(3)]
        await peer.commands(3)
        peer.say(f"+OK\r\n-{reply}\r\n+OK\r\n".encode())
        first, *others = await asyncio.gather(*asked, return_exceptions=True)
        assert first == b"OK"
        assert all(isinstance(other, BrokerGone) and str(other).startswith(reply) for other in others)
        assert await peer.command() is None, "the server sees us leave"
        with pytest.raises(BrokerGone, match=reply.split()[0]):
            await connection.ask("GET", "late")


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400 Bad Request\r\n", b"\x15\x03\x01\x00\x02\x02\x46", b":a\r\n"])
async def test_who_speaks_something_else_is_left(server: Server, garbage: bytes) -> None:
    async with connected(server) as (connection, peer):
        asked = connection.ask("GET", "a")
        await peer.command()
        peer.say(garbage)
        with pytest.raises(BrokerGone):
            await asked
        assert await peer.command() is None


async def test_a_refusal_of_what_was_told_is_not_taken_for_the_answer_to_what_was_asked(server: Server) -> None:
    """A connection that is subscribed is asked as well whether it is there. Replies come in the order of commands."""
    async with connected(server) as (connection, peer):
        connection.tell("SSUBSCRIBE", b"c")
        first = connection.ask("PING")
        connection.tell("SSUBSCRIBE", b"d", b"e")
        second = connection.ask("PING")
        third = connection.ask("GET", "a")
        await peer.commands(5)
        peer.say(b">3\r\n$10\r\nssubscribe\r\n$1\r\nc\r\n:1\r\n" + PUSH + b"+one\r\n")
        peer.say(b"-NOPERM no channel\r\n" + PUSH + b"+two\r\n-WRONGTYPE no string\r\n")
        assert (await first, await second) == (b"one", b"two")
        with pytest.raises(BrokerRefused, match="WRONGTYPE"):
            await third
        assert [stray.code for stray in connection.strays] == ["NOPERM"]


async def test_a_lost_connection_answers_everybody(server: Server) -> None:
    async with connected(server) as (connection, peer):
        asked = [connection.ask("GET", str(at)) for at in range(3)]
        await peer.commands(3)
        peer.say(b"+OK\r\n$100\r\nhalf a rep")
        await asked[0]
        peer.writer.transport.abort()
        for question in asked[1:]:
            with pytest.raises(BrokerGone, match="connection lost"):
                await question
        assert isinstance(await connection.lost, BrokerGone)
        connection.tell("SSUBSCRIBE", b"c")  # a connection that is gone takes it without a word
        connection.abort(BrokerGone("again"))
        assert "connection lost" in str(connection.lost.result()), "the first reason stays"


# ---- the lane: a connection that comes back ----


def answer(peer: Peer, command: list[bytes], seen: list[list[bytes]], role: bytes = b"master") -> None:
    """As Redis greets, client ids counting up."""
    seen.append(command)
    match command[0]:
        case b"HELLO":
            peer.say(b"%1\r\n$5\r\nproto\r\n:3\r\n")
        case b"CLIENT" if command[1] == b"ID":
            peer.say(b":%d\r\n" % (100 + sum(one[:2] == [b"CLIENT", b"ID"] for one in seen)))
        case b"CLIENT":
            peer.say(b"-ERR No such client\r\n")
        case b"SSUBSCRIBE" | b"SUNSUBSCRIBE":
            pass  # answered by pushes
        case b"INFO":
            info = b"txt:# Server\r\nrun_id:" + b"a" * 40 + b"\r\nrole:" + role + b"\r\n"
            peer.say(b"=%d\r\n%b\r\n" % (len(info), info))
        case _:
            peer.say(b"+OK\r\n")


async def greet(peer: Peer, seen: list[list[bytes]], role: bytes = b"master") -> None:
    while (command := await peer.command()) is not None:
        answer(peer, command, seen, role)


async def mute(peer: Peer) -> None:
    """Reads, and never answers."""
    while await peer.command() is not None:
        pass


@asynccontextmanager
async def running(server: Server, timeout_s: float, url: str = "redis://127.0.0.1:{port}/0") -> AsyncIterator[Lane]:
    endpoint = Endpoint(url.format(port=server.port), timeout_s)
    lane = Lane("test", "n1", endpoint, timeout_s, 3600, lambda name, down: None)
    run = asyncio.create_task(lane.run())
    try:
        yield lane
    finally:
        run.cancel()
        await asyncio.wait([run])


async def test_a_lane_ends_its_former_connection_before_it_asks_anything(server: Server) -> None:
    """A request of the old connection that is still on its way must not move a group afterwards."""
    seen: list[list[bytes]] = []
    server.serve = lambda peer: greet(peer, seen)
    async with running(server, 20, "redis://app:geheim@127.0.0.1:{port}/3") as lane:
        await lane.up()
        lane.drop("the test says so")
        await until(lambda: len(server.peers) == 2 and lane.is_up, "the lane comes back")
        assert await lane.ask("PING") == b"OK"
    hello = [b"HELLO", b"3", b"AUTH", b"app", b"geheim", b"SETNAME", b"hiroba-n1-test"]
    select, info, id = [b"SELECT", b"3"], [b"INFO", b"server", b"replication"], [b"CLIENT", b"ID"]
    kill = [b"CLIENT", b"KILL", b"ID", b"101"]
    assert seen == [hello, select, info, id, hello, select, info, kill, id, [b"PING"]]


@pytest.mark.parametrize(
    ("ending", "demoted"),
    [(b"-READONLY You can't write against a read only replica.\r\n", 1), (b"\x15\x03\x01\r\n", 0)],
)
async def test_what_ends_a_connection_in_one_read_with_its_greeting_is_noticed(
    server: Server, ending: bytes, demoted: int
) -> None:
    """The lane said that it was up, and the other lanes stayed with a server that had become a replica."""
    changes: list[str | None] = []
    reasons: list[str] = []
    ups: list[int] = []

    async def greet_and_end(peer: Peer) -> None:
        while (command := await peer.command()) is not None:
            if command[:2] == [b"CLIENT", b"ID"]:
                peer.say(b":1\r\n" + ending)
            else:
                answer(peer, command, [])

    server.serve = greet_and_end
    endpoint = Endpoint(f"redis://127.0.0.1:{server.port}", 20)
    lane = Lane("test", "n1", endpoint, 20, 3600, lambda _, why: changes.append(why))
    lane.on_demoted = reasons.append
    lane.on_up = lambda: ups.append(1)
    run = asyncio.create_task(lane.run())
    await until(lambda: changes, "it ends")
    run.cancel()
    await asyncio.wait([run])
    assert None not in changes and not ups
    assert len(reasons) == demoted


async def test_who_asks_a_lost_connection_and_never_looks_costs_no_log_line(server: Server) -> None:
    """An exception that nobody retrieves is a traceback of asyncio's, once for each that asked."""
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    async with connected(server) as (connection, _):
        connection.abort(BrokerGone("gone"))
        connection.ask("GET", "a")
    gc.collect()
    assert told == []


async def test_a_lane_that_is_down_says_so_at_once(server: Server) -> None:
    server.serve = lambda peer: peer.command()
    async with running(server, 20) as lane:
        await until(lambda: server.peers, "the lane connects")
        for use in (lane.ask, lane.tell):
            with pytest.raises(BrokerGone, match="the test lane is down"):
                use("PING")


async def test_a_server_that_never_answers_costs_one_connection_not_many(server: Server) -> None:
    """A frozen broker (SIGSTOP) accepts for ever: each try must let go of the last one's connection."""
    server.serve = mute
    async with running(server, 0.05):
        await until(lambda: sum(peer.ended for peer in server.peers) >= 3, "tries end")
        assert sum(not peer.ended for peer in server.peers) <= 1


@pytest.mark.parametrize("first", [mute, lambda peer: greet(peer, [], b"slave")], ids=["frozen", "a replica"])
async def test_the_next_try_goes_to_another_address_of_the_name(
    server: Server, monkeypatch: pytest.MonkeyPatch, first: Callable[[Peer], Any]
) -> None:
    """A frozen server accepts connections: the first address that does so is not the one that answers."""
    server.serve = first
    other = Server()
    other.serve = lambda peer: greet(peer, [])
    listening = await asyncio.start_server(other.accept, "127.0.0.2", server.port)

    async def both(host: str, port: int) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (at, port)) for at in ("127.0.0.1", "127.0.0.2")]

    monkeypatch.setattr("gateway.broker.dial._addresses", both)
    async with running(server, 0.3) as lane:
        await lane.up()
        assert len(other.peers) == 1 and 1 <= len(server.peers) <= 2
    listening.close()
    for peer in other.peers:
        peer.writer.transport.abort()


async def test_a_replica_is_left_before_anything_is_asked_of_it(server: Server) -> None:
    """As after a failover, by a name or an address that did not follow."""
    seen: list[list[bytes]] = []
    server.serve = lambda peer: greet(peer, seen, b"slave")
    reasons: list[str | None] = []
    lane = Lane(
        "test", "n1", Endpoint(f"redis://127.0.0.1:{server.port}", 20), 20, 3600, lambda _, why: reasons.append(why)
    )
    run = asyncio.create_task(lane.run())
    await until(lambda: len(reasons) >= 3, "it tries again")
    assert set(reasons) == {f"127.0.0.1:{server.port} is a replica: only a master takes messages"}
    assert not lane.is_up and {command[0] for command in seen} == {b"HELLO", b"INFO"}
    run.cancel()
    await asyncio.wait([run])


@pytest.mark.parametrize("reply", [b"+OK\r\n", b":1\r\n", b"_\r\n", b"*1\r\n+a\r\n"])
async def test_a_lane_outlives_who_answers_hello_with_something_else(server: Server, reply: bytes) -> None:
    """A balancer or a test double behind the broker's address ended the lane, and with it the node."""

    async def greet_so(peer: Peer) -> None:
        while await peer.command() is not None:
            peer.say(reply)

    server.serve = greet_so
    async with running(server, 5) as lane:
        await until(lambda: len(server.peers) > 1, "it tries again")
        assert not lane.is_up


async def test_a_lane_that_is_told_of_another_server_waits_no_longer(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failover takes seconds, by which the pause between two tries has grown as long."""
    monkeypatch.setattr("gateway.broker.lane.BACKOFF_FIRST_S", 3600)
    server.serve = mute
    async with running(server, 0.05) as lane:
        await until(lambda: server.peers and server.peers[0].ended, "the first try ends")
        seen: list[list[bytes]] = []
        server.serve = lambda peer: greet(peer, seen)

        def back() -> bool:
            if not lane.is_up:
                lane.give_up("there is another")
            return lane.is_up

        await until(back, "it is back")


async def test_what_was_asked_is_answered_before_a_connection_is_left(server: Server) -> None:
    """A publish that is answered is not sent again to the next server."""
    async with connected(server) as (connection, peer):
        asked = [connection.ask("GET", str(at)) for at in range(2)]
        await peer.commands(2)
        connection.give_up(BrokerGone("there is another"))
        assert not connection.lost.done()
        peer.say(b"+one\r\n+two\r\n")
        assert await asyncio.gather(*asked) == [b"one", b"two"]
        assert str(await connection.lost) == "there is another"


async def test_who_stopped_waiting_keeps_no_connection_that_is_left(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.broker.connection.GIVE_UP_S", 3600)
    async with connected(server) as (connection, peer):
        asked = connection.ask("GET", "a")
        await peer.command()
        connection.give_up(BrokerGone("there is another"))
        asked.cancel()
        peer.say(b"+one\r\n")
        async with asyncio.timeout(BUDGET_S):
            await connection.lost


async def test_a_server_that_does_not_answer_is_left_all_the_same(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.broker.connection.GIVE_UP_S", 0.05)
    async with connected(server) as (connection, peer):
        asked = connection.ask("GET", "a")
        await peer.command()
        connection.give_up(BrokerGone("there is another"))
        with pytest.raises(BrokerGone, match="there is another"):
            await asked


async def test_a_channel_that_may_not_be_left_costs_no_joiner_another(server: Server) -> None:
    """A denial of SUNSUBSCRIBE names no channel, as that of SSUBSCRIBE does not."""
    server.serve = lambda peer: greet(peer, seen)
    seen: list[list[bytes]] = []
    async with running(server, 20) as lane:
        bells = Doorbell(lane, lambda channel, bell: None, lambda channel: None, Metrics(), 20)
        await lane.up()
        (peer,) = server.peers
        former, joining = (asyncio.create_task(bells.subscribe((channel,))) for channel in (b"former", b"joining"))
        await until(lambda: [b"SSUBSCRIBE", b"joining"] in seen, "both are asked for")
        peer.say(b">3\r\n+ssubscribe\r\n+former\r\n:1\r\n")
        await former
        bells.unsubscribe((b"former",))
        await until(lambda: [b"SUNSUBSCRIBE", b"former"] in seen, "one is left")
        peer.say(b"-NOPERM User gateway has no permissions to run the 'sunsubscribe' command\r\n")
        peer.say(b">3\r\n+ssubscribe\r\n+joining\r\n:2\r\n")
        await joining


# ---- a connection that is silent, a server that became a replica ----


@asynccontextmanager
async def proved(server: Server, silence_s: float) -> AsyncIterator[tuple[Lane, list[str]]]:
    """A lane that is up, and why others were told to leave."""
    endpoint = Endpoint(f"redis://127.0.0.1:{server.port}/0", 20)
    lane = Lane("test", "n1", endpoint, 20, silence_s, lambda name, down: None)
    demoted: list[str] = []
    lane.on_demoted = demoted.append
    run = asyncio.create_task(lane.run())
    await lane.up()
    try:
        yield lane, demoted
    finally:
        run.cancel()
        await asyncio.wait([run])


async def test_a_connection_that_leaves_a_question_open_is_left_and_the_next_has_twice_the_time(server: Server) -> None:
    """A broker that is slow, and not away, must not be asked to greet again and again."""
    asked: list[list[bytes]] = []

    async def silent_once_greeted(peer: Peer) -> None:
        greeted: list[list[bytes]] = []
        while (command := await peer.command()) is not None:
            if greeted[-1:] == [[b"CLIENT", b"ID"]]:
                asked.append(command)
            else:
                answer(peer, command, greeted)

    server.serve = silent_once_greeted
    async with proved(server, silence_s=3) as (lane, demoted):
        assert lane.prove(10) and lane.prove(12.9) and lane.is_up
        assert not lane.prove(13) and not lane.is_up
        await until(lambda: lane.is_up, "another connection")
        assert lane.prove(20) and lane.prove(25.9)
        assert not lane.prove(26)
        await until(lambda: lane.is_up, "a third one")
        lane.prove(30)
        await until(lambda: len(asked) == 3, "each was asked once")
        assert asked == [[b"INFO", b"replication"]] * 3 and not demoted


async def test_a_connection_that_answers_has_all_its_time_again(server: Server) -> None:
    seen: list[list[bytes]] = []
    server.serve = lambda peer: greet(peer, seen)
    async with proved(server, silence_s=3) as (lane, _):
        for now in range(0, 100, 10):
            assert lane.prove(now)
            await until(lambda: lane._doubted is None, "it answers")
        assert lane.is_up and len(server.peers) == 1


@pytest.mark.parametrize("how", ["asked whether it is there", "asked for entries"])
async def test_a_server_that_became_a_replica_is_left_by_who_only_reads(server: Server, how: str) -> None:
    """It answers reads, from what it has, and would for ever. What it answered is not believed."""
    role = b"master"

    async def exchanged(peer: Peer) -> None:
        while (command := await peer.command()) is not None:
            answer(peer, command, [], role)

    server.serve = exchanged
    async with proved(server, silence_s=3) as (lane, demoted):
        assert await lane.ask_master("XRANGE", "log", "-", "+") == b"OK"
        assert not demoted
        role = b"slave"
        if how == "asked for entries":
            with pytest.raises(BrokerGone, match="is a replica now"):
                await lane.ask_master("XRANGE", "log", "-", "+")
        else:
            lane.prove(0)
        await until(lambda: demoted, "others are told")
        assert demoted == [f"127.0.0.1:{server.port} is a replica now"] and not lane.is_up
