"""`hiroba up`: nodes and broker live and end together, whatever is killed and however it is told to go."""

import asyncio
import os
import pty
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.conftest import BrokerFactory
from tests.support.process import alive
from tests.support.until import until
from tests.support.up import HIROBA, Up

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")

# Ctrl-C ends within 2 s; ten times that is a bug on any machine, a busy one included.
CTRL_C_S = 20.0
# So long that a test which waited for it would fail by its own time limit.
FOR_EVER: dict[str, Any] = {"drain_s": 600, "lb_wait_s": 600}

Websocket = aiohttp.ClientWebSocketResponse


@asynccontextmanager
async def sockets(up: Up, room: str, count: int = 1, **query: object) -> AsyncIterator[list[Websocket]]:
    async with aiohttp.ClientSession() as http:
        yield [await http.ws_connect(up.ws_url(room, **query)) for _ in range(count)]


async def say(up: Up, room: str, text: str) -> None:
    """Says it and hears it: then it is in the log."""
    async with sockets(up, room) as (ws,):
        await ws.send_json({"message": text})
        # A node that had not read the room's last entries yet begins with those: older than the join, never newer.
        while await ws.receive_json(timeout=20) != {"message": text}:
            pass


def all_gone(pids: list[int]) -> Callable[[], bool]:
    return lambda: not any(map(alive, pids))


async def test_what_was_said_yesterday_is_there_today(tmp_path: Path) -> None:
    up = await Up(tmp_path).start()
    for text in ("お", "や", "す", "み"):
        await say(up, "部屋", text)
    family = up.family()
    assert len(family) == 3
    assert await up.process.stop() == 0
    assert not any(map(alive, family))
    await up.start()
    async with sockets(up, "部屋", history=10) as (ws,):
        heard = [(await ws.receive_json(timeout=20))["message"] for _ in range(4)]
    assert heard == ["お", "や", "す", "み"]
    assert await up.process.stop() == 0


async def test_the_nodes_end_before_the_broker(tmp_path: Path) -> None:
    """They have entries to flush and groups to remove: all of it is done when the broker goes."""
    up = await Up(tmp_path).start()
    await say(up, "demoroom", "hello")
    up.process.signal(signal.SIGTERM)
    assert await up.process.ended() == 0
    order = [line["event"] for event in ("stopped", "ended") for line in up.events(event)]
    assert order == ["stopped", "stopped", "ended"]
    assert not up.events("left without telling the broker; other nodes will sweep")
    assert "bye bye" in (tmp_path / "data" / "valkey.log").read_text()
    assert not (tmp_path / "data" / "valkey.sock").exists()


async def test_the_start_says_url_nodes_broker_and_versions(tmp_path: Path) -> None:
    up = await Up(tmp_path, nodes=3).start()
    (starting,), (ready,) = up.events("starting"), up.events("ready")
    assert (starting["nodes"], starting["pid"]) == (3, up.process.pid)
    assert starting["broker"].split()[0] in ("Valkey", "Redis")
    assert "Python 3" in starting["hiroba"]
    assert ready["url"] == f"http://127.0.0.1:{up.port}/chat/"
    async with aiohttp.ClientSession() as http:
        for address in (ready["url"], *(f"{ops}readyz" for ops in ready["ops"].split())):
            async with http.get(address) as answer:
                assert answer.status == 200
    assert len(ready["ops"].split()) == 3


async def test_a_killed_node_is_started_again_and_nobody_else_is_disturbed(tmp_path: Path) -> None:
    up = await Up(tmp_path).start()
    async with sockets(up, "demoroom", count=16) as clients:
        before = up.node_pids()
        os.kill(before[0], signal.SIGKILL)
        await until(lambda: up.events("node 0 runs again"), "the node runs again")
        (died,) = up.events("node 0 died")
        assert died["why"] == "SIGKILL"
        assert 0 < died["restart_in_s"] <= 0.5
        assert before[1] in up.node_pids()
        assert len(set(up.node_pids()) - set(before)) == 1
        # Those of the dead node were cut; the others hear what is said next.
        await say(up, "demoroom", "still here")
        heard = [await ws.receive(timeout=20) for ws in clients]
    stayed = [msg for msg in heard if msg.type is aiohttp.WSMsgType.TEXT]
    cut = [msg for msg in heard if msg.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)]
    assert len(stayed) + len(cut) == 16
    assert all(msg.json() == {"message": "still here"} for msg in stayed)
    assert stayed and cut, "16 clients came to one node only: the port is not shared"


async def test_a_node_that_is_drained_by_the_api_is_no_error_and_comes_again(tmp_path: Path) -> None:
    """Whoever reads the log for what broke is not called; the line of who did it names the node."""
    up = await Up(tmp_path, drain_s=0, lb_wait_s=0).start()
    (ready,) = up.events("ready")
    first, second = ready["ops"].split()
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{first}api/v1/info") as answer:
            node = (await answer.json())["node"]["id"]
        async with http.post(f"{second}api/v1/drain", json={"node": node}) as answer:
            assert (answer.status, await answer.json()) == (200, {"node": node})
    await until(lambda: up.events("node 0 runs again"), "the node runs again")
    assert up.events("node 0 was told to go") and not up.events("node 0 died")
    assert [line["drained"] for line in up.events("api")] == [node]


