"""Read markers whatever befalls nodes and broker: none moves back, and a user's devices agree in the end."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from gateway.broker.keys import Keys
from tests.cluster.conftest import QUICK, redis_only
from tests.conftest import NodeFactory
from tests.support import process
from tests.support.broker import Broker, BrokerOptions
from tests.support.client import Client, Crowd
from tests.support.node import Node
from tests.support.proxy import Proxy
from tests.support.raw import frame
from tests.support.tokens import SECRET, by
from tests.support.until import until

ROOMS = ["one", "two"]
KEYS: dict[str, object] = {"token_keys": f"HS256:{SECRET}"}


def key(user: str) -> bytes:
    return Keys("hiroba", 0).read(user)


Id = tuple[int, int]


def id_of(text: str) -> Id:
    ms, _, n = text.partition("-")
    return int(ms), int(n)


class Device:
    """A client as docs/protocol.md would have it: per room the newest id that it knows, and the largest marker."""

    def __init__(self, client: Client, former: "Device | None" = None) -> None:
        self.client = client
        self.said: dict[str, str] = {} if former is None else former.said
        self._told: dict[str, str] = {} if former is None else former.markers

    async def read(self, room: str, id: str) -> None:
        """Up to here, for all that this device knows; what is behind its marker is said all the same."""
        self.said[room] = max(id, self.said.get(room, id), key=id_of)
        await self.client.send(json.dumps({"type": "read", "room": room, "id": id}))

    def _knows(self) -> Iterator[tuple[str, str, str]]:
        for told in self.client.heard:
            if told["type"] in ("joined", "message", "read"):
                yield told["room"], told.get("last_id") or told["id"], told["type"]
            if told["type"] == "joined" and told["read"]:
                yield told["room"], told["read"], "read"
            for room, id in told.get("rooms", {}).items() if told["type"] == "tops" else ():
                yield room, id, "tops"
            for room, id in told.get("read", {}).items() if told["type"] == "tops" else ():
                yield room, id, "read"

    @property
    def markers(self) -> dict[str, str]:
        markers = dict(self._told)
        for room, id, what in [*self._knows(), *((room, id, "read") for room, id in self.said.items())]:
            if what == "read":
                markers[room] = max(id, markers.get(room, id), key=id_of)
        return markers

    @property
    def newest(self) -> dict[str, str]:
        newest: dict[str, str] = {}
        for room, id, what in self._knows():
            if what != "read":
                newest[room] = max(id, newest.get(room, id), key=id_of)
        return newest

    @property
    def unread(self) -> dict[str, int]:
        """n of the newest less n of the marker."""
        markers = self.markers
        return {
            room: 0
            if id_of(id) <= id_of(markers.get(room, "0-0"))
            else id_of(id)[1] - id_of(markers.get(room, "0-0"))[1]
            for room, id in self.newest.items()
        }


async def come(crowd: Crowd, node: Node, user: str, *rooms: str) -> Device:
    """A device that is in these rooms."""
    client = await crowd.come(node, headers=by(user))
    await client.ask_all([{"type": "join", "room": room} for room in rooms])
    return Device(client)


async def say(client: Client, room: str, count: int = 1) -> list[str]:
    answers = await client.ask_all([{"type": "message", "room": room, "message": at} for at in range(count)])
    return [answer["id"] for answer in answers]


async def agree(room: str, id: str, *devices: Device) -> None:
    for device in devices:
        await device.client.until(lambda device=device: device.markers.get(room) == id, f"{room} is read up to {id}")  # type: ignore[misc]


async def kept(redis: Redis, user: str, room: str, id: str) -> None:
    async def there() -> bool:
        return bool(await redis.hget(key(user), room) == id.encode())

    await until(there, f"the broker keeps {id} of {user} in {room}")


# ---- against a model ----

# What befalls a user's devices: so much is said in a room; one reads up to the k-th newest entry; one goes and comes
# back by the other node (to watch or to join); both wait until they agree.
steps = st.one_of(
    st.tuples(st.just("say"), st.sampled_from(ROOMS), st.integers(1, 3)),
    st.tuples(st.just("read"), st.integers(0, 1), st.sampled_from(ROOMS), st.integers(0, 4)),
    st.tuples(st.just("return"), st.integers(0, 1), st.booleans()),
    st.tuples(st.just("agree")),
)
stories = st.lists(st.lists(steps, max_size=10), min_size=6, max_size=6)


class Story:
    """One user with two devices on two nodes, beside somebody who speaks; and the model: two numbers per room."""

    def __init__(self, crowd: Crowd, nodes: list[Node], name: str) -> None:
        self.crowd = crowd
        self.nodes = nodes
        self.name = name
        self.ids: dict[str, list[str]] = {room: [] for room in ROOMS}
        self.read: dict[str, int] = dict.fromkeys(ROOMS, 0)
        self.devices: list[Device] = []

    async def begin(self) -> None:
        self.speaker = (await come(self.crowd, self.nodes[0], "speaker", *map(self._room, ROOMS))).client
        self.devices = [await come(self.crowd, node, self.name, *map(self._room, ROOMS)) for node in self.nodes]

    def _room(self, room: str) -> str:
        return f"{self.name}-{room}"

    async def tell(self, plan: list[tuple[Any, ...]]) -> None:
        await self.begin()
        for act, *arguments in plan:
            await getattr(self, f"_{act}")(*arguments)
        await self._agree()
        self.devices = [await come(self.crowd, node, self.name, *map(self._room, ROOMS)) for node in self.nodes]
        await self._agree()

    async def _agree(self) -> None:
        wanted = {self._room(room): len(ids) - self.read[room] for room, ids in self.ids.items()}
        for device in self.devices:
            await device.client.until(lambda device=device: device.unread == wanted, f"unread {wanted}")  # type: ignore[misc]

    async def _say(self, room: str, count: int) -> None:
        self.ids[room] += await say(self.speaker, self._room(room), count)

    async def _read(self, device: int, room: str, back: int) -> None:
        n = len(self.ids[room]) - back
        if n > 0:
            await self.devices[device].read(self._room(room), self.ids[room][n - 1])
            self.read[room] = max(self.read[room], n)

    async def _return(self, device: int, watches: bool) -> None:
        """Its socket breaks; what it had said may be lost with it, so it says its markers again."""
        former = self.devices[device]
        former.client.cut()
        self.nodes = self.nodes[::-1]
        client = await self.crowd.come(self.nodes[device], headers=by(self.name))
        rooms = [self._room(room) for room in ROOMS]
        if watches:
            await client.ask("watch", rooms=rooms)
        else:
            await client.ask_all([{"type": "join", "room": room} for room in rooms])
        back = self.devices[device] = Device(client, former)
        for room, id in former.said.items():
            await back.read(room, id)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    """Two nodes that outlive the stories."""
    directory = tmp_path_factory.mktemp("markers")
    broker = Broker(directory / "broker", BrokerOptions())
    nodes = [Node(broker.url, directory, name, **{**QUICK, **KEYS}) for name in ("here", "there")]

    async def start() -> None:
        await broker.start()
        await asyncio.gather(*(node.start() for node in nodes))

    asyncio.run(start())
    process.started.clear()
    yield nodes
    for child in (*(node.process for node in nodes), broker.process):
        child.kill_now()
    assert not [line for node in nodes for line in node.lines() if '"level": "error"' in line]


def test_unread_is_what_was_said_less_what_was_read(house: list[Node]) -> None:
    """Whatever two devices on two nodes do at once, and however they come and go: both count the same."""
    told = 0
    with asyncio.Runner() as runner:

        @settings(max_examples=5, phases=[Phase.generate])  # what fails has waited long: no shrinking
        @given(stories)
        def stories_come_true(plans: list[list[tuple[Any, ...]]]) -> None:
            nonlocal told

            async def all_at_once() -> None:
                async with Crowd() as crowd:
                    tales = (Story(crowd, house, f"user{told}x{at}").tell(plan) for at, plan in enumerate(plans))
                    await asyncio.gather(*tales)

            told += 1
            runner.run(all_at_once())

        stories_come_true()


# ---- faults ----


async def test_markers_survive_a_broker_that_is_killed_and_those_said_meanwhile_are_written(
    broker: Broker, quick_node: NodeFactory, crowd: Crowd
) -> None:
    """Nobody is told of an error: a marker can wait. Of what was said meanwhile the last one is there."""
    here, there = await asyncio.gather(quick_node(**KEYS), quick_node(**KEYS))
    phone, laptop = await come(crowd, here, "ann", *ROOMS), await come(crowd, there, "ann", *ROOMS)
    ids = await say(phone.client, "one", 5)
    (other,) = await say(phone.client, "two")
    await phone.read("one", ids[0])
    await agree("one", ids[0], laptop)
    await broker.kill()
    for id in ids[1:4]:
        await phone.read("one", id)
    await laptop.read("two", other)
    await phone.client.ask("ping")
    await broker.start()
    await agree("one", ids[3], phone, laptop)
    await agree("two", other, phone, laptop)
    late = await come(crowd, here, "ann", *ROOMS)
    assert late.markers == {"one": ids[3], "two": other}
    assert not [device for device in (phone, laptop) if device.client.of_type("error")]


@redis_only
async def test_a_full_broker_refuses_markers_with_its_reason_and_nothing_else(
    broker: Broker, quick_node: NodeFactory, crowd: Crowd
) -> None:
    """What was kept stays and is given; who said the marker is told, with the ref, and may say it again."""
    node = await quick_node(**KEYS)
    phone, laptop = await come(crowd, node, "ann", "one"), await come(crowd, node, "ann", "one")
    ids = await say(phone.client, "one", 3)
    async with broker.client() as redis:
        await phone.read("one", ids[0])
        await agree("one", ids[0], laptop)
        await redis.config_set("maxmemory", 1)
        answer = await phone.client.ask("read", room="one", id=ids[1])
        assert (answer["type"], answer["code"], answer["room"]) == ("error", "refused", "one")
        assert "memory is full" in answer["text"]
        assert (await come(crowd, node, "ann", "one")).markers == {"one": ids[0]}
        await redis.config_set("maxmemory", 0)
    await phone.read("one", ids[2])
    await agree("one", ids[2], laptop)


@redis_only
async def test_what_was_evicted_or_flushed_is_as_if_it_had_never_been_read(
    broker: Broker, quick_node: NodeFactory, crowd: Crowd
) -> None:
    """Those who know a marker keep it; who comes is told of none, until one is said again."""
    node = await quick_node(**KEYS)
    phone, laptop = await come(crowd, node, "ann", "one"), await come(crowd, node, "ann", "one")
    ids = await say(phone.client, "one", 3)
    await phone.read("one", ids[1])
    await agree("one", ids[1], laptop)
    async with broker.client() as redis:
        await redis.delete(key("ann"))
        tablet = await come(crowd, node, "ann", "one")
        assert tablet.markers == {}
        assert laptop.markers == {"one": ids[1]}
        await laptop.read("one", ids[0])
        await agree("one", ids[0], tablet)
        await phone.read("one", ids[2])
        await agree("one", ids[2], tablet, laptop)


@redis_only
async def test_a_move_that_nobody_heard_of_is_told_once_another_one_is(
    broker: Broker, quick_node: NodeFactory, crowd: Crowd
) -> None:
    """Moves are counted: who hears the seventh behind the fifth asks for all."""
    node = await quick_node(**KEYS)
    phone, laptop = await come(crowd, node, "ann", *ROOMS), await come(crowd, node, "ann", *ROOMS)
    ids = await say(phone.client, "one", 3)
    (other,) = await say(phone.client, "two")
    await phone.read("one", ids[0])
    await agree("one", ids[0], laptop)
    async with broker.client() as redis:
        await redis.hset(key("ann"), "one", ids[1])
        await redis.hincrby(key("ann"), "#")
    await phone.read("two", other)
    await agree("one", ids[1], phone, laptop)
    assert laptop.markers["two"] == other


@redis_only
async def test_what_moved_while_the_doorbell_was_cut_is_told_once_it_is_back(
    broker: Broker, quick_node: NodeFactory, crowd: Crowd
) -> None:
    """Of a thousand users few moved meanwhile: the others' markers are counted, not asked for."""
    async with Proxy(broker.port) as proxy, broker.client() as redis:
        far = await quick_node(broker_url=broker.url_at("127.0.0.1", proxy.port), **KEYS)
        near = await quick_node(**KEYS)
        phone, laptop = await come(crowd, near, "ann", "one"), await come(crowd, far, "ann", "one")
        await come(crowd, far, "bob", "one")
        ids = await say(phone.client, "one", 2)
        await phone.read("one", ids[0])
        await agree("one", ids[0], laptop)
        bells = await proxy.link_named("-doorbell", redis)
        bells.down.freeze()
        await phone.read("one", ids[1])
        await kept(redis, "ann", "one", ids[1])
        asked = await far.metric("hiroba_markers_asked_total")
        bells.cut()
        await agree("one", ids[1], laptop)
        assert await far.metric("hiroba_markers_asked_total") == asked + 1


