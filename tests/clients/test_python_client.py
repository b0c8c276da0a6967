"""clients/python against real nodes: what it says is said once, whatever is killed; and the commands on it."""

import asyncio
import subprocess
import sys
import threading
import time

import pytest

from hiroba_client import AsyncHiroba, Deletion, Hiroba, Problem, Publish, Unreachable, User
from tests.conftest import BrokerFactory, NodeFactory
from tests.support.broker import Broker
from tests.support.client import Crowd
from tests.support.node import environment
from tests.support.ports import free_port
from tests.support.until import until

QUICK = {"probe_s": 2, "broker_timeout_s": 1, "publish_timeout_s": 3, "handshake_timeout_s": 3}

pytestmark = pytest.mark.parametrize("broker", ["redis"], indirect=True)


async def test_everything_of_the_api_is_there_and_typed(start_node: NodeFactory, broker: Broker) -> None:
    node = await start_node()
    async with AsyncHiroba(node.ops_url("")) as hiroba:
        first = await hiroba.publish("hall", {"n": 0}, User("7", "Ann"))
        outcomes = await hiroba.broadcast(["hall", "kitchen"], None)
        more = await hiroba.batch([Publish("hall", 1), Publish("部屋", 2, User("8"))])
        assert (outcomes.failed, more.failed) == (0, 0)
        page = await hiroba.history("hall", limit=2)
        assert ([entry.message for entry in page.entries], page.more, page.gaps) == ([None, 1], True, ())
        below = await hiroba.history("hall", before=page.entries[0].id)
        assert [(entry.id, entry.user) for entry in below.entries] == [(first.id, User("7", "Ann"))]
        assert sorted([room.room async for room in hiroba.all_rooms()]) == ["hall", "kitchen", "部屋"]
        assert (await hiroba.room("部屋")).last_id == more.results[1].id
        assert (await hiroba.user("7")).connections == ()
        assert ((await hiroba.presence("hall")).members, (await hiroba.presence("hall")).count) == ((), 0)
        assert (await hiroba.disconnect("7", for_s=1)).heard and (await hiroba.revoke("7")).heard
        assert [one.rooms for one in (await hiroba.nodes()).nodes] == [0]
        assert [(await hiroba.delete_message("hall", first.id)).deleted for _ in range(2)] == [1, 0]
        assert await hiroba.empty_room("hall") == Deletion("hall", 2)
        assert (await hiroba.delete_room("hall")).room == "hall"
        with pytest.raises(Problem) as caught:
            await hiroba.room("nobody")
        assert (caught.value.status, caught.value.code) == (404, "no_room")
        with pytest.raises(Problem) as caught:
            await hiroba.batch([Publish("hall", 1), Publish("no room", 1)])
        assert [fault.pointer for fault in caught.value.errors] == ["#/publishes/1/room"]


async def test_what_it_says_is_said_once_over_a_node_kill_and_a_broker_restart(
    start_node: NodeFactory, start_broker: BrokerFactory, broker: Broker, crowd: Crowd
) -> None:
    """By the client that waits, in a thread as a job has it: it goes on speaking, and each word is there once, in
    order."""
    one, two = await asyncio.gather(start_node(**QUICK), start_node(**QUICK))
    said: list[str] = []
    stop = threading.Event()

    def job() -> None:
        with Hiroba([one.ops_url(""), two.ops_url("")], within_s=60, timeout_s=5) as hiroba:
            while not stop.is_set():
                said.append(hiroba.publish("job", len(said)).id)

    work = asyncio.create_task(asyncio.to_thread(job))
    await until(lambda: len(said) > 20, "it speaks")
    await one.kill()
    before = len(said)
    await until(lambda: len(said) > before + 20, "it speaks by the other one", 60)
    await broker.kill()
    await broker.start()
    before = len(said)
    await until(lambda: len(said) > before + 20, "it speaks by the broker that came back", 60)
    stop.set()
    await work
    read: list[object] = []
    async with AsyncHiroba(two.ops_url("")) as hiroba:
        page = await hiroba.history("job", limit=1_000)
        while page.more:
            read = [entry.message for entry in page.entries] + read
            page = await hiroba.history("job", limit=1_000, before=page.entries[0].id)
        read = [entry.message for entry in page.entries] + read
    assert read == list(range(len(said)))


async def test_nobody_there_is_said_with_the_key_by_which_to_go_on(broker: Broker) -> None:
    began_at = time.monotonic()
    async with AsyncHiroba(f"http://127.0.0.1:{free_port()}", within_s=0.5) as hiroba:
        with pytest.raises(Unreachable) as caught:
            await hiroba.publish("a", 1, idempotency_key="mine")
    assert caught.value.idempotency_key == "mine" and time.monotonic() - began_at < 20
    with pytest.raises(ValueError, match="no address"):
        Hiroba("")


async def test_an_operator_speaks_and_lists_rooms(start_node: NodeFactory, broker: Broker, crowd: Crowd) -> None:
    """`hiroba publish`, `hiroba rooms` with a key of the environment; `hiroba keys` makes, lists, and revokes it."""
    node = await start_node()

    async def hiroba(*argv: str, key: str = "", code: int = 0) -> str:
        env = environment({"api_url": node.ops_url(""), "api_key": key})
        argv = (sys.executable, "-m", "gateway", *argv)
        done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, env=env, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    at = ("--broker-url", broker.url)
    assert "no key" in await hiroba("keys", "list", *at)
    key = (await hiroba("keys", "make", "ops", "--scopes", "publish,read", *at)).strip()
    listed = await hiroba("keys", "list", *at)
    assert "ops" in listed and "publish,read" in listed and key[16:] not in listed

    async def wanted() -> bool:
        return "no_key" in await hiroba("publish", "hall", "x", code=1)

    await until(wanted, "the node wants the key")
    ann = await crowd.join(node, "hall")
    id = (await hiroba("publish", "hall", "やあ", "--user", "7", "--name", "Ann", key=key)).strip()
    await ann.hears("やあ")
    assert ann.ids == [id] and ann.of_type("message")[0]["user"] == {"id": "7", "name": "Ann"}
    assert "hall" in await hiroba("rooms", key=key)
    assert "not_found" not in await hiroba("publish", "hall", "{", "--json", key=key, code=2)
    assert "moderate" in await hiroba("delete", "hall", id, key=key, code=1)
    assert "good no more" in await hiroba("keys", "revoke", "ops", *at)
    assert "there is no key" in await hiroba("keys", "revoke", "ops", *at, code=2)


async def test_an_operator_deletes_at_a_prompt(start_node: NodeFactory, broker: Broker, crowd: Crowd) -> None:
    """`hiroba delete`: a message, all of a room, the room; and says what is not there."""
    node = await start_node()
    ann = await crowd.join(node, "hall")
    for n in range(3):
        await ann.say(n)
    await ann.hears(0, 1, 2)

    async def delete(*argv: str, code: int = 0) -> str:
        argv = (sys.executable, "-m", "gateway", "delete", *argv)
        env = environment({"api_url": node.ops_url("")})
        done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, env=env, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert await delete("hall", ann.ids[1]) == "deleted: 1\n"
    assert "has no message" in await delete("hall", "1-99", code=1)
    assert "one message by its ID, or all" in await delete("hall", ann.ids[1], "--messages", code=2)
    assert await delete("hall", "--messages") == "deleted: 2\n"
    await ann.until(lambda: len(ann.of_type("deleted")) >= 2, "they are told")
    await delete("hall")
    assert (await ann.closed())[0] == 4004
    assert "nobody has spoken" in await delete("hall", code=1)
