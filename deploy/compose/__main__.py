"""`make compose-test`: brings docker-compose.yml up, chats through it, scales it, kills a node, takes it down.

Under a project name of its own, so that nobody's data is touched; its ports must be free. Exit codes: 0 done, or there
is no engine here (1 where CI is set); 1 something did not hold.
"""

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp

ROOT = Path(__file__).parents[2]
COMPOSE = ["docker", "compose", "--project-name", "hiroba-test", "--file", str(ROOT / "docker-compose.yml")]
NODES = 4
PUBLIC, BALANCER = "http://127.0.0.1:8000", "http://127.0.0.1:8404"


def main() -> int:
    if reason := missing_engine():
        print(f"compose-test: {reason}: nothing was tried", file=sys.stderr)
        return 1 if os.environ.get("CI") else 0
    try:
        compose("up", "--build", "--detach", "--wait")
        asyncio.run(_all_holds())
    except (subprocess.CalledProcessError, AssertionError) as exc:
        print(f"compose-test: {exc}", file=sys.stderr)
        compose("logs", "--tail", "50")
        return 1
    finally:
        compose("down", "--volumes")
    print("compose-test: chatted, scaled, lost a node, chatted on")
    return 0


def missing_engine() -> str:
    """Why there is none, in words; empty where there is one that runs Compose."""
    if shutil.which("docker") is None:
        return "there is no container engine here (no docker on PATH)"
    for argv, what in ((["docker", "info"], "no container engine runs here"), (["docker", "compose", "version"], "")):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            return what or "the container engine here has no Compose (docker compose)"
    return ""


def compose(*args: str) -> str:
    """Its output. Raises CalledProcessError, after its own words on standard error."""
    return subprocess.run([*COMPOSE, *args], stdout=subprocess.PIPE, text=True, check=True).stdout


def kill(container: str) -> None:
    """SIGKILL for one of them: `compose kill` takes all of a service."""
    subprocess.run(["docker", "kill", container], check=True, capture_output=True)


async def _all_holds() -> None:
    await chat(PUBLIC)
    compose("up", "--detach", "--no-recreate", "--wait", "--scale", f"gateway={NODES}")
    await until(lambda: _nodes_up(NODES), f"HAProxy has {NODES} nodes")
    await chat(PUBLIC)
    victim = compose("ps", "--quiet", "gateway").split()[0]
    kill(victim)
    await until(lambda: _nodes_up(NODES - 1), f"HAProxy has {NODES - 1} nodes")
    await chat(PUBLIC)


async def chat(url: str, room: str = "compose", talkers: int = 8) -> None:
    """Everybody says something, and everybody hears all of it, once and in one order."""
    async with aiohttp.ClientSession() as http, asyncio.timeout(30):
        address = f"{url.replace('http', 'ws', 1)}/ws/chat/{room}/"
        sockets = [await http.ws_connect(address) for _ in range(talkers)]
        said = {f"{number} at {time.time_ns()}" for number in range(talkers)}
        for socket, text in zip(sockets, sorted(said), strict=True):
            await socket.send_json({"message": text})
        heard = [[(await socket.receive_json())["message"] for _ in said] for socket in sockets]
        for socket in sockets:
            await socket.close()
    assert set(heard[0]) == said, f"heard {heard[0]} of {said}"
    assert all(each == heard[0] for each in heard), "heard in different orders"


async def _nodes_up(count: int) -> bool:
    async with aiohttp.ClientSession() as http, http.get(f"{BALANCER}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    up = [line for line in lines if line.startswith("haproxy_server_status{") and 'state="UP"' in line]
    return sum(line.endswith(" 1") for line in up if 'proxy="nodes"' in line) == count


async def until(condition: Callable[[], Awaitable[bool]], what: str, within_s: float = 60.0) -> None:
    """Raises AssertionError."""
    deadline = time.monotonic() + within_s
    while not await condition():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        await asyncio.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
