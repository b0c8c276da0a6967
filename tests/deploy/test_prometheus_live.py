"""What we ask Prometheus is asked for real: nodes under load, everything that can go wrong made to go wrong."""

import asyncio
import math
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

import pytest

from tests.deploy.mishaps import Mishaps, together
from tests.deploy.promql import Observed, Vector
from tests.deploy.queries import Query, alerts, annotation_queries, panel_queries, recorded
from tests.deploy.recorder import PAGE_NUMBER
from tests.deploy.watched import RECORDED, SCRAPE_S, Watched
from tests.deploy.webhook import Webhook
from tests.support.client import Crowd
from tests.support.process import Process
from tests.support.until import until

# For every alarm, one after another: ten times what it takes.
ALL_S = 400
pytestmark = pytest.mark.timeout(ALL_S + 80)

# What a dashboard takes for $__rate_interval, and the longest window of any query.
WINDOW_S = 6 * SCRAPE_S
LONGEST_S = 3600


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    watched = Watched(tmp_path_factory.mktemp("watched"))
    try:
        asyncio.run(watched.start())
        watched.share()
        yield watched
    finally:
        watched.kill()


def load(watched: Watched) -> Process:
    """A load test on both nodes until it is told to end, its own /metrics where Prometheus looks for it."""
    urls = [part for node in watched.nodes for part in ("-H", f"ws://127.0.0.1:{node.port}")]
    argv = [sys.executable, "-m", "loadtest", "run", *urls, "-u", "40", "--rooms", "8", "--rate", "100", "--wire", "v1"]
    argv += ["-r", "40", "-t", "10m", "--headless", "--prometheus-port", str(watched.loadtest_port)]
    return Process("loadtest", argv, watched.directory / "loadtest.log")


async def settled(watched: Watched, moment: float) -> None:
    """Waits until Prometheus can learn nothing new of `moment`: targets were scraped and rules worked out after it."""
    wanted = sum(len(watched.ports[job]) for job in RECORDED)
    fresh = f"timestamp({PAGE_NUMBER}) > {moment}"

    async def all_scraped() -> bool:
        return len(await watched.query(fresh)) == wanted

    await until(all_scraped, "a scrape of each target", 60, every_s=0.1)

    async def worked_out() -> bool:
        recording = [rule for group in await watched.groups() for rule in group["rules"] if rule["type"] == "recording"]
        assert all(rule["health"] != "err" for rule in recording), recording
        return min(_unix(rule["lastEvaluation"]) for rule in recording) > moment

    await until(worked_out, "an evaluation of the rules", 60, every_s=0.1)


async def on_a_boundary(watched: Watched, moment: float) -> bool:
    """Whether a sample lies, to the millisecond, where a window may begin: in or out depends on Prometheus' version."""
    return any(round((moment - at) * 1000) % 1000 == 0 for _, at, _ in await watched.taken(moment, LONGEST_S))


def _unix(stamp: str) -> float:
    """Prometheus writes nanoseconds; Python reads six digits."""
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d*", r"\1", stamp)).timestamp()


async def test_every_panel_and_recording_rule_has_data_and_it_is_true(watched: Watched) -> None:
    """At one moment under load each query returns something: exactly what the pages say that Prometheus was handed."""
    queries = panel_queries() + [Query(f"rule {name}", expr) for name, expr in recorded().items()]
    run = load(watched)
    run.spawn()
    empty: list[str] = []

    async def moment_with_data() -> float | None:
        moment = round(time.time(), 3)
        await settled(watched, moment)
        if await on_a_boundary(watched, moment):
            return None
        answers = {query.place: await watched.query(query.at(WINDOW_S), moment) for query in queries}
        empty[:] = [place for place, vector in answers.items() if not _real(vector)]
        return None if empty else moment

    try:
        moment = await until(moment_with_data, "every query returns data under load", 90)
    except AssertionError as exc:
        raise AssertionError(f"no data: {sorted(empty)}\n{run.tail(5)}") from exc
    await run.stop(60)
    observed = await watched.observed(moment, LONGEST_S, list(recorded()))
    # Two ways to begin a window, by Prometheus' version: one of them is this one's, for all queries.
    verdicts = [
        [
            line
            for query in queries
            for line in await differs(watched, query, replace(observed, short_start=short_start))
        ]
        for short_start in (False, True)
    ]
    assert [] in verdicts, "\n".join(min(verdicts, key=len))