@redis_only
async def test_nonsense_among_a_user_s_markers_harms_nobody(
    broker: Broker, quick_node: NodeFactory, crowd: Crowd
) -> None:
    """A stranger on the channel, in the hash, in its place: counted, read over, refused; and it heals."""
    node = await quick_node(**KEYS)
    phone, laptop = await come(crowd, node, "ann", *ROOMS), await come(crowd, node, "ann", *ROOMS)
    ids = await say(phone.client, "one", 3)
    async with broker.client() as redis:
        for news in (b"", b"what?", b"7", b"7\n", b"7\none", b"7\none 1 s", b"7\none x-y s", b"\xff\n\xff \xff \xff"):
            assert await redis.execute_command("SPUBLISH", key("ann"), news) == 1

        async def counted() -> bool:
            return await node.metric("hiroba_broker_nonsense_total", what="marker") == 8

        await until(counted, "nonsense is counted")
        await redis.hset(key("ann"), mapping={"one": "yesterday", "#": "many", "two": b"\xff"})
        assert (await come(crowd, node, "ann", *ROOMS)).markers == {}
        await phone.read("one", ids[0])
        await agree("one", ids[0], laptop)
        await redis.delete(key("ann"))
        await redis.set(key("ann"), "no hash")
        answer = await phone.client.ask("read", room="one", id=ids[1])
        assert (answer["code"], answer["room"]) == ("refused", "one")
        assert (await come(crowd, node, "ann", *ROOMS)).markers == {}
        await redis.delete(key("ann"))
        await phone.read("one", ids[2])
        await agree("one", ids[2], laptop)


