"""The real load balancer before real nodes: haproxy.cfg as it is shipped, on free ports."""

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote, urlencode

import aiohttp

from deploy.stack import parts
from deploy.stack.parts import NodeAt
from tests.support.need import need_tool
from tests.support.node import Node
from tests.support.ports import free_ports
from tests.support.process import Process
from tests.support.until import until

# Of haproxy.cfg's default-server; test_haproxy.py holds them against it.
INTER_S, FALL, RISE = 1, 2, 2


class HAProxy:
    """`variables` as haproxy.cfg names them: `HAProxy(nodes, directory, LB_ADDRESS_HANDSHAKES_MAX=5)`."""

    def __init__(self, nodes: Sequence[Node], directory: Path, **variables: object) -> None:
        need_tool("haproxy", "haproxy")
        self.port = free_ports(2)
        self.ops_port = self.port + 1
        at = [NodeAt(node.port, node.ops_port) for node in nodes]
        given = {name: str(value) for name, value in variables.items()}
        part = parts.haproxy(directory / "haproxy", at, self.port, self.ops_port, **given)
        self.process = Process("haproxy", part.argv, directory / "haproxy.log", env={**os.environ, **part.env})
        self._servers = [f"node{number}" for number in range(len(nodes))]

    async def start(self) -> "HAProxy":
        """Returns when each node passed a check of its own."""
        self.process.spawn()

        async def checked() -> bool:
            assert self.process.running, f"haproxy ended at start\n{self.process.tail()}"
            states = await self.states()
            return all(states[name]["check_status"] == "L7OK" for name in self._servers)

        await until(checked, "haproxy sees all nodes ready", every_s=0.05)
        return self

    async def states(self) -> dict[str, dict[str, str]]:
        """HAProxy's statistics by server: status, scur, stot, chkfail …"""
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"http://127.0.0.1:{self.ops_port}/stats;csv") as answer,
        ):
            text = (await answer.text()).removeprefix("# ")
        return {row["svname"]: row for row in csv.DictReader(io.StringIO(text)) if row["pxname"] == "nodes"}

    async def status(self, number: int) -> str:
        """UP, DOWN, and steps between such as `UP 1/2`."""
        return (await self.states())[f"node{number}"]["status"]

    def url(self, path: str = "/", scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{quote(path)}"

    def ws_url(self, room: str, **query: object) -> str:
        tail = f"?{urlencode(query)}" if query else ""
        return f"ws://127.0.0.1:{self.port}/ws/chat/{quote(room)}/{tail}"
