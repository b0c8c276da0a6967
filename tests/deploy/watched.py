"""Nodes and a broker under the eyes of real Prometheus, Alertmanager and redis_exporters, with the shipped files.

The copies differ from the shipped files in addresses and in intervals, which are shorter; what the tests compare with
their own reading is scraped through a recorder.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from deploy.stack import parts
from tests.deploy.promql import Labels, Observed, Page, Vector, page
from tests.deploy.recorder import PAGE_NUMBER, Recorder
from tests.support import process
from tests.support.broker import PASSWORDS, Broker, BrokerOptions
from tests.support.haproxy import HAProxy
from tests.support.need import need_tool
from tests.support.node import Node
from tests.support.ports import free_port
from tests.support.process import Process
from tests.support.until import until

SCRAPE_S = 2
# The shipped files scrape every 10 s. All that waits for scrapes waits for as many.
FASTER = 10 // SCRAPE_S


def _sooner(found: re.Match[str]) -> str:
    seconds = int(found[1]) * {"s": 1, "m": 60}[found[2]]
    return f"for: {seconds * 1000 // FASTER}ms"


# What the shipped files wait for, and what a test waits for instead.
SHORTER: tuple[tuple[str, str, str | Callable[[re.Match[str]], str]], ...] = (
    ("prometheus.yml", r"(scrape_interval|scrape_timeout|evaluation_interval): \w+", rf"\1: {SCRAPE_S}s"),
    ("rules/alerts.yml", r"for: (\d+)([sm])", _sooner),
    ("alertmanager.yml", r"(group_wait|group_interval|repeat_interval): \w+", r"\1: 1s"),
)
# Whose series our queries are about.
RECORDED = ("gateway", "broker", "loadtest")


class Watched:
    """A broker with a replica, two nodes, and who watches them. `webhook_port`: where Alertmanager sends to."""

    def __init__(self, directory: Path) -> None:
        for tool in ("prometheus", "prometheus-alertmanager", "prometheus-redis-exporter"):
            need_tool(tool, tool)
        self.directory = directory
        self.webhook_port = free_port()
        self.broker = Broker(directory / "broker")
        self.replica = Broker(
            directory / "replica",
            BrokerOptions(
                directives=(
                    f"replicaof 127.0.0.1 {self.broker.port}",
                    "masteruser operator",
                    f"masterauth {PASSWORDS['operator']}",
                )
            ),
        )
        # A quiet client is nobody's business here. a asks often whether the broker takes what is said; b gives slow
        # readers little patience.
        self.nodes = [
            self.node("a", ping_s=600, lb_wait_s=0, drain_s=0.5, flood_s=1, probe_s=2),
            self.node("b", ping_s=600, lb_wait_s=0, drain_s=0.5, stall_s=1),
        ]
        self.loadtest_port = free_port()
        exporters = [free_port(), free_port()]
        self.haproxy = HAProxy(self.nodes, directory)
        self.ports: dict[str, list[int]] = {
            "gateway": [node.ops_port for node in self.nodes],
            "haproxy": [self.haproxy.ops_port],
            "broker": exporters,
            "loadtest": [self.loadtest_port],
            "prometheus": [free_port()],
            "alertmanager": [free_port()],
        }
        self.prometheus_url = f"http://127.0.0.1:{self.ports['prometheus'][0]}"
        self.recorder = Recorder()
        (prometheus, alertmanager) = (directory / "prometheus", directory / "alertmanager")
        self._parts = [
            *(
                parts.redis_exporter(broker.port, PASSWORDS["exporter"], port, timeout_s=3 / FASTER)
                for broker, port in zip((self.broker, self.replica), exporters, strict=True)
            ),
            parts.alertmanager(alertmanager, self.ports["alertmanager"][0]),
            parts.prometheus(prometheus, self.ports, self.ports["prometheus"][0]),
        ]
        shorten(prometheus, alertmanager)
        tell(alertmanager / "alertmanager.yml", self.webhook_port)
        _record(prometheus, self.recorder.url)
        # By its part's name and place: alertmanager-2.
        self.processes: dict[str, Process] = {}

    def node(self, name: str, broker_url: str | None = None, **settings: object) -> Node:
        """Not started, and not watched before `watch`."""
        return Node(broker_url or self.broker.url, self.directory, name, **settings)

    async def start(self) -> None:
        """Returns when Prometheus has scraped everything but a load test."""
        await self.broker.start()
        await self.replica.start()
        for node in self.nodes:
            node.process.spawn()
        for number, part in enumerate(self._parts):
            name = f"{part.name}-{number}"
            child = Process(part.name, part.argv, self.directory / f"{name}.log", env={**os.environ, **part.env})
            child.spawn()
            self.processes[name] = child
        for node in self.nodes:
            await node.wait_ready()
        await self.haproxy.start()
        await until(self._all_up, "Prometheus scrapes everything", 60, every_s=0.2)

    async def _all_up(self) -> bool:
        up = await self.query('up{job!="loadtest"} == 1')
        return len(up) == sum(len(ports) for job, ports in self.ports.items() if job != "loadtest")

    def kill(self) -> None:
        self.recorder.close()
        children = [
            self.haproxy.process,
            *self.processes.values(),
            *(broker.process for broker in (self.broker, self.replica)),
        ]
        for child in (*children, *(node.process for node in self.nodes)):
            child.kill_now()
            if child in process.started:
                process.started.remove(child)

    def share(self) -> None:
        """From now on these outlive a test (conftest.py ends what a test started)."""
        process.started.clear()

    def watch(self, nodes: Sequence[Node]) -> None:
        """Prometheus' nodes from now on."""
        listed = "".join(f"    - 127.0.0.1:{node.ops_port}\n" for node in nodes)
        targets = self.directory / "prometheus" / "targets" / "gateway.yml"
        fresh = targets.with_suffix(".new")
        fresh.write_text(f"- targets:\n{listed}", "utf-8")
        fresh.replace(targets)  # in one step: half a file would be no file

    async def query(self, expr: str, at: float | None = None) -> Vector:
        """What Prometheus answers: an instant vector without metric names."""
        parameters = {"query": expr} | ({} if at is None else {"time": str(at)})
        result = await self._ask("/api/v1/query", parameters)
        assert result["resultType"] == "vector", expr
        return Vector({_labels(series["metric"]): float(series["value"][1]) for series in result["result"]})

    async def went_off(self, expr: str, since: float, until: float) -> bool:
        """Whether it returned anything in any second of these (Unix time)."""
        parameters = {"query": expr, "start": str(since), "end": str(until), "step": "1s"}
        return bool((await self._ask("/api/v1/query_range", parameters))["result"])

    async def groups(self) -> list[dict[str, Any]]:
        """The rule groups as Prometheus has them, with their state."""
        groups: list[dict[str, Any]] = (await self._ask("/api/v1/rules", {}))["groups"]
        return groups

    async def suppressed(self) -> set[str]:
        return {name for name, _ in await suppressed(self.ports["alertmanager"][0])}

    async def _ask(self, path: str, parameters: dict[str, str]) -> Any:
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"{self.prometheus_url}{path}", params=parameters) as answer,
        ):
            body = await answer.json()
        assert body["status"] == "success", (parameters, body)
        return body["data"]

    async def taken(self, now: float, span_s: int) -> list[tuple[Mapping[str, str], float, int]]:
        """Target, time and page number of each scrape in the `span_s` until `now`, in order for each target."""
        found = await self._ask("/api/v1/query", {"query": f"{PAGE_NUMBER}[{span_s}s]", "time": str(now)})
        return [
            (series["metric"], float(at), int(number)) for series in found["result"] for at, number in series["values"]
        ]

    async def observed(self, now: float, span_s: int, recorded: Sequence[str]) -> Observed:
        """The pages that Prometheus took in the `span_s` until `now`, and at which time by its own clock."""
        samples: dict[tuple[str, Labels], list[tuple[float, float]]] = {}
        for target, at, number in await self.taken(now, span_s):
            for key, value in self._page(target, number).items():
                samples.setdefault(key, []).append((at, value))
        latest: Page = {}
        for labels, number in (await self.query(PAGE_NUMBER, now)).items():
            latest |= self._page(dict(labels), int(number))
        return Observed(samples, latest, {name: await self.query(name, now) for name in recorded}, now)

    def _page(self, target: Mapping[str, str], number: int) -> Page:
        return page(self.recorder.pages[number], job=target["job"], instance=target["instance"])


