"""The gateway's user on the broker: it may do what nodes do, no more; a missing rule is named, and no password ever."""

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest
from redis.asyncio import Redis

from broker_config import users
from tests.conftest import BrokerFactory
from tests.support.broker import PASSWORDS, Broker, Kind
from tests.support.node import Node
from tests.support.tokens import SECRET as SITE
from tests.support.tokens import by
from tests.support.until import until

SECRET = "geheim"  # in every password


async def speak(http: aiohttp.ClientSession, node: Node, room: str, count: int) -> None:
    """Says `count` things and hears them."""
    async with http.ws_connect(node.ws_url(room, history=5), protocols=("hiroba.v1",)) as ws:
        for number in range(count):
            await ws.send_json({"type": "message", "message": number})
        heard = -1
        while heard < count - 1:
            said = await ws.receive_json(timeout=20)
            heard = said["message"] if said["type"] == "message" else heard


async def read(ws: aiohttp.ClientWebSocketResponse, node: Node, rooms: list[str]) -> None:
    """Says of each room that it was read, and waits until the broker has it."""
    for count, room in enumerate(rooms, 1):
        await ws.send_json({"type": "join", "room": room})
        await ws.send_json({"type": "read", "room": room, "id": "1-1"})

        async def written(count: int = count) -> bool:
            return await node.metric("hiroba_markers_written_total") == count

        await until(written, f"{room} is read")


async def type_something(ws: aiohttp.ClientWebSocketResponse, node: Node, room: str) -> None:
    """Says that it types in a room that it is in, and waits until that was whispered and heard."""
    await ws.send_json({"type": "typing", "room": room})
    await until(lambda: node.metric("hiroba_typing_said_total"), "it is whispered")
    await until(lambda: node.metric("hiroba_typing_told_total"), "it is told")


async def lanes(operator: Redis) -> bool:
    """Whether each of the three nodes has its three lanes."""
    named = [client["name"] for client in await operator.client_list()]
    return sum(name.endswith(("-publish", "-read", "-doorbell")) for name in named) == 9


async def live(broker: Broker, directory: Path) -> None:
    """Everything for which a node asks the broker: trims, pages, markers, whispers, lost lanes, dead nodes, SELECT."""
    often = {"messages_per_s": 0, "heartbeat_s": 0.2, "node_ttl_s": 1.5, "sweep_s": 0.5, "room_idle_s": 600}
    often |= {"read_rooms_max": 1, "token_keys": f"HS256:{SITE}"}
    small = {
        "retention_entries_min": 4,
        "retention_entries_max": 16,
        "tail_entries_max": 1,
        "lb_wait_s": 0,
        "drain_s": 0,
    }
    nodes = [Node(broker.url, directory, name, **often, **small) for name in ("stays", "dies")]
    nodes.append(Node(broker.url.replace("/0", "/1"), directory, "numbered", **often))
    await asyncio.gather(*(node.start() for node in nodes))
    stays, dies, _ = nodes
    async with (
        aiohttp.ClientSession(headers=by("ann")) as http,
        broker.client() as operator,
        http.ws_connect(dies.ws_url("square")),
        http.ws_connect(stays.url("/ws/"), protocols=("hiroba.v1",)) as reader,
        http.ws_connect(stays.ws_url("square"), protocols=("hiroba.v1",), headers=by("bob")),
    ):
        await speak(http, stays, "square", 300)
        await read(reader, stays, ["square", "circle"])
        await type_something(reader, stays, "square")
        await operator.execute_command("CLIENT", "KILL", "USER", "gateway")
        await until(lambda: lanes(operator), "the killed lanes are back")
        async with http.ws_connect(stays.ws_url("square")):
            await speak(http, stays, "square", 20)
            await dies.kill()
            await until(lambda: stays.metric("hiroba_groups_swept_total"), "the dead node's group is swept")
    assert await stays.stop() == 0