@redis_only
async def test_markers_that_wait_for_the_broker_are_bounded(
    broker: Broker, quick_node: NodeFactory, crowd: Crowd
) -> None:
    """read_waiting_max: who says one more is told to try again, and those that wait are written."""
    node = await quick_node(read_waiting_max=2, **KEYS)
    rooms = ["a", "b", "c"]
    phone = await come(crowd, node, "ann", *rooms)
    ids = {room: (await say(phone.client, room))[0] for room in rooms}
    await broker.kill()
    await phone.read("a", ids["a"])
    await phone.read("b", ids["b"])
    answer = await phone.client.ask("read", room="c", id=ids["c"])
    assert (answer["code"], answer["room"]) == ("busy", "c")
    assert await node.metric("hiroba_markers_waiting") == 2
    await broker.start()
    async with broker.client() as redis:
        for room in ("a", "b"):
            await kept(redis, "ann", room, ids[room])
        await phone.read("c", ids["c"])
        await kept(redis, "ann", "c", ids["c"])


@redis_only
async def test_a_node_that_goes_away_writes_what_it_was_told(
    broker: Broker, quick_node: NodeFactory, crowd: Crowd
) -> None:
    """A drain takes its time, and a marker said in its last moment is kept."""
    node = await quick_node(**KEYS)
    phone = await come(crowd, node, "ann", *ROOMS)
    ids = await say(phone.client, "one", 2)
    await phone.read("one", ids[0])
    await phone.read("one", ids[1])
    await phone.client.ask("ping")
    assert await node.stop() == 0
    async with broker.client() as redis:
        assert await redis.hget(key("ann"), "one") == ids[1].encode()