async def suppressed(alertmanager_port: int) -> set[tuple[str, str | None]]:
    """The alerts that Alertmanager has and tells nobody, for another says it already: their name and instance."""
    url = f"http://127.0.0.1:{alertmanager_port}/api/v2/alerts?active=false"
    async with aiohttp.ClientSession() as http, http.get(url) as answer:
        return {(alert["labels"]["alertname"], alert["labels"].get("instance")) for alert in await answer.json()}


def _labels(metric: dict[str, str]) -> Labels:
    return frozenset((label, value) for label, value in metric.items() if label != "__name__")


def shorten(prometheus: Path, alertmanager: Path) -> None:
    """All that the shipped files wait for, on the copies in these directories."""
    (prometheus / "rules").unlink()
    (prometheus / "rules").mkdir()
    for rules in (parts.DEPLOY / "prometheus" / "rules").glob("*.yml"):
        (prometheus / "rules" / rules.name).write_text(rules.read_text("utf-8"), "utf-8")
    for name, pattern, replacement in SHORTER:
        path = (alertmanager if name == "alertmanager.yml" else prometheus) / name
        text, count = re.subn(pattern, replacement, path.read_text("utf-8"))
        assert count, f"nothing to shorten in {name}"
        path.write_text(text, "utf-8")


def tell(path: Path, port: int) -> None:
    """Alertmanager's copy tells the webhook at `port` of this machine."""
    text = path.read_text("utf-8")
    assert text.count("127.0.0.1:9095/") == 2
    path.write_text(text.replace("127.0.0.1:9095/", f"127.0.0.1:{port}/"), "utf-8")


def _record(prometheus: Path, proxy_url: str) -> None:
    path = prometheus / "prometheus.yml"
    jobs = rf"(  - job_name: (?:{'|'.join(RECORDED)})\n)"
    text, count = re.subn(jobs, rf"\1    proxy_url: {proxy_url}\n", path.read_text("utf-8"))
    assert count == len(RECORDED)
    path.write_text(text, "utf-8")