@pytest.mark.parametrize("kind", ["redis", "valkey"])
async def test_the_gateway_needs_every_rule_it_has_and_no_other(
    start_broker: BrokerFactory, tmp_path: Path, kind: Kind
) -> None:
    broker = await start_broker(kind=kind)
    async with broker.client() as operator:
        await operator.config_resetstat()
        await operator.acl_log_reset()
        await live(broker, tmp_path)
        assert await operator.acl_log() == [], "a node asked for what it may not"
        used = {name.removeprefix("cmdstat_") for name in await operator.info("commandstats")}
    rules = {rule[1:] for rule in users.rules(PASSWORDS)["gateway"] if rule.startswith("+")}
    assert rules - used == set(), "rules that no node needs"


# What is taken from the gateway's user, and the rule whose absence must be named. Redis 7.0 does not name a script's.
MISSING = [
    ("-xadd", "+xadd"),
    ("-zadd", "+zadd"),
    ("-evalsha", "+evalsha"),
    ("-script|load", "+script|load"),
    ("-xreadgroup", "+xreadgroup"),
    ("-xgroup|create", "+xgroup|create"),
    ("-ssubscribe", "+ssubscribe"),
    ("resetkeys", "~hiroba:*"),
    ("resetchannels", "&hiroba:*"),
]


def told(node: Node, missing: str) -> list[dict[str, str]]:
    lines = [json.loads(line) for line in node.lines()]
    return [line for line in lines if missing in line.get("missing", "").split()]


@pytest.mark.denied
@pytest.mark.parametrize("kind", ["redis", pytest.param("valkey", marks=pytest.mark.long)])
async def test_a_missing_rule_is_named_once_and_the_node_is_not_ready_until_it_is_there(
    start_broker: BrokerFactory, tmp_path: Path, kind: Kind
) -> None:
    broker = await start_broker(kind=kind)
    nodes = {}
    async with broker.client() as operator:
        # Nobody may find the scripts loaded: EVALSHA alone would do then.
        for number, (taken, missing) in enumerate(MISSING):
            user = f"gateway{number}"
            await operator.execute_command("ACL", "SETUSER", user, *users.rules(PASSWORDS)["gateway"], taken)
            url = broker.url.replace("//gateway:", f"//{user}:")
            if missing == "+script|load":
                await operator.script_flush()
            nodes[missing] = await Node(url, tmp_path, user, heartbeat_s=0.5, node_ttl_s=60).start(ready=False)
            if missing == "+script|load":
                await until(lambda: told(nodes["+script|load"], "+script|load"), "+script|load is named")
        for missing, node in nodes.items():
            await until(lambda missing=missing, node=node: told(node, missing), f"{missing} is named", within_s=60)
            assert len(told(node, missing)) == 1
            assert not await node.is_ready()
            assert SECRET not in node.process.log.read_text()
        for number, (_, missing) in enumerate(MISSING):
            await operator.execute_command("ACL", "SETUSER", f"gateway{number}", *users.rules(PASSWORDS)["gateway"])
            await nodes[missing].wait_ready()


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
async def test_a_wrong_address_user_or_password_gets_one_clear_line(broker: Broker, tmp_path: Path) -> None:
    at = f"127.0.0.1:{broker.port}"
    wrong = {
        "password": (broker.url.replace("geheim-gateway", "geheim-falsch"), at, "WRONGPASS"),
        "user": (broker.url.replace("//gateway:", "//gatway:"), at, "WRONGPASS"),
        "nobody": (f"redis://{at}", at, "NOAUTH"),
        "port": (broker.url.replace(str(broker.port), "1"), "127.0.0.1:1", "refused"),
    }
    nodes = {name: Node(url, tmp_path, name) for name, (url, _, _) in wrong.items()}
    await asyncio.gather(*(node.start(ready=False) for node in nodes.values()))
    for name, (_, place, said) in wrong.items():
        node = nodes[name]
        away = await until(
            lambda node=node: [line for line in map(json.loads, node.lines()) if "away" in line["event"]],
            f"{name}: the broker is away",
        )
        assert place in away[0]["broker"] and said in away[0]["reason"]
        assert len(away) == 1, "one line per change of state"
        assert not await node.is_ready()
        assert SECRET not in node.process.log.read_text()