@pytest.mark.parametrize("ops", ["given", "any free one"])
async def test_a_node_that_hangs_is_killed_and_started_again(tmp_path: Path, ops: str) -> None:
    """It holds its sockets: the kernel goes on handing it its share of the connections, and nobody answers them."""
    up = await Up(tmp_path, hang_s=1, **({} if ops == "given" else {"ops_port": 0})).start()
    hung, other = up.node_pids()
    os.kill(hung, signal.SIGSTOP)
    await until(lambda: up.events("node 0 runs again"), "the node runs again")
    (hangs,), (died,) = up.events("node 0 hangs and is killed"), up.events("node 0 died")
    (ready,) = up.events("ready")
    assert hangs["why"] == f"no answer from {ready['ops'].split()[0]}healthz for 1 s"
    assert died["why"] == "SIGKILL"
    await until(lambda: len(up.events("listening")) == 3, "it listens")
    assert up.node_pids()[0] == other and hung not in up.node_pids()
    for _ in range(8):  # either node's turn
        await say(up, "demoroom", "hello")
    # The one that was started again is watched as well.
    os.kill(up.node_pids()[1], signal.SIGSTOP)
    await until(lambda: len(up.events("node 0 hangs and is killed")) == 2, "it hangs again")


async def test_a_laptop_that_slept_kills_no_node(tmp_path: Path) -> None:
    """All of it stood still for longer than `hang_s`, the one that asks as well."""
    up = await Up(tmp_path, hang_s=1).start()
    pids = [up.process.pid, *up.node_pids()]
    for _ in range(3):
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(1.5)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        await say(up, "demoroom", "good morning")
    assert up.node_pids() == pids[1:]
    assert not up.events("node 0 hangs and is killed") and not up.events("node 1 hangs and is killed")


async def test_a_killed_broker_comes_back_and_the_sockets_stay_open(tmp_path: Path) -> None:
    up = await Up(tmp_path).start()
    await say(up, "demoroom", "before")
    async with sockets(up, "demoroom", history=5) as (ws,):
        assert await ws.receive_json(timeout=20) == {"message": "before"}
        killed = up.broker_pid()
        os.kill(killed, signal.SIGKILL)
        await until(lambda: up.events("broker runs again"), "the broker runs again")
        assert up.broker_pid() != killed
        await ws.send_json({"message": "after"})
        assert await ws.receive_json(timeout=20) == {"message": "after"}
    async with sockets(up, "demoroom", history=5) as (ws,):
        assert [await ws.receive_json(timeout=20) for _ in range(2)] == [
            {"message": "before"},
            {"message": "after"},
        ]


@linux_only
async def test_a_killed_supervisor_leaves_nothing_behind(tmp_path: Path) -> None:
    up = await Up(tmp_path).start()
    await say(up, "demoroom", "before")
    family = up.family()
    await up.process.kill()
    await until(all_gone(family), "nodes and broker are gone")
    await up.start()
    async with sockets(up, "demoroom", history=5) as (ws,):
        assert await ws.receive_json(timeout=20) == {"message": "before"}


async def test_a_second_signal_hurries(tmp_path: Path) -> None:
    up = await Up(tmp_path, **FOR_EVER).start()
    async with sockets(up, "demoroom") as (ws,):
        up.process.signal(signal.SIGTERM)
        await until(lambda: len(up.events("stopping")) == 3, "supervisor and nodes know")
        assert up.process.running
        up.process.signal(signal.SIGTERM)
        assert (await ws.receive(timeout=20)).data == 1012
    assert await up.process.ended(CTRL_C_S) == 0


async def test_a_node_that_hangs_is_killed_at_the_end(tmp_path: Path) -> None:
    up = await Up(tmp_path).start()
    hung = up.node_pids()[1]
    os.kill(hung, signal.SIGSTOP)
    up.process.signal(signal.SIGINT)
    assert await up.process.ended(CTRL_C_S) == 0
    assert not alive(hung)
    assert up.events("node 1 did not end in time and was killed")


@pytest.mark.parametrize("how", ["ctrl-c", "terminal closed"])
async def test_a_terminal_ends_all_of_it(tmp_path: Path, how: str) -> None:
    """A terminal sends Ctrl-C to its whole foreground group; only the supervisor is in it, and it decides."""
    ours, theirs = pty.openpty()
    up = Up(tmp_path, **FOR_EVER)
    up.process.terminal = theirs
    await up.start()
    os.close(theirs)
    async with sockets(up, "demoroom") as (ws,):
        family = up.family()
        if how == "ctrl-c":
            os.write(ours, b"\x03")
        else:
            os.close(ours)
        assert (await ws.receive(timeout=CTRL_C_S)).data == 1012
        assert await up.process.ended(CTRL_C_S) == 0
    await until(all_gone(family), "nodes and broker are gone")
    assert len(up.events("stopping")) == 3
    if how == "ctrl-c":
        os.close(ours)