async def test_a_killed_node_is_told_and_so_is_its_return(watched: Watched) -> None:
    """Prometheus, Alertmanager and the webhook with the shipped rules, routes and groups."""
    victim = watched.nodes[1]
    instance = f"127.0.0.1:{victim.ops_port}"
    async with Webhook(watched.webhook_port) as told:
        await victim.kill()
        message, alert = await told.alert("HirobaNodeDown", "firing", instance)
        assert message["groupLabels"] == {"alertname": "HirobaNodeDown", "severity": "critical"}
        assert instance in alert["annotations"]["summary"]
        assert alert["annotations"]["runbook_url"] == "https://git.example.org/hiroba/docs/operations.md#hirobanodedown"
        assert "runbook" not in alert["labels"]
        await victim.start()
        watched.share()  # the new process too
        await told.alert("HirobaNodeDown", "resolved", instance)


async def test_what_hangs_is_told_by_its_own_name_and_what_follows_is_not(watched: Watched) -> None:
    """Frozen: the balancer, an exporter, the broker. Its nodes go deaf, which its own alarm says already."""
    balancer, exporter = watched.haproxy.process, watched.processes["redis-exporter-1"]
    master, unwatched = (f"127.0.0.1:{port}" for port in watched.ports["broker"])

    async def deaf() -> bool:
        return "HirobaNodeDeaf" in await watched.suppressed()

    async with Webhook(watched.webhook_port) as told:
        for process in (balancer, exporter, watched.broker.process):
            process.pause()
        try:
            await told.alert("HirobaBalancerDown", "firing", f"127.0.0.1:{watched.haproxy.ops_port}")
            await told.alert("HirobaBrokerUnwatched", "firing", unwatched)
            await told.alert("HirobaBrokerDown", "firing", master)
            await until(deaf, "the nodes are deaf, and held back", 60, every_s=0.2)
            assert "HirobaNodeDeaf" not in told.told()
        finally:
            for process in (balancer, exporter, watched.broker.process):
                process.cont()
        await told.alert("HirobaBrokerDown", "resolved", master)
        for node in watched.nodes:
            await node.wait_ready()


async def test_the_watchdog_is_heard_all_the_time_and_elsewhere(watched: Watched) -> None:
    """Who hears nothing any more knows that no alarm reaches anybody."""
    async with Webhook(watched.webhook_port) as told:
        message, _ = await told.alert("HirobaWatchdog", "firing", None)
        told.messages.clear()
        again, _ = await told.alert("HirobaWatchdog", "firing", None)
    assert message["path"] == again["path"] == "/watchdog"


async def test_every_alarm_and_annotation_goes_off_for_what_it_is_about(watched: Watched) -> None:
    """Each expression returns something when that happens which it names; when it is silent, rules/tests say."""
    exprs = {name: Query(name, rule["expr"]) for name, rule in alerts().items()}
    exprs |= {query.place.partition(": ")[2]: query for query in annotation_queries()}
    unseen = {name for name in exprs if not name.startswith("HirobaCertificate")}  # test_certificates.py

    async def look() -> None:
        """At every second: what is over before we ask was there all the same."""
        since = time.time()
        while unseen:
            now = time.time()
            for name in sorted(unseen):
                if await watched.went_off(exprs[name].at(window_s=10 * SCRAPE_S), since, now):
                    unseen.discard(name)
            since = now - SCRAPE_S  # a scrape that is under way says something of before now
            await asyncio.sleep(0.2)

    try:
        async with asyncio.timeout(ALL_S), Crowd() as crowd:
            await together(look(), Mishaps(watched, crowd, lambda name: name not in unseen).all())
    except TimeoutError:
        raise AssertionError(f"never went off: {sorted(unseen)}") from None


def _real(vector: Vector) -> bool:
    """Something, and not only 0 / 0."""
    return any(not math.isnan(value) for value in vector.values())


async def differs(watched: Watched, query: Query, observed: Observed) -> list[str]:
    """What Prometheus says otherwise than our own reading of the same pages; empty when they agree."""
    expr = query.at(WINDOW_S)
    theirs, ours = await watched.query(expr, observed.now), observed.evaluate(expr)
    return [
        f"{query.place}{dict(labels)}: Prometheus says {theirs.get(labels)}, the pages {ours.get(labels)}"
        for labels in theirs.keys() | ours.keys()
        if not _same(theirs.get(labels), ours.get(labels))
    ]


def _same(theirs: float | None, ours: float | None) -> bool:
    """But for the order in which floats were added up."""
    if theirs is None or ours is None:
        return False
    return (math.isnan(theirs) and math.isnan(ours)) or math.isclose(theirs, ours, rel_tol=1e-6, abs_tol=1e-12)
