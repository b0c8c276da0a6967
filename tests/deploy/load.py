"""People behind the load balancer: `python -m loadtest run` as a process of its own, and what its report must say."""

import json
import sys
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tests.deploy.cluster import Cluster
from tests.loadtest.harness import ROOT, Outcome
from tests.support.ports import free_port
from tests.support.process import Process
from tests.support.until import until

# What each has heard, on average, when everybody is said to be there; a third of it in any room proves something.
HEARD = 60


class Load:
    """`users` in `rooms`, all of them speaking, until `end`. On v1 they resume."""

    def __init__(self, cluster: Cluster, directory: Path, wire: str, *, users: int, rooms: int, rate: float) -> None:
        self.users = users
        self._cluster = cluster
        self._metrics_port = free_port()
        self._result = directory / f"{wire}.json"
        argv = [sys.executable, "-m", "loadtest", "run", "--headless", "-H", cluster.balancer.url(scheme="ws")]
        argv += ["--wire", wire, "-u", str(users), "--rooms", str(rooms), "--rate", str(rate), "-r", "100"]
        # Ends when told: how long a restart takes is the node's business.
        argv += ["-t", "10m", "--settle", "20s", "--json", str(self._result)]
        argv += ["--prometheus-port", str(self._metrics_port)]
        self.process = Process(f"loadtest-{wire}", argv, directory / f"loadtest-{wire}.log")
        self.process.cwd = ROOT

    async def begin(self) -> None:
        """Returns when everybody is in, and has heard something."""
        self.process.spawn()

        async def lively() -> bool:
            assert self.process.running, self.process.tail()
            heard = (await self._metrics()).get("hiroba_loadtest_delivered_total", 0)
            return heard > HEARD * self.users and await self._everybody()

        await until(lively, "everybody is there and chats", 40, every_s=0.1)

    async def end(self, *, started_late: bool = False) -> Outcome:
        """Everybody falls silent, hears the rest, is judged. The report, which finds nothing wrong with the server.

        `started_late`: it was away, and refused people until it was there again: wait until they are.
        """
        if started_late:
            await until(self._everybody, "everybody is back", 60, every_s=0.1)
        exit_code = await self.process.stop(60)
        outcome = Outcome(exit_code, self.process.tail(), "", json.loads(self._result.read_text("utf-8")))
        outcome.assert_clean()
        counts = outcome.counts
        assert {name: counts[name] for name in ("gaps", "not_recovered", "unsent", "never_in", "errors")} == {
            "gaps": 0, "not_recovered": 0, "unsent": 0, "never_in": 0, "errors": 0,
        }  # fmt: skip
        assert started_late or outcome.result["refusals"] == {}
        returns = outcome.result["returns"]
        assert sum(row["returned"] for row in returns) == counts["closed"], "everybody came back"
        await self._judge_by_the_log(outcome)
        return outcome

    async def _everybody(self) -> bool:
        return (await self._metrics()).get("hiroba_loadtest_users") == self.users

    async def _judge_by_the_log(self, outcome: Outcome) -> None:
        """The broker's own count: each message that was said is in the log once, and nothing else is."""
        run, counts = outcome.result["run"], outcome.counts
        logged = [await self._cluster.entries(f"lt_{run['run']}_{number}") for number in range(run["rooms"])]
        assert min(logged) > HEARD / 3, "too little was said to prove anything"
        # Unconfirmed: under way on a connection that was closed, and heard by nobody.
        assert sum(logged) == counts["sent"] - counts["unconfirmed"]

    async def _metrics(self) -> dict[str, float]:
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"http://127.0.0.1:{self._metrics_port}/metrics") as answer,
        ):
            families = text_string_to_metric_families(await answer.text())
        return {sample.name: sample.value for family in families for sample in family.samples}


def codes(outcome: Outcome) -> set[int]:
    """With which close codes connections ended that nobody had ended."""
    return {int(close.partition(" ")[0]) for close in outcome.result["closes"]}