async def test_two_instances_cannot_share_a_directory(tmp_path: Path) -> None:
    first = await Up(tmp_path).start()
    second = Up(tmp_path, "second")
    second.process.spawn()
    assert await second.process.ended() == 1
    (line,) = second.process.lines()
    assert f"{tmp_path / 'data'} is in use by process {first.process.pid}: stop it" in line
    await say(first, "demoroom", "still here")


@pytest.mark.parametrize("flag", ["--port", "--ops-port"])
async def test_a_port_in_use_is_one_sentence_that_names_it_and_the_flag(tmp_path: Path, flag: str) -> None:
    up = Up(tmp_path)
    taken = up.port if flag == "--port" else int(str(up.settings["ops_port"])) + 1
    with socket.create_server(("127.0.0.1", taken)):
        up.process.spawn()
        assert await up.process.ended() == 1
    (line,) = up.process.lines()
    assert f"cannot listen on 127.0.0.1:{taken}: Address already in use; choose another with {flag}" in line
    assert not (tmp_path / "data").exists(), "it started a broker first"


async def test_a_port_of_another_hiroba_is_in_use_too(tmp_path: Path) -> None:
    """SO_REUSEPORT would let a second instance of the same user join the first one's port, and take half of
    its clients, unseen."""
    first = await Up(tmp_path).start()
    second = Up(tmp_path, "second", port=first.port, data=tmp_path / "other")
    second.process.spawn()
    assert await second.process.ended() == 1
    assert f"127.0.0.1:{first.port}" in second.process.tail()


async def test_two_colons_are_every_address_of_both_families(tmp_path: Path) -> None:
    """The port is held on both, and the nodes join both."""
    up = await Up(tmp_path, host="::", ops_host="::", nodes=1).start()
    for address in ("127.0.0.1", "[::1]"):
        for port in (up.port, up.settings["ops_port"]):
            async with aiohttp.ClientSession() as http, http.get(f"http://{address}:{port}/healthz") as answer:
                assert answer.status == 200


async def test_the_port_stays_ours_while_all_nodes_are_down(tmp_path: Path) -> None:
    up = await Up(tmp_path).start()
    nodes = up.node_pids()
    for pid in nodes:
        os.kill(pid, signal.SIGKILL)
    await until(all_gone(nodes), "the nodes are down", every_s=0.001)
    with pytest.raises(OSError, match="in use"), socket.create_server(("127.0.0.1", up.port)):
        pass
    await until(lambda: len(up.events("listening")) == 4, "both are back")
    await say(up, "demoroom", "back")


async def test_a_long_data_path_works(tmp_path: Path) -> None:
    """Longer than a unix socket's address may be."""
    up = await Up(tmp_path, data=tmp_path / ("部" * 40) / "data").start()
    await say(up, "demoroom", "hello")
    assert await up.process.stop() == 0


INHERITED = """
import sys
from gateway.settings.load import load
from gateway.process.supervisor import run
sys.exit(run(load({}).settings, balances=False))
"""


async def test_one_inherited_socket_serves_where_ports_do_not_balance(tmp_path: Path) -> None:
    up = await Up(tmp_path, argv=(sys.executable, "-c", INHERITED)).start()
    await say(up, "demoroom", "hello")
    first = up.node_pids()[0]
    os.kill(first, signal.SIGKILL)
    await until(lambda: up.events("node 0 runs again"), "the node runs again")
    os.kill(up.node_pids()[0], signal.SIGKILL)  # the other one of the first two: now the new one must serve
    await say(up, "demoroom", "hello again")
    assert await up.process.stop() == 0


async def test_a_named_broker_is_used_and_its_password_is_never_shown(
    start_broker: BrokerFactory, tmp_path: Path
) -> None:
    broker = await start_broker(user="gate", password="hunter2-secret")
    up = await Up(tmp_path, broker_url=broker.url).start()
    await say(up, "demoroom", "hello")
    assert len(up.family()) == 2
    assert not (tmp_path / "data").exists()
    assert await up.process.stop() == 0
    assert "gate:***@" in up.events("starting")[0]["broker"]
    assert "hunter2" not in up.process.log.read_text()


async def test_a_directory_called_gateway_does_not_pass_for_ours(tmp_path: Path) -> None:
    """`python -m` looks into the current directory first; who starts hiroba in a project of that name must get
    hiroba."""
    (tmp_path / "gateway").mkdir()
    (tmp_path / "gateway" / "__init__.py").write_text("raise SystemExit('not hiroba')")
    checkout = Path(__file__).parents[2]
    up = Up(tmp_path, argv=(sys.executable, "-P", *HIROBA[1:], "up"))
    up.process.env["PYTHONPATH"] = str(checkout)
    up.process.cwd = tmp_path
    await up.start()
    await say(up, "demoroom", "hello")


async def test_told_to_go_while_it_starts_it_goes(tmp_path: Path) -> None:
    up = Up(tmp_path)
    up.process.spawn()
    await until((tmp_path / "data" / "lock").exists, "the broker is on its way")
    family = up.family()
    up.process.signal(signal.SIGINT)
    assert await up.process.ended(CTRL_C_S) == 0
    await until(all_gone(family), "nothing is left")
