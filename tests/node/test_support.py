"""The test support itself: a broken tool would make other tests pass for the wrong reason."""

import asyncio
import contextlib
import sys
import time
from pathlib import Path

import pytest
import redis.exceptions
from redis.asyncio import Redis

import gateway
from tests.conftest import BrokerFactory, NodeFactory
from tests.support.broker import Broker
from tests.support.ports import free_ports, is_free
from tests.support.process import Process
from tests.support.proxy import Proxy
from tests.support.until import until


async def test_a_killed_broker_comes_back_with_its_data_on_the_same_address(broker: Broker) -> None:
    async with broker.client() as client:
        await client.set("k", b"v")
        await broker.kill()
        with pytest.raises(redis.exceptions.ConnectionError):
            await client.get("k")
        await broker.restart()
        assert await client.get("k") == b"v"


@pytest.mark.parametrize("options", [{"tls": True}, {"unix": True}, {}], ids=["tls", "unix", "tcp"])
async def test_a_broker_wants_its_password(start_broker: BrokerFactory, options: dict[str, bool]) -> None:
    broker = await start_broker(user="gate", password="p@ss/w:rd", **options)
    async with broker.client() as client:
        assert await client.acl_whoami() == "gate"
    async with Redis.from_url(broker.url.replace("p%40ss", "wrong")) as stranger:
        with pytest.raises(redis.exceptions.ConnectionError, match="invalid username-password"):
            await stranger.ping()


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
async def test_a_paused_broker_answers_after_cont(broker: Broker) -> None:
    async with broker.client() as client:
        await client.ping()
        broker.pause()
        asking = asyncio.ensure_future(client.ping())
        done, _ = await asyncio.wait([asking], timeout=0.2)
        assert not done
        broker.cont()
        assert await asking


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
async def test_a_held_request_arrives_late_though_its_client_is_gone(broker: Broker) -> None:
    async with Proxy(broker.port) as proxy, broker.client() as direct:
        proxy.hold_at(b"INCR")
        async with Redis.from_url(broker.url_at("127.0.0.1", proxy.port, "operator"), retry=None) as client:
            await client.set("other", b"1")
            asking = asyncio.ensure_future(client.incr("late"))
            link = await proxy.held()
            link.cut_client()
            with pytest.raises(redis.exceptions.ConnectionError):
                await asking
            assert await direct.get("late") is None
            link.up.thaw()
            await until(lambda: direct.get("late"), "the late request reached the broker")


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
async def test_the_proxy_freezes_delays_cuts_and_refuses(broker: Broker) -> None:
    async with Proxy(broker.port) as proxy:
        async with Redis.from_url(broker.url_at("127.0.0.1", proxy.port, "operator"), retry=None) as client:
            await client.ping()
            proxy.freeze("down")
            asking = asyncio.ensure_future(client.ping())
            await until(lambda: proxy.links[0].down.held_bytes, "the answer is held")
            assert not asking.done()
            proxy.thaw()
            assert await asking
            proxy.delay(0.05)
            began = time.monotonic()
            await client.ping()
            assert time.monotonic() - began >= 0.1
            proxy.delay(0)
            proxy.cut()
            with contextlib.suppress(redis.exceptions.ConnectionError):
                await client.ping()
            proxy.refusing = True
            await client.connection_pool.disconnect()
            with pytest.raises(redis.exceptions.ConnectionError):
                await client.ping()
        assert not proxy.open_links


async def test_until_says_what_it_waited_for() -> None:
    with pytest.raises(AssertionError, match=r"the moon is full; last seen: 0"):
        await until(lambda: 0, "the moon is full", within_s=0.05)


def test_free_ports_come_in_a_row(tmp_path: Path) -> None:
    first = free_ports(4)
    assert all(is_free(first + n) for n in range(4))


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
async def test_a_node_is_ready_counts_and_ends(start_node: NodeFactory) -> None:
    node = await start_node(drain_s=0.1, lb_wait_s=0)
    assert (await node.get("/chat/部屋/"))[0] == 200
    metrics = await node.metrics()
    assert metrics["hiroba_ready"] == 1
    assert await node.metric("hiroba_build_info", version=gateway.__version__) == 1
    assert await node.metric("hiroba_build_info", version="another") == 0
    assert await node.stop() == 0
    assert not await node.is_ready()
    await node.start()
    await node.kill()
    assert any("stopped" in line for line in node.lines())


async def test_a_test_that_waits_for_ever_ends_at_its_timeout(tmp_path: Path) -> None:
    """uvloop took the timeout for a callback's error, logged it and waited on: one test would hold the whole run."""
    (tmp_path / "test_it.py").write_text("import asyncio\n\nasync def test_it():\n    await asyncio.Event().wait()\n")
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-c", "pyproject.toml", "--timeout", "1"]
    child = Process("pytest", [*command, "-p", "no:cacheprovider", str(tmp_path)], tmp_path / "pytest.log")
    child.spawn()
    assert await child.ended(60) == 1
    assert "Timeout (>1.0s)" in child.tail(2), child.tail()
    assert any("await asyncio.Event().wait()" in line for line in child.lines()), "where it waited"
