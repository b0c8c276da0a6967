"""`publish.lua` and `heartbeat.lua` where strangers wrote, or rules are missing: they end, and say what is true."""

import pytest
from redis.asyncio import Redis

import broker_config
from broker_config import users
from broker_config.retention import DEFAULT, Retention
from gateway.broker.errors import missing_rule
from tests.conftest import BrokerFactory
from tests.support.broker import PASSWORDS, Broker, Kind

DAY_MS = 86_400_000


@pytest.mark.parametrize(("low", "high"), [(-40, -1), (-2, -1), (0, 100_000), (2**61, 2**62)])
async def test_counts_beyond_what_a_number_holds_stop_no_server(broker: Broker, low: int, high: int) -> None:
    """Ahead of the clock the young are searched for by count. Two such ids, and the search never ended: after a
    write not even SCRIPT KILL ends it."""
    async with broker.client() as client:
        seconds, _ = await client.time()
        for n in (2**53 + low, 2**53 + high):
            await client.xadd("log", {"m": "x"}, id=f"{seconds * 1000 + DAY_MS}-{n}")
        script = client.register_script(broker_config.script("publish"))
        call = (*DEFAULT.arguments(), "")
        (line,) = (await script(keys=["once", "log"], args=[1, 0, *call, 2, "s", "", b"1"])).split(b"\n")
        assert line.startswith(b"!ERR ") or line.endswith(f"-{2**53 + high + 1}".encode())
        assert await script(keys=["once", "log"], args=[2, 0, *call]) == b"", "a call that only trims"
        (line,) = (await script(keys=["once", "other"], args=[3, 0, *call, 2, "s", "", b"1"])).split(b"\n")
        assert line.endswith(b"-1"), "other rooms go on"


@pytest.mark.parametrize("score", ["-inf", "inf"])
async def test_no_score_among_the_nodes_keeps_a_node_from_saying_that_it_lives(broker: Broker, score: str) -> None:
    async with broker.client() as client:
        await client.zadd("nodes", {"strange": score})
        script = client.register_script(broker_config.script("heartbeat"))
        for added in (1, 0):
            found, alive, _ = await script(keys=["nodes"], args=["n1", 10])
            assert found == added and b"n1" in alive


@pytest.mark.denied
@pytest.mark.parametrize("kind", ["redis", "valkey"])
@pytest.mark.parametrize("taken", ["-set", "-spublish", "resetchannels", "-xtrim", "-xlen", "-xrange"])
async def test_what_was_appended_is_answered_with_its_id_whatever_else_is_denied(
    start_broker: BrokerFactory, kind: Kind, taken: str
) -> None:
    """`-set`: the node was ready, each sender was told that his message will never appear, and everybody read it."""
    broker = await start_broker(kind=kind)
    async with broker.client() as operator:
        sha = await operator.script_load(broker_config.script("publish"))
        rules = users.rules(PASSWORDS)["gateway"]
        await operator.execute_command("ACL", "SETUSER", "poorer", *rules, taken)
        client = Redis.from_url(broker.url.replace("//gateway:", "//poorer:"), single_connection_client=True)
        entries = (2, "s", "", b"1") * 40 + (3, "s", "", b"1")
        keys = ("hiroba:once", "hiroba:log", "hiroba:other")
        async with client:
            answer = await client.evalsha(sha, 3, *keys, 1, 0, *Retention(entries_max=9).arguments(), "", *entries)
        *ids, denied = answer.split(b"\n")
        assert [id for id, _ in await operator.xrange("hiroba:log")] + [ids[-1]] == ids
        assert await operator.xlen("hiroba:other") == 1
        assert denied.startswith(b"-") and missing_rule(denied[1:].decode())
