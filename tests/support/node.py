"""One real node as a process of its own: `python -m gateway node` with free ports."""

import os
import sys
from pathlib import Path
from urllib.parse import quote, urlencode

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.support.ports import free_port
from tests.support.process import Process
from tests.support.until import BUDGET_S, until

Metrics = dict[str, float]


class Node:
    """Its ports stay the same over restarts. Settings by name: `Node(url, directory, stall_s=2)`."""

    def __init__(self, broker_url: str, directory: Path, name: str = "node", **settings: object) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.port = int(str(settings.pop("port", None) or free_port()))
        self.ops_port = int(str(settings.pop("ops_port", None) or free_port()))
        self.settings = {"log_format": "json", **settings}
        self.settings |= {"broker_url": broker_url, "port": self.port, "ops_port": self.ops_port}
        argv = [sys.executable, "-m", "tests.support.watched", "node"]
        self.process = Process(name, argv, directory / f"{name}.log", env=environment(self.settings))

    async def start(self, ready: bool = True, within_s: float = 30.0) -> "Node":
        """Starts the process; waits until /readyz answers 200 unless `ready` is False."""
        self.process.spawn()
        if ready:
            await self.wait_ready(within_s)
        return self

    async def wait_ready(self, within_s: float = 30.0) -> None:
        async def answers() -> bool:
            assert self.process.running, f"{self.process.name} ended at start\n{self.process.tail()}"
            return await self.is_ready()

        await until(answers, f"{self.process.name} is ready", within_s, every_s=0.03)

    async def is_ready(self) -> bool:
        """What /readyz says; False as well when nobody answers."""
        try:
            return (await self.get("/readyz", ops=True, within_s=5))[0] == 200
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    def url(self, path: str = "/") -> str:
        return f"http://127.0.0.1:{self.port}{quote(path)}"

    def ops_url(self, path: str = "/") -> str:
        return f"http://127.0.0.1:{self.ops_port}{path}"

    def ws_url(self, room: str, **query: object) -> str:
        """The WebSocket of a room; `ws_url("部屋", history=50)`."""
        tail = f"?{urlencode(query)}" if query else ""
        return f"ws://127.0.0.1:{self.port}/ws/chat/{quote(room)}/{tail}"

    async def get(self, path: str, ops: bool = False, within_s: float = BUDGET_S) -> tuple[int, str]:
        """Status and body."""
        timeout = aiohttp.ClientTimeout(total=within_s)
        async with (
            aiohttp.ClientSession(timeout=timeout) as http,
            http.get(self.ops_url(path) if ops else self.url(path)) as answer,
        ):
            return answer.status, await answer.text()

    async def metrics(self) -> Metrics:
        """All samples, keyed as Prometheus prints them: `name` or `name{label="value",…}`, labels sorted."""
        return {_key(sample): sample.value for sample in await self._samples()}

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of all samples of this name that carry these labels; 0 when there is none."""
        samples = await self._samples()
        return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())

    async def _samples(self) -> list[Sample]:
        _, text = await self.get("/metrics", ops=True)
        return [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    async def kill(self) -> None:
        """SIGKILL."""
        await self.process.kill()

    async def stop(self, within_s: float = 30.0) -> int:
        """SIGTERM, then waits for the drain; the exit code."""
        return await self.process.stop(within_s)

    def pause(self) -> None:
        self.process.pause()

    def cont(self) -> None:
        self.process.cont()

    def lines(self) -> list[str]:
        return self.process.lines()


def _key(sample: Sample) -> str:
    labels = ",".join(f'{key}="{value}"' for key, value in sorted(sample.labels.items()))
    return f"{sample.name}{{{labels}}}" if labels else sample.name


def environment(settings: dict[str, object]) -> dict[str, str]:
    """Our environment without anybody's HIROBA_… settings, and with these."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("HIROBA_")}
    env |= {f"HIROBA_{key.upper()}": str(value) for key, value in settings.items()}
    env["PYTHONUNBUFFERED"] = "1"
    return env
