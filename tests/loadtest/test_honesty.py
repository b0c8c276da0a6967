"""A run that says nothing about the server is invalid, whatever it measured; and it always ends in order."""

import asyncio
import re
import signal
from pathlib import Path

import psutil

from tests.loadtest.harness import run, start
from tests.loadtest.lying_server import Lies, LyingServer, lying_server
from tests.support.until import until

CROWD = ("-u", "6", "--rooms", "2", "-r", "50", "--rate", "50")


async def test_a_starved_generator_is_no_measurement(tmp_path: Path) -> None:
    """A scenario that computes on the event loop makes the harness the limit."""
    scenario = tmp_path / "greedy.py"
    scenario.write_text(
        "import time\n"
        "from loadtest import User, task\n"
        "class Greedy(User):\n"
        "    @task\n"
        "    async def speak(self):\n"
        "        end = time.monotonic() + 0.2\n"
        "        while time.monotonic() < end: pass\n"
        "        await self.say()\n"
    )
    async with lying_server(Lies()) as (_, url):
        outcome = await run(tmp_path, "-H", url, "-f", str(scenario), *CROWD, "-t", "2s", "--settle", "1s")
    assert outcome.exit_code == 98
    assert outcome.result["verdict"] == "invalid"
    assert any("generator" in reason for reason in outcome.result["reasons"])
    assert outcome.result["counts"]["lost"] == 0


async def test_nobody_connected_is_invalid(tmp_path: Path) -> None:
    def refuse(server: LyingServer) -> None:
        server.refuse_with = 503

    async with lying_server(Lies(), prepare=refuse) as (_, url):
        outcome = await run(tmp_path, "-H", url, *CROWD, "-t", "2s")
    assert outcome.exit_code == 98
    assert "nobody was connected (the handshake was answered 503)" in outcome.result["headline"]
    assert any("connections_max" in note for note in outcome.result["notes"])


async def test_nothing_sent_is_invalid_unless_silence_was_the_plan(tmp_path: Path) -> None:
    async with lying_server(Lies()) as (_, url):
        silent = tmp_path / "silent.py"
        silent.write_text(
            "from loadtest import User, constant, task\n"
            "class Mute(User):\n"
            "    wait_time = constant(0.1)\n"
            "    @task\n"
            "    async def think(self): pass\n"
        )
        mute, lurkers = tmp_path / "mute", tmp_path / "lurkers"
        small = ("-u", "4", "--rooms", "1", "-r", "50", "-t", "2s", "-H", url)
        outcome, lurking = await asyncio.gather(
            run(mute, "-f", str(silent), *small), run(lurkers, "-f", "lurker", *small)
        )
    assert outcome.exit_code == 98
    assert "nothing was sent" in outcome.result["headline"]
    lurking.assert_clean()
    assert lurking.counts["connected"] == 4


async def test_a_crossed_threshold_fails_the_run(tmp_path: Path) -> None:
    async with lying_server(Lies()) as (_, url):
        outcome = await run(tmp_path, "-H", url, *CROWD, "-t", "2s", "--fail-if", "p99 > 1us", "--fail-if", "lost > 0")
    assert outcome.exit_code in (99, 98)
    assert [t["crossed"] for t in outcome.result["thresholds"]] == [True, False]
    assert re.search(r"p99 > 1us \(it was [\d.,]+ ms\)", outcome.result["headline"])


async def test_users_whose_code_raises_are_counted_and_go_on(tmp_path: Path) -> None:
    scenario = tmp_path / "clumsy.py"
    scenario.write_text(
        "from loadtest import User, constant, task\n"
        "class Clumsy(User):\n"
        "    wait_time = constant(0.1)\n"
        "    @task\n"
        "    async def stumble(self):\n"
        "        await self.say()\n"
        "        raise ValueError('my foot')\n"
    )
    async with lying_server(Lies()) as (_, url):
        outcome = await run(tmp_path, "-H", url, "-f", str(scenario), "-u", "2", "--rooms", "1", "-t", "3s")
    # The end of the run may find each of the two between its message and its stumble.
    assert 0 <= outcome.counts["sent"] - outcome.counts["errors"] <= 2
    assert outcome.counts["errors"] > 2, "of two users"
    assert any("Clumsy.stumble: ValueError: my foot" in note for note in outcome.result["notes"])


async def test_a_server_that_closes_everyone_is_reported_by_its_code(tmp_path: Path) -> None:
    def close(server: LyingServer) -> None:
        server.close_with = 1008

    async with lying_server(Lies(), prepare=close) as (_, url):
        outcome = await run(tmp_path, "-H", url, *CROWD, "-t", "3s", "--settle", "1s")
    assert outcome.result["closes"].keys() == {"1008 too fast"}
    assert any("messages_per_s" in note for note in outcome.result["notes"])


async def test_ctrl_c_ends_in_order_and_still_reports(tmp_path: Path) -> None:
    async with lying_server(Lies()) as (server, url):
        page = tmp_path / "report.html"
        harness = await start(
            tmp_path,
            *("-H", url, *CROWD, "-t", "10m", "--prometheus-port", "0", "--html", str(page)),
            "--processes",
            "2",
        )

        async def speaks() -> bool:
            return server.tally["messages"] > 20

        await until(speaks, "messages at the server", within_s=30)
        harness.process.send_signal(signal.SIGINT)
        outcome = await harness.finish(within_s=30)
    outcome.assert_clean()
    assert any("stopped by hand" in note for note in outcome.result["notes"])
    assert outcome.counts["sent"] == server.tally["messages"] > 20
    assert page.stat().st_size > 10_000


async def test_a_dead_worker_is_said(tmp_path: Path) -> None:
    async with lying_server(Lies()) as (server, url):
        harness = await start(
            tmp_path,
            *("-H", url, *CROWD, "-t", "5s", "--prometheus-port", "0", "--settle", "1s"),
            "--processes",
            "2",
        )

        async def speaks() -> bool:
            return server.tally["messages"] > 20

        await until(speaks, "messages at the server", within_s=30)
        workers = psutil.Process(harness.process.pid).children()
        assert len(workers) == 2
        workers[1].kill()
        outcome = await harness.finish(within_s=40)
    assert outcome.exit_code == 98
    assert re.search(r"worker \d of 2 died \(killed by signal 9\)", outcome.result["headline"])
    assert outcome.counts["sent"] > 0


async def test_the_same_seed_plans_the_same_run(tmp_path: Path) -> None:
    async def messages(name: str) -> int:
        directory = tmp_path / name
        async with lying_server(Lies()) as (server, url):
            await run(directory, "-H", url, *CROWD, "-t", "2s", "--seed", "5")
        return server.tally["messages"]

    first, again = await asyncio.gather(messages("first"), messages("again"))
    assert first == again > 20
