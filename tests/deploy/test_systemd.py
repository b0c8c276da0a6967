"""deploy/systemd: the unit is what systemd takes, hardened, and forbids a node nothing that it does."""

import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from deploy.pages import typed
from deploy.stack.parts import DEPLOY
from tests.conftest import BrokerFactory
from tests.support.client import Crowd
from tests.support.need import need_tool
from tests.support.node import Node
from tests.support.raw import frame
from tests.support.until import until

UNIT = DEPLOY / "systemd" / "hiroba@.service"


def settings(name: str) -> list[str]:
    """All values of a directive, in order."""
    lines = (line.partition("=") for line in UNIT.read_text("utf-8").splitlines() if not line.startswith("#"))
    return [value for directive, _, value in lines if directive == name]


def syscalls(group: str) -> set[str]:
    """What a `@group` of system calls holds, by this systemd (systemd.exec(5), SystemCallFilter=)."""
    argv = [need_tool("systemd-analyze", "systemd"), "syscall-filter", group]
    said = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()[1:]
    names = {line.strip() for line in said if line.strip() and not line.strip().startswith("#")}
    return {name for name in names if name[0] != "@"}.union(*(syscalls(name) for name in names if name[0] == "@"))


def allowed() -> set[str]:
    calls: set[str] = set()
    for value in settings("SystemCallFilter"):
        listed: set[str] = set()
        for word in value.lstrip("~").split():
            listed |= syscalls(word) if word.startswith("@") else {word}
        calls = calls - listed if value.startswith("~") else calls | listed
    return calls


def test_systemd_takes_the_unit_and_finds_it_hardened() -> None:
    """Exposure at most 2.5 of 10; 9.2 is what a unit without these lines has."""
    need_tool("systemd-analyze", "systemd")
    argv = [*typed("docs/operations.md", "systemd-analyze security").split(), "--offline=true", "--threshold=25"]
    done = subprocess.run([*argv, str(UNIT)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Unknown" not in done.stderr and "Failed to parse" not in done.stderr, done.stderr


@pytest.mark.timeout(180)
async def test_a_node_makes_no_system_call_that_its_unit_forbids(start_broker: BrokerFactory, tmp_path: Path) -> None:
    """From its start over a chat and a scrape to its drain, by strace: a forbidden one would be EPERM out there."""
    broker = await start_broker()
    node = Node(broker.url, tmp_path, "traced", lb_wait_s=0, drain_s=0.2)
    counts = tmp_path / "syscalls"
    strace = [need_tool("strace", "strace"), "-f", "-c", "-U", "name,calls", "-o", str(counts)]
    node.process.argv = [*strace, *node.process.argv]
    await node.start()
    async with Crowd() as crowd:
        raw = await crowd.member(node, "demoroom")
        raw.write(frame(b'{"message": "hello"}'))
        await until(raw.payloads, "what was said comes back")
        await node.metric("hiroba_connections")
    (traced,) = psutil.Process(node.process.pid).children()
    traced.send_signal(signal.SIGTERM)
    assert await node.process.ended(60) == 0
    rows = [line.split() for line in counts.read_text().splitlines()]
    used = {row[0] for row in rows if len(row) == 2 and row[1].isdigit()} - {"total"}
    assert len(used) > 30
    assert used - allowed() == set()
