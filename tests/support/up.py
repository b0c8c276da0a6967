"""`hiroba up` as a process: its nodes and its broker found as its children, its log lines as dictionaries."""

import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import psutil

from tests.support.node import environment
from tests.support.ports import free_port, free_ports
from tests.support.process import Process, alive
from tests.support.until import until

HIROBA = (sys.executable, "-m", "gateway")


class Up:
    """Ports and data stay the same over restarts. Settings by name: `Up(tmp_path, nodes=3, drain_s=1)`."""

    def __init__(
        self, directory: Path, name: str = "up", argv: tuple[str, ...] = (*HIROBA, "up"), **settings: object
    ) -> None:
        self.nodes = int(str(settings.setdefault("nodes", 2)))
        settings.setdefault("port", free_port())
        settings.setdefault("ops_port", free_ports(self.nodes))
        settings.setdefault("data", directory / "data")
        # A test that wants to see the wait or the drain says how long.
        settings = {"log_format": "json", "lb_wait_s": 0.1, "drain_s": 0.5, **settings}
        self.settings = settings
        self.process = Process(name, argv, directory / f"{name}.log", env=environment(settings))

    @property
    def port(self) -> int:
        return int(str(self.settings["port"]))

    async def start(self, within_s: float = 40.0) -> "Up":
        """Starts it and waits until all nodes are ready."""
        before = len(self.events("ready"))
        self.process.spawn()
        await until(lambda: self._said_ready(before), "hiroba up is ready", within_s)
        return self

    def _said_ready(self, before: int) -> bool:
        assert self.process.running, f"hiroba up ended at start\n{self.process.tail()}"
        return len(self.events("ready")) > before

    def events(self, event: str) -> list[dict[str, Any]]:
        """The log lines of this event so far, the nodes' too."""
        lines = [json.loads(line) for line in self.process.lines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    def node_pids(self) -> list[int]:
        """In the order of their start."""
        return [child.pid for child in self._children() if "node" in child.cmdline()]

    def broker_pid(self) -> int:
        (server,) = (child.pid for child in self._children() if "valkey-server" in child.name())
        return server

    def family(self) -> list[int]:
        """The process ids of everything that it started."""
        return [child.pid for child in psutil.Process(self.process.pid).children(recursive=True)]

    def _children(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children()
        return sorted((child for child in children if alive(child.pid)), key=lambda child: child.create_time())

    def ws_url(self, room: str, **query: object) -> str:
        tail = f"?{urlencode(query)}" if query else ""
        return f"ws://127.0.0.1:{self.port}/ws/chat/{quote(room)}/{tail}"
