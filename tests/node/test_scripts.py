"""`publish.lua` and `heartbeat.lua` where strangers wrote, or rules are missing: they end, and say what is true."""

from itertools import count, pairwise

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

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


async def test_a_stranger_s_entry_costs_a_room_neither_its_count_of_bytes_nor_its_entries(broker: Broker) -> None:
    """Running bytes began at 0 behind it, so that no bound of bytes held; and where it was the oldest, all that the
    room had ever said was taken for what it holds."""
    retention = Retention(seconds=1, entries_min=0, bytes_max=10_000)
    numbers = count(1)
    async with broker.client() as client:
        script = client.register_script(broker_config.script("publish"))

        async def say(entries: int) -> list[int]:
            """The running bytes at each entry of ours."""
            for _ in range(entries):
                call = (next(numbers), 0, *retention.arguments(), "", 2, "s", "", b"1" * 100)
                assert not (await script(keys=["once", "log"], args=call)).startswith(b"!")
            held = await client.xrange("log")
            return [int(fields[b"b"].partition(b".")[0]) for _, fields in held if b"b" in fields]

        async def strange() -> None:
            ((last, _),) = await client.xrevrange("log", count=1)
            ms, _, n = last.partition(b"-")
            await client.xadd("log", {"strange": "x" * 93}, id=b"%b-%d" % (ms, int(n) + 1))

        await say(40)
        for _ in range(3):
            await strange()
        assert (await say(1))[-1] == 4_400
        await say(130)
        await strange()
        await say(20)
        await client.xtrim("log", maxlen=21, approximate=False)
        held = await say(60)
        assert len(held) == 80 and held[-1] == 4_400 + 21_100
        assert [b - a for a, b in pairwise(held)] == [100] * 79
        assert len(await say(200)) < 160, "the bound of bytes holds, but for nodes of the stream that are cut whole"


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


@pytest.mark.denied
@pytest.mark.parametrize("kind", ["redis", "valkey"])
@pytest.mark.parametrize("taken", ["-del", "-xadd", "-xgroup|create", "-xinfo|groups", "-expire", "-xrange"])
async def test_a_denied_deletion_leaves_the_log_as_it_was(start_broker: BrokerFactory, kind: Kind, taken: str) -> None:
    """It is written anew: between the first command and the last nothing may be refused, or it were gone."""
    broker = await start_broker(kind=kind)
    async with broker.client() as operator:
        sha = await operator.script_load(broker_config.script("delete"))
        await operator.execute_command("ACL", "SETUSER", "poorer", *users.rules(PASSWORDS)["gateway"], taken)
        log = "hiroba:log"
        for n in (1, 2):
            await operator.xadd(log, {"v": "1", "b": f"{n}.1", "f": "s", "u": "", "m": '"text"'}, id=f"1000-{n}")
        await operator.xgroup_create(log, "g", "1000-1")
        held = await operator.xrange(log)
        client = Redis.from_url(broker.url.replace("//gateway:", "//poorer:"), single_connection_client=True)
        async with client:
            with pytest.raises(ResponseError) as denied:
                await client.evalsha(sha, 1, log, 60, "+")
        assert missing_rule(f"NOPERM {denied.value}")
        assert await operator.xrange(log) == held and len(await operator.xinfo_groups(log)) == 1


@pytest.mark.parametrize("kind", ["redis", "valkey"])
async def test_a_full_server_deletes_all_the_same(start_broker: BrokerFactory, kind: Kind) -> None:
    broker = await start_broker(kind=kind)
    async with broker.client() as client:
        await client.xadd("log", {"v": "1", "b": "1.1", "f": "s", "u": "", "m": '"text"', "t": "999"}, id="1000-1")
        await client.config_set("maxmemory", 1)
        script = client.register_script(broker_config.script("delete"))
        newest, now, _ = await script(keys=["log"], args=[60, "+"])
        assert (newest, now) == (b"1000-1", 1)
        ((_, fields),) = await client.xrange("log")
        assert fields == {b"v": b"3", b"b": b"1.1", b"f": b"", b"u": b"", b"m": b"", b"t": b"999"}


@pytest.mark.parametrize("kind", ["redis", "valkey"])
async def test_a_bundle_is_appended_whole_or_not_at_all_also_where_memory_is_full(
    start_broker: BrokerFactory, kind: Kind
) -> None:
    """What trimming freed may be enough for the first of its messages and not for all: then nothing of it is there, and
    its producer may send it again."""
    broker = await start_broker(kind=kind)
    async with broker.client() as client:
        script = client.register_script(broker_config.script("publish"))
        call = (*Retention(seconds=0.001, entries_min=0, entries_max=1_000).arguments(), "")
        numbers = count(1)

        async def bundle(seq: int, *messages: bytes) -> bytes:
            order = ("*", 2, "s", "", 3, 0, seq, 0, "", 60, len(messages), *messages)
            answer: bytes = await script(keys=["once", "log", "writer"], args=[next(numbers), 0, *call, *order])
            return answer

        first = await bundle(0, b"1", b"2", b"3")
        assert first.endswith(b"-3") and await client.get("writer") == b"0 0 " + first
        await client.config_set("maxmemory", 1)
        assert (await bundle(1, *[b"x" * 1_000] * 5)).startswith(b"!OOM")
        assert await client.xlen("log") in (0, 3) and await client.get("writer") == b"0 0 " + first
        assert await bundle(0, b"1", b"2", b"3") == b"=repeated 0 " + first, "what is known can still be told"
        await client.config_set("maxmemory", 0)
        assert (await bundle(1, *[b"x" * 1_000] * 5)).endswith(b"-8")
        await client.delete("writer")
        await client.lpush("writer", "a stranger's")
        assert (await bundle(2, b"9")).startswith(b"!WRONGTYPE")
        await client.delete("log")
        await client.set("log", "a stranger's")
        await client.set("writer", "nonsense")
        assert (await bundle(0, b"9")).startswith(b"!WRONGTYPE") and await client.get("writer") == b"nonsense"
