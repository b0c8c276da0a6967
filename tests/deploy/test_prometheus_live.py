"""What we ask Prometheus is asked for real: nodes under load, everything that can go wrong made to go wrong."""

import asyncio
import math
import re
import sys
import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from tests.deploy.mishaps import Mishaps
from tests.deploy.promql import Observed, Page, Vector, selectors
from tests.deploy.queries import Query, alerts, annotation_queries, panel_queries, recorded
from tests.deploy.watched import SCRAPE_S, Watched
from tests.deploy.webhook import Webhook
from tests.support.client import Crowd
from tests.support.process import Process
from tests.support.until import until

pytestmark = pytest.mark.timeout(240)

LOADTEST = "hiroba_loadtest_"
# What changes while one looks at it: how far Prometheus' last sample may be from the page, absolutely.
RESTLESS = {
    "hiroba_probe_age_seconds": 2 * SCRAPE_S,
    "time()": 3 * SCRAPE_S,
    "hiroba_lag_seconds": 1.0,
    "hiroba_gather_seconds": 0.02,
    "hiroba_event_loop_lag_seconds": 0.5,
    "hiroba_gc_pause_seconds_sum": 0.01,
    "redis_commands_duration_seconds_total": 0.01,
    "hiroba_process_open_descriptors": 3,
    "hiroba_tasks": 3,
    "redis_connected_clients": 4,
    "redis_commands_total": 0.2,
}
# Windows that a series may need to agree with ours, beside the first.
SECOND_LOOKS = 2
# What the load keeps the broker doing.
STEADY_COMMANDS = {"evalsha", "xadd", "xreadgroup", "xrevrange", "spublish"}


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    watched = Watched(tmp_path_factory.mktemp("watched"))
    try:
        asyncio.run(watched.start())
        watched.share()
        yield watched
    finally:
        watched.kill()


def load(watched: Watched, seconds: int) -> Process:
    """A load test on both nodes, its own /metrics where Prometheus looks for it."""
    urls = [part for node in watched.nodes for part in ("-H", f"ws://127.0.0.1:{node.port}")]
    argv = [sys.executable, "-m", "loadtest", "run", *urls, "-u", "40", "--rooms", "8", "--rate", "100", "--wire", "v1"]
    argv += ["-r", "40", "-t", f"{seconds}s", "--headless", "--prometheus-port", str(watched.loadtest_port)]
    return Process("loadtest", argv, watched.directory / "loadtest.log")


async def scraped(watched: Watched, *jobs: str) -> None:
    """Waits until Prometheus has a sample from after this moment, and rules worked out from it, of each target."""
    now = time.time()
    wanted = sum(len(watched.ports[job]) for job in jobs)
    fresh = f'timestamp(up{{job=~"{"|".join(jobs)}"}}) > {now}'

    async def all_fresh() -> bool:
        return len(await watched.query(fresh)) == wanted

    await until(all_fresh, f"a scrape of {jobs}", every_s=0.1)

    async def worked_out() -> bool:
        recording = [rule for group in await watched.groups() for rule in group["rules"] if rule["type"] == "recording"]
        times = [rule["lastEvaluation"] for rule in recording]
        return min(map(_unix, times)) > now + SCRAPE_S

    await until(worked_out, "an evaluation of the rules", every_s=0.1)


def _unix(stamp: str) -> float:
    """Prometheus writes nanoseconds; Python reads six digits."""
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d*", r"\1", stamp)).timestamp()


async def test_every_panel_and_recording_rule_has_data_and_it_is_true(watched: Watched) -> None:
    """Under load each query returns something; once it is quiet, what our own reading of /metrics returns."""
    servers = ("gateway", "broker")
    queries = panel_queries() + [Query(f"rule {name}", expr) for name, expr in recorded().items()]
    at_first = await watched.pages(*servers)
    async with Crowd() as crowd:
        # Somebody is there at all times: some panels divide by them.
        for node in watched.nodes:
            await crowd.join(node, "quiet")
        await scraped(watched, *servers)
        before, began_at = await watched.pages(*servers), time.time()
        await scraped(watched, *servers)  # what Prometheus counts from must be older than the load
        run = load(watched, seconds=12)
        run.spawn()
        empty = {query.place for query in queries}
        seen: dict[str, set[float]] = {}

        async def none_empty() -> bool:
            await _note(watched, seen)
            window_s = int(time.time() - began_at)
            for query in queries:
                if query.place in empty and window_s > 2 * SCRAPE_S and _real(await watched.query(query.at(window_s))):
                    empty.discard(query.place)
            return not empty

        try:
            await until(none_empty, "every query returns data under load", 30, every_s=0.1)
        except AssertionError as exc:
            raise AssertionError(f"no data: {sorted(empty)}\n{run.tail(5)}") from exc
        await _compare_loadtest(watched, queries, seen)
        await run.ended(60)
        servers_own = [query for query in queries if LOADTEST not in query.expr]
        wrong = await _compare(watched, servers_own, at_first, before, began_at)
        for _ in range(SECOND_LOOKS):
            if not wrong:
                break
            # A window that cut a burst in two shows it at one place only once; a wrong query shows it again.
            before, began_at = await watched.pages(*servers), time.time()
            await scraped(watched, *servers)
            run = load(watched, seconds=12)
            run.spawn()
            await run.ended(60)
            again = await _compare(watched, servers_own, at_first, before, began_at)
            wrong = {place: line for place, line in again.items() if place in wrong}
    assert not wrong, "\n".join(wrong.values())