@redis_only
async def test_a_device_that_reads_slowly_is_told_later_what_is_then(
    broker: Broker, quick_node: NodeFactory, crowd: Crowd
) -> None:
    """Its socket is not filled beyond the bound by what another device reads."""
    node = await quick_node(outgoing_bytes_max=4096, message_bytes_max=4096, **KEYS)
    phone = await come(crowd, node, "ann", "one")
    slow = await crowd.connect(node, receive_bytes=4096)
    await slow.enter("one", v1=True, headers="".join(f"{name}: {value}\r\n" for name, value in by("ann").items()))
    slow.write(frame(b'{"type": "watch", "rooms": ["two"]}'))
    ids = await say(phone.client, "one", 3)
    await phone.read("one", ids[0])
    await until(lambda: ids[0] in _reads(slow), "it hears of the first")
    slow.transport.pause_reading()
    fill = json.dumps({"type": "watch", "rooms": [f"{'long' * 20}{at}" for at in range(40)]}).encode()
    slow.write(frame(fill) * 60)  # answers that fill whatever lies between

    async def put_off() -> bool:
        await phone.read("one", ids[1])
        return await node.metric("hiroba_markers_put_off_total") >= 1

    await until(put_off, "it is put off")
    await phone.read("one", ids[2])
    slow.transport.resume_reading()
    await until(lambda: _reads(slow)[-1:] == [ids[2]], "it knows the last one")


def _reads(raw: Any) -> list[str]:
    frames = [json.loads(payload) for payload in raw.payloads()]
    return [frame["id"] for frame in frames if frame["type"] == "read"]
