"""`start.lua` against what XREVRANGE says: where the last entries of a log begin, whatever that log looks like."""

from random import Random

import pytest

import broker_config
from tests.support.broker import Broker


def ids(rng: Random, shape: str) -> list[str]:
    """Bursts, days between them, many in one millisecond; dense counts as publish.lua writes them, or not."""
    ms, n, found = 1_700_000_000_000, rng.choice([0, 0, 70]), []
    for _ in range(rng.randint(1, 120)):
        ms += rng.choice([0, 0, 0, 1, 7, 1_000, 86_400_000])
        n += rng.randint(2, 9) if shape == "holes" and rng.random() < 0.1 else 1
        if shape == "strangers" and rng.random() < 0.05:
            ms, n = ms + 1, 0  # XADD log *
        found.append(f"{ms}-{n}")
    return found


async def test_the_start_is_where_xrevrange_ends(broker: Broker) -> None:
    rng = Random(7)
    async with broker.client() as client:
        script = client.register_script(broker_config.script("start"))
        assert await script(keys=["none"], args=["5-5", 3]) is None
        for number in range(60):
            log = f"log{number}"
            async with client.pipeline() as pipe:
                for id in ids(rng, ["dense", "holes", "strangers"][number % 3]):
                    pipe.xadd(log, {"m": "x"}, id=id)
                await pipe.execute()
            held = [id for id, _ in await client.xrange(log)]
            for _ in range(4):
                top = rng.choice([*held, held[-1]]).decode()
                count = rng.choice([1, 2, rng.randint(1, 130), 1_000])
                last = await client.xrevrange(log, top, "-", count=count)
                assert await script(keys=[log], args=[top, count]) == last[-1][0], (held, top, count)


async def test_no_message_leaves_the_server_to_find_a_place(broker: Broker) -> None:
    """`history=1000` in a room of long letters asked for all of them, 60 MB, only to know where they begin."""
    async with broker.client() as client:
        async with client.pipeline() as pipe:
            for n in range(1, 501):
                pipe.xadd("log", {"m": "x" * 20_000}, id=f"{1_000 + n * n}-{n}")
            await pipe.execute()
        script = client.register_script(broker_config.script("start"))
        await script(keys=["log"], args=["251000-500", 2])
        before = (await client.info("stats"))["total_net_output_bytes"]
        assert await script(keys=["log"], args=["251000-500", 400]) == b"11201-101"
        # The answer of INFO itself, beside that of the script.
        assert (await client.info("stats"))["total_net_output_bytes"] - before < 10_000


@pytest.mark.parametrize("ms", [2**53 - 1, 2**53 + 1, 1_234_567_890_123_456_789, 2**63 - 1, 2**64 - 1])
async def test_a_clock_of_64_bits_stops_no_server(broker: Broker, ms: int) -> None:
    """One such id of a stranger's, and whoever joined with `history` froze the server: the search never ended."""
    async with broker.client() as client:
        script = client.register_script(broker_config.script("start"))
        for log, first in {"young": ms, "grown": 1_700_000_000_000}.items():
            held = [f"{first}-1", *(f"{ms}-{n}" for n in range(2, 7))]
            for id in held:
                await client.xadd(log, {"m": "x"}, id=id)
            for count in range(1, 8):
                start = held[-min(count, len(held))]
                assert await script(keys=[log], args=[held[-1], count]) == start.encode(), (log, count)