async def test_a_killed_node_is_told_and_so_is_its_return(watched: Watched) -> None:
    """Prometheus, Alertmanager and the webhook with the shipped rules, routes and groups."""
    victim = watched.nodes[1]
    instance = f"127.0.0.1:{victim.ops_port}"
    async with Webhook(watched.webhook_port) as told:
        await victim.kill()
        message, alert = await told.alert("HirobaNodeDown", "firing", instance)
        assert message["groupLabels"] == {"alertname": "HirobaNodeDown", "severity": "critical"}
        assert instance in alert["annotations"]["summary"]
        assert alert["annotations"]["runbook_url"] == "docs/operations.md#hirobanodedown"
        await victim.start()
        watched.share()  # the new process too
        await told.alert("HirobaNodeDown", "resolved", instance)


async def test_every_alarm_and_annotation_goes_off_for_what_it_is_about(watched: Watched) -> None:
    """Each expression returns something when that happens which it names; when it is silent, rules/tests say."""
    exprs = {name: Query(name, rule["expr"]) for name, rule in alerts().items()}
    exprs |= {query.place.partition(": ")[2]: query for query in annotation_queries()}
    unseen = set(exprs)

    async def look() -> None:
        while unseen:
            for name in sorted(unseen):
                if await watched.query(exprs[name].at(window_s=10 * SCRAPE_S)):
                    unseen.discard(name)
            await asyncio.sleep(0.2)

    async with asyncio.timeout(120), Crowd() as crowd, asyncio.TaskGroup() as group:
        group.create_task(look())
        group.create_task(Mishaps(watched, crowd, lambda name: name not in unseen).all())


def _real(vector: Vector) -> bool:
    """Something, and not only 0 / 0."""
    return any(not math.isnan(value) for value in vector.values())


async def _note(watched: Watched, seen: dict[str, set[float]]) -> None:
    """The harness' page, as often as it changes."""
    try:
        pages: Page = await watched.pages("loadtest")
    except OSError:
        return
    for (name, _), value in pages.items():
        seen.setdefault(name, set()).add(value)


async def _compare_loadtest(watched: Watched, queries: list[Query], seen: dict[str, set[float]]) -> None:
    """Each series of the harness that a panel shows: Prometheus has a value that the page showed."""
    names = {name for query in queries for name in selectors(query.expr) if name.startswith(LOADTEST)}
    assert len(names) >= 8

    async def shown() -> list[str]:
        await _note(watched, seen)
        wrong = []
        for name in names:
            values = (await watched.query(name)).values()
            if not values or not all(value in seen[name] or math.isnan(value) for value in values):
                wrong.append(name)
        return wrong

    async def all_shown() -> bool:
        return not await shown()

    await until(all_shown, "Prometheus' series of the harness are what its page said", 10, every_s=0.1)


async def _compare(
    watched: Watched, queries: list[Query], at_first: Page, before: Page, began_at: float
) -> dict[str, str]:
    """The series that Prometheus tells otherwise than the nodes' pages do, and what is said of each."""
    await scraped(watched, "gateway", "broker")
    after, now = await watched.pages("gateway", "broker"), time.time()
    observed = Observed(at_first, before, after, int(now - began_at), now, recorded())
    lines = [line for query in queries for line in await differs(watched, query, observed)]
    return {line.partition(": Prometheus says")[0]: line for line in lines}


async def differs(watched: Watched, query: Query, observed: Observed) -> list[str]:
    """What Prometheus says otherwise than our own reading; empty when they agree."""
    expr = query.at(observed.window_s)
    theirs, ours = await watched.query(expr, observed.now), observed.evaluate(expr)
    if not ours:
        return [f"{query.place}: we found nothing for {expr}"]
    slack = max([bound for name, bound in RESTLESS.items() if name in _spelled_out(expr)], default=0.02)
    return [
        f"{query.place}{dict(labels)}: Prometheus says {theirs.get(labels)}, the pages {value}"
        for labels, value in ours.items()
        if _steady(dict(labels)) and not _near(theirs.get(labels, math.nan), value, slack)
    ]


def _steady(labels: dict[str, str]) -> bool:
    """A command that comes once in a heartbeat lies now in our window, now in Prometheus': no rate of it agrees."""
    return labels.get("cmd", "xadd") in STEADY_COMMANDS


def _spelled_out(expr: str) -> str:
    """With the expressions of recorded metrics behind it."""
    return expr + " ".join(text for name, text in recorded().items() if name in expr)


def _near(theirs: float, ours: float, slack: float) -> bool:
    """Within a quarter: Prometheus' samples lie up to two scrapes beside our pages."""
    if math.isnan(ours):
        return math.isnan(theirs)
    return math.isclose(theirs, ours, rel_tol=0.25, abs_tol=slack)
