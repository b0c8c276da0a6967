"""What is made of the answers of sentinels that are late or behind, as no real one can be made to be at will."""

import asyncio
from collections.abc import AsyncIterator

import hiredis
import pytest
from redis.asyncio.sentinel import MasterNotFoundError

from gateway.broker.dial import Dial
from gateway.broker.sentinel import Sentinels
from gateway.settings.urls import sentinel_url

TIMEOUT_S = 20.0

# redis-py 8 would rather have `driver_info`, which redis-py 6 does not know.
pytestmark = pytest.mark.filterwarnings("ignore:.*'lib_(name|version)':DeprecationWarning")


class Says:
    """A sentinel that names this master, as of this failover; with `mute` it accepts and never answers."""

    def __init__(self) -> None:
        self.master, self.epoch, self.mute = 1001, 0, False
        self.port = 0
        self.server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        assert self.server is not None
        self.server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        parser = hiredis.Reader()
        while data := await reader.read(65_536):
            parser.feed(data)
            while (command := parser.gets()) is not False:
                if not self.mute:
                    writer.write(self._answer(command[0]))

    def _answer(self, command: bytes) -> bytes:
        if command != b"SENTINEL":
            return b"%1\r\n+proto\r\n:3\r\n" if command == b"HELLO" else b"+OK\r\n"
        fields = {"name": "chat", "ip": "127.0.0.1", "port": self.master, "flags": "master", "config-epoch": self.epoch}
        flat = hiredis.pack_command(tuple(str(part) for field in fields.items() for part in field))
        return flat.replace(b"*10", b"%5", 1)  # RESP3: a map


@pytest.fixture
async def three() -> AsyncIterator[list[Says]]:
    three = [Says() for _ in range(3)]
    for says in three:
        await says.start()
    yield three
    for says in three:
        says.stop()


@pytest.fixture
async def sentinels(three: list[Says]) -> AsyncIterator[Sentinels]:
    hosts = ",".join(f"127.0.0.1:{says.port}" for says in three)
    sentinels = Sentinels(sentinel_url(f"redis+sentinel://{hosts}/chat"), Dial(), TIMEOUT_S)
    yield sentinels
    await sentinels.aclose()


async def master(sentinels: Sentinels) -> int:
    return (await sentinels.master())[1]


async def test_one_that_is_dead_slows_no_look(three: list[Says], sentinels: Sentinels) -> None:
    three[0].mute = True
    async with asyncio.timeout(TIMEOUT_S / 8):  # half of the time that it has while most have not answered
        assert [await master(sentinels) for _ in range(3)] == [1001] * 3
    three[0].mute, three[0].master, three[0].epoch = False, 1002, 1
    assert await master(sentinels) == 1002, "it is asked again"


async def test_one_that_is_behind_takes_back_nothing_alone(three: list[Says], sentinels: Sentinels) -> None:
    """The one that a failover passed by, when its fellows are gone."""
    behind, *others = three
    for says in others:
        says.master, says.epoch = 1002, 1
    assert await master(sentinels) == 1002
    for says in others:
        says.stop()
    with pytest.raises(MasterNotFoundError, match="that do not know of the last failover answer"):
        await master(sentinels)
    behind.master, behind.epoch = 1002, 1
    assert await master(sentinels) == 1002
    # Most of them may: somebody set them up anew.
    behind.master, behind.epoch = 1003, 0
    others[0].master, others[0].epoch = 1003, 0
    await others[0].start()
    assert await master(sentinels) == 1003
