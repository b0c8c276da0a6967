"""Guests of `hiroba up`: a name counts on every node, and still after a restart."""

from pathlib import Path

import aiohttp
import psutil

from tests.support.tokens import SECRET
from tests.support.up import Up


async def users(up: Up, cookie: str, times: int = 12) -> set[str]:
    """Who a guest with that cookie is, over and over: the kernel spreads connections over the nodes."""
    found = set()
    for _ in range(times):
        async with aiohttp.ClientSession() as http:
            ws = await http.ws_connect(up.ws_url("r"), protocols=["hiroba.v1"], headers={"Cookie": cookie})
            user = (await ws.receive_json())["user"]
            found.add("nobody" if user is None else user["name"])
            await ws.close()
    return found


async def test_a_guest_keeps_a_name_on_every_node_and_over_a_restart(tmp_path: Path) -> None:
    """The secret is made once, kept where only the owner reads it, and in nobody's log or command line."""
    up = await Up(tmp_path).start()
    async with aiohttp.ClientSession() as http:
        answer = await http.post(f"http://127.0.0.1:{up.port}/guest", params={"name": "Ann"})
        cookie = answer.headers["Set-Cookie"].partition(";")[0]
    assert await users(up, cookie) == {"Ann"}
    kept = tmp_path / "data" / "guest-secret"
    assert kept.stat().st_mode & 0o777 == 0o600
    secret = kept.read_text("ascii")
    assert len(secret) == 64 and secret not in "".join(up.process.lines())
    commands = [psutil.Process(pid).cmdline() for pid in [up.process.pid, *up.family()]]
    assert not any(secret in word for command in commands for word in command)
    await up.process.stop()
    await up.start()
    assert await users(up, cookie) == {"Ann"} and kept.read_text("ascii") == secret


async def test_keys_are_in_the_environment_of_nodes_and_nowhere_else(tmp_path: Path) -> None:
    """Neither on a command line nor in a log; and the broker, which is no node, gets none of ours."""
    up = await Up(tmp_path, nodes=1, token_keys=f"HS256:{SECRET}", guest_secret="g" * 40).start()
    processes = [psutil.Process(pid) for pid in [up.process.pid, *up.family()]]
    has_keys = {process.pid for process in processes if SECRET in process.environ().get("HIROBA_TOKEN_KEYS", "")}
    assert has_keys == {up.process.pid, *up.node_pids()}
    (broker,) = [process for process in processes if process.pid == up.broker_pid()]
    assert not [name for name in broker.environ() if name.startswith("HIROBA_")]
    told = [*up.process.lines(), *(word for process in processes for word in process.cmdline())]
    assert not any(secret in text for text in told for secret in (SECRET, "g" * 40))
