"""The harness against a server that lies: every lie is found and counted exactly, and the truth reports zeros."""

import asyncio
from collections import Counter
from pathlib import Path

from tests.loadtest.harness import run
from tests.loadtest.lying_server import Lies, LyingServer, lying_server
from tests.support.until import until

CROWD = ("-u", "20", "--rooms", "4", "-r", "20", "--rate", "300", "-t", "3s", "--settle", "2s", "--seed", "7")

KINDS = ("lost", "doubled", "reordered", "foreign")


def told(server: LyingServer) -> dict[str, int]:
    return {kind: server.tally[kind] for kind in KINDS}


async def test_an_honest_server_is_reported_with_zeros(tmp_path: Path) -> None:
    """By one process, and by two that share the rooms' members."""

    async def honest(processes: int, *crowd: str) -> None:
        directory = tmp_path / str(processes)
        async with lying_server(Lies()) as (server, url):
            outcome = await run(directory, "-H", url, *crowd, "--processes", str(processes))
        outcome.assert_clean()
        assert outcome.counts["sent"] == server.tally["messages"] > 400
        assert outcome.counts["expected"] == outcome.counts["delivered"] == server.tally["delivered"]

    await asyncio.gather(honest(1, *CROWD), honest(2, *CROWD, "--rooms", "1", "-u", "10"))


async def test_every_lie_is_found_and_counted_exactly(tmp_path: Path) -> None:
    """Drops, doubles, swaps, delays and strangers, all in one run, during the ramp-up too."""
    lies = Lies(drop=0.03, double=0.03, swap=0.03, delay=0.03, foreign=0.03, drop_for_all=0.01)

    async def lied_to(seed: int, processes: int, rooms: int) -> None:
        directory = tmp_path / str(seed)
        async with lying_server(lies, seed) as (server, url):
            crowd = (*CROWD, "--rooms", str(rooms), "--processes", str(processes))
            outcome = await run(directory, "-H", url, *crowd)
            await until(lambda: not any(server.rooms.values()), "everyone has left")
        counted = {kind: outcome.counts[kind] for kind in KINDS}
        assert counted == told(server)
        assert outcome.counts["delivered"] == server.tally["delivered"]
        assert outcome.exit_code in (99, 98)
        verdict = next(line for line in outcome.out.splitlines() if line.startswith(("FAILED", "INVALID")))
        assert f"{counted['lost']} lost, {counted['doubled']} doubled" in verdict, "violations come first"
        tallies.append(server.tally)

    tallies: list[Counter[str]] = []
    await asyncio.gather(lied_to(1, 1, 4), lied_to(2, 2, 4), lied_to(3, 3, 2))
    assert all(sum(tally[kind] for tally in tallies) for kind in KINDS), "every kind of lie was told"


async def test_a_lie_about_the_very_last_message_is_found(tmp_path: Path) -> None:
    """The plan is a pure function of the seed: an honest run tells which message will be the last."""
    async with lying_server(Lies()) as (server, url):
        await run(tmp_path, "-H", url, *CROWD)
        last = server.tally["messages"]
    async with lying_server(Lies(drop_number=last)) as (server, url):
        outcome = await run(tmp_path, "-H", url, *CROWD)
    assert server.tally["messages"] == last
    assert server.tally["lost"] == outcome.counts["lost"] == 1


async def test_a_lie_during_the_ramp_up_is_found(tmp_path: Path) -> None:
    ramp = ("-u", "20", "--rooms", "2", "-r", "5", "--rate", "200", "-t", "4s", "--settle", "2s")
    async with lying_server(Lies(drop=0.2, until_s=2.0), seed=4) as (server, url):
        outcome = await run(tmp_path, "-H", url, *ramp)
    assert server.tally["lost"] == outcome.counts["lost"] > 0


async def test_a_stall_shows_in_the_latency_though_little_was_sent_into_it(tmp_path: Path) -> None:
    """Coordinated omission: users who wait for the server send nothing while it stalls, and a mean looks fine.

    Each user says something every 200 ms and waits for its echo; the server says nothing for 2 s.
    """
    scenario = tmp_path / "paced.py"
    scenario.write_text(
        "from loadtest import User, constant_pacing, task\n"
        "class Paced(User):\n"
        "    wait_time = constant_pacing(0.2)\n"
        "    @task\n"
        "    async def speak(self):\n"
        "        await self.say()\n"
    )
    crowd = ("-f", str(scenario), "-u", "10", "--rooms", "2", "-r", "100", "-t", "8s")
    async with lying_server(Lies(stall_at_s=3.0, stall_s=2.0)) as (_, url):
        outcome = await run(tmp_path, "-H", url, *crowd)
    latency, service = outcome.result["latency_ms"], outcome.result["service_ms"]
    assert outcome.counts["lost"] == 0
    assert latency["p90"] > 1_000, "every message that was due in the stall is late"
    assert service["max"] > 1_000 and service["p90"] < latency["p90"], "without the correction only one per user is"


async def test_a_stall_under_a_plan_shows_too(tmp_path: Path) -> None:
    async with lying_server(Lies(stall_at_s=2.5, stall_s=2.0)) as (_, url):
        outcome = await run(tmp_path, "-H", url, *CROWD[:-2])
    assert outcome.counts["lost"] == 0
    assert outcome.result["latency_ms"]["p99"] > 1_500
