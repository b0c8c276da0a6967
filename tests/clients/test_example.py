"""examples/many_rooms.py: what docs/protocol.md alone taught somebody, over a kill, a drain and a loss."""

import runpy
import signal
import sys
from pathlib import Path

import pytest

from gateway.core.closes import Close
from tests.cluster.chat import key
from tests.conftest import NodeFactory
from tests.support.broker import Broker
from tests.support.client import Crowd
from tests.support.process import Process
from tests.support.until import until

EXAMPLE = Path(__file__).parents[2] / "examples" / "many_rooms.py"
ROOMS = ("lobby", "kitchen")


def test_it_comes_back_as_the_page_says() -> None:
    """Steps of 0.5 s that double to 5 s, and to 30 s a minute after the connection was lost; after months too."""
    step_s = runpy.run_path(str(EXAMPLE))["step_s"]
    assert [step_s(tries, tries * 2.0) for tries in range(6)] == [0.5, 1, 2, 4, 5, 5]
    assert [step_s(20, 59.9), step_s(20, 60.0), step_s(10**6, 1e7)] == [5, 30, 30]


def test_it_stays_away_after_the_codes_that_say_so() -> None:
    """And is as short as the page says."""
    assert runpy.run_path(str(EXAMPLE))["FOR_GOOD"] == {close.code for close in Close if not close.reconnect}
    assert len(EXAMPLE.read_text("utf-8").splitlines()) <= 90


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
async def test_it_hears_each_message_of_its_rooms_once_whatever_breaks(
    start_node: NodeFactory, broker: Broker, tmp_path: Path
) -> None:
    node, other = await start_node(lb_wait_s=0, drain_s=0, linger_s=0.1), await start_node(linger_s=0.1)
    example = Process(
        "example",
        [sys.executable, str(EXAMPLE), node.url("/ws/").replace("http", "ws"), *ROOMS, "--watch", "attic"],
        tmp_path / "example.log",
    )
    said: dict[str, list[str]] = {room: [] for room in ROOMS}

    def heard(room: str) -> list[str]:
        lines = (line.partition(": ") for line in example.lines())
        return [text for name, _, text in lines if name == room]

    async with Crowd() as crowd:
        speaker = await crowd.come(other)
        rooms = [{"type": "join", "room": room} for room in (*ROOMS, "attic")]
        await speaker.ask_all(rooms)

        async def say(*texts: str) -> None:
            for room in ROOMS:
                await speaker.ask_all([{"type": "message", "room": room, "message": text} for text in texts])
                said[room] += texts

        async def hears_all() -> None:
            await until(lambda: all(heard(room) == said[room] for room in ROOMS), f"{said}")

        await say("before it came")
        example.spawn()
        await hears_all()
        await speaker.ask("message", room="attic", message="a step")
        await until(lambda: any(line.startswith("attic is at") and "-1" in line for line in example.lines()), "a top")
        await node.kill()
        await say("while its node was dead")
        await node.start()
        await hears_all()
        node.process.signal(signal.SIGTERM)
        assert await node.process.ended() == 0
        await say(*(f"lost {n}" for n in range(3)), "kept")
        async with broker.client() as redis:
            await redis.xtrim(key("lobby"), maxlen=1, approximate=False)
        said["lobby"][-4:] = ["3 messages are gone", "kept"]
        await node.start()
        await hears_all()
    await example.stop()
