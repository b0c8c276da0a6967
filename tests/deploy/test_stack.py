"""`make stack` as its user sees it: everything up from nothing, every target scraped, everything down again."""

import asyncio
import os
import re
import signal
import ssl
import stat
import sys
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from broker_config import users
from deploy.stack import parts
from deploy.stack.parts import PACKAGES, Part
from deploy.stack.run import Ports, Stack, StackError
from tests.support.certs import make_certs
from tests.support.need import need_tool
from tests.support.ports import free_port, free_ports
from tests.support.process import Process
from tests.support.until import until

NODES = 2


def stack(directory: Path, *flags: object, secrets: bool = True) -> Process:
    for program, package in PACKAGES.items():
        need_tool(program, package)
    argv = [sys.executable, "-m", "deploy.stack", "--nodes", str(NODES), "--data", str(directory / "stack")]
    env = {key: value for key, value in os.environ.items() if not key.startswith(("BROKER_", "HIROBA_"))}
    (directory / ".env").write_text("".join(f"BROKER_{user}_PASSWORD=geheim-{user}\n" for user in USERS))
    argv += ["--secrets", str(directory / (".env" if secrets else "none"))]
    return Process("stack", [*argv, *map(str, flags)], directory / "stack.log", env=env)


USERS = ("GATEWAY", "OPERATOR", "EXPORTER")


async def asked(http: aiohttp.ClientSession, port: int, path: str) -> Any:
    async with http.get(f"http://127.0.0.1:{port}{path}") as answer:
        return await answer.json()


async def is_up(running: Process) -> None:
    await until(lambda: "Up in" in running.tail() or not running.running, "the stack is up", within_s=120)


def grandchildren(process: Process) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_the_stack_comes_up_is_scraped_and_goes_down(tmp_path: Path) -> None:
    first = free_ports(9 + 2 * NODES)
    running = stack(tmp_path, "--ports", first)
    running.spawn()
    await is_up(running)
    said = running.tail()
    for name in ("broker", "node0", "node1", "haproxy", "redis-exporter", "alertmanager", "prometheus"):
        assert f"\n{name} " in said
    assert stat.S_IMODE((tmp_path / "stack").stat().st_mode) == 0o700, "its logs name rooms and addresses"
    parts = grandchildren(running)
    async with aiohttp.ClientSession() as http:
        async with (
            http.ws_connect(f"ws://127.0.0.1:{first}/ws/chat/a/") as one,
            http.ws_connect(f"ws://127.0.0.1:{first}/ws/chat/a/") as two,
        ):
            await one.send_json({"message": "through all of it"})
            assert await two.receive_json(timeout=20) == {"message": "through all of it"}

        async def all_scraped() -> bool:
            targets = (await asked(http, first + 4, "/api/v1/targets"))["data"]["activeTargets"]
            healthy = sorted(t["labels"]["job"] for t in targets if t["health"] == "up")
            return healthy == ["alertmanager", "broker", "gateway", "gateway", "haproxy", "prometheus"]

        await until(all_scraped, "every target is scraped", within_s=60, every_s=0.2)
        for query, value in (("redis_up", "1"), ('redis_key_size{key="hiroba:nodes"}', str(NODES))):
            result = (await asked(http, first + 4, f"/api/v1/query?query={query}"))["data"]["result"]
            assert [sample["value"][1] for sample in result] == [value], query
        alertmanagers = (await asked(http, first + 4, "/api/v1/alertmanagers"))["data"]["activeAlertmanagers"]
        assert len(alertmanagers) == 1
        await consoles_work(http, said, {"REDISCLI_AUTH": "geheim-OPERATOR"})
        await a_load_test_is_a_target_while_it_runs(http, first)

    # No secret where other users of the machine, or readers of logs, see it.
    texts = [" ".join(part.cmdline()) for part in parts]
    texts += [log.read_text() for log in (tmp_path / "stack" / "logs").iterdir()]
    assert not any("geheim" in text for text in (*texts, said))

    running.signal(signal.SIGINT)
    assert await running.ended(60) == 0
    assert [part for part in parts if part.is_running() and part.status() != psutil.STATUS_ZOMBIE] == []


async def consoles_work(http: aiohttp.ClientSession, said: str, secrets: dict[str, str]) -> None:
    """Each line that `make stack` prints for a person to open or to type."""
    opened, typed = 0, 0
    for line in said.partition("\n\n")[2].partition("\n\n")[0].splitlines():
        where = re.split(r"\s{2,}", line, maxsplit=1)[1]
        if where.startswith("http"):
            async with http.get(where) as page:
                assert page.status == 200 and "<html" in (await page.text()).lower(), where
            opened += 1
            continue
        command = where.replace("REDISCLI_AUTH=… ", "")
        command += " PING" if "redis-cli" in command else ""
        await until(lambda command=command: typed_right(command, secrets), f"{command} answers", 120, every_s=0.5)  # type: ignore[misc]
        typed += 1
    assert (opened, typed) == (3, 3)


async def typed_right(command: str, secrets: dict[str, str]) -> bool:
    """Prometheus works alarms out every 10 s, and tells one again after a minute to whom it did not reach at first."""
    typing = await asyncio.create_subprocess_shell(
        command, env=os.environ | secrets, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    answer, _ = await asyncio.wait_for(typing.communicate(), 30)
    assert typing.returncode == 0, answer
    return bool(re.search(rb"HirobaWatchdog|PONG|node0", answer))


async def a_load_test_is_a_target_while_it_runs(http: aiohttp.ClientSession, first: int) -> None:
    async def known() -> bool:
        targets = (await asked(http, first + 4, "/api/v1/targets"))["data"]["activeTargets"]
        return "loadtest" in {target["labels"]["job"] for target in targets}

    assert not await known()
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", first + 6)
    async with server:
        await until(known, "a load test is scraped", within_s=60, every_s=0.2)

    async def forgotten() -> bool:
        return not await known()

    await until(forgotten, "its target is gone with it", within_s=60, every_s=0.2)


@pytest.mark.timeout(300)
async def test_the_stack_speaks_tls_with_a_certificate_and_watches_its_end(tmp_path: Path) -> None:
    """`make stack CERT=…`: its own end is watched without being named, others' by CERTIFICATES=…."""
    first, pem = free_ports(9 + 2 * NODES), tmp_path / "chat.pem"
    certs = make_certs(tmp_path / "certs", days=3)
    pem.write_bytes(certs.cert.read_bytes() + certs.key.read_bytes())
    # Where nobody listens: named, and so told.
    running = stack(tmp_path, "--ports", first, "--cert", pem, "--watch", "rediss://gateway:geheim@127.0.0.1:1/0")
    running.spawn()
    await is_up(running)
    assert f"https://127.0.0.1:{first + 7}/chat/" in running.tail()
    trust = ssl.create_default_context(cafile=str(certs.ca))
    async with aiohttp.ClientSession() as http:
        async with http.get(f"http://127.0.0.1:{first}/chat/", ssl=trust) as page:
            assert page.status == 200 and str(page.url) == f"https://127.0.0.1:{first + 7}/chat/"

        async def watched() -> dict[str, str]:
            targets = (await asked(http, first + 4, "/api/v1/targets"))["data"]["activeTargets"]
            return {t["labels"]["instance"]: t["scrapeUrl"] for t in targets if t["labels"]["job"] == "certificates"}

        asked_at = await until(watched, "Prometheus looks at certificates", within_s=60, every_s=0.2)
        assert asked_at.keys() == {f"https://127.0.0.1:{first + 7}", "rediss://127.0.0.1:1"}
        # What Prometheus will hear within a minute.
        for instance, seen in ((f"https://127.0.0.1:{first + 7}", 1), ("rediss://127.0.0.1:1", 0)):
            async with http.get(asked_at[instance]) as probe:
                said = await probe.text()
            assert f"\nprobe_success {seen}\n" in said
            assert ("\nprobe_ssl_earliest_cert_expiry " in said) == bool(seen)
    running.signal(signal.SIGINT)
    assert await running.ended(60) == 0


async def test_what_stops_the_stack_is_said_in_a_sentence(tmp_path: Path) -> None:
    first = free_port()
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", first)
    async with server:
        taken = stack(tmp_path, "--ports", first)
        taken.spawn()
        assert await taken.ended() == 1
    assert f"stack: port {first} is taken" in taken.tail() and "Traceback" not in taken.tail()
    (other := tmp_path / "other").mkdir()
    without = stack(other, secrets=False)
    without.spawn()
    assert await without.ended() == 1
    assert "make secrets" in without.tail() and "Traceback" not in without.tail()


async def test_a_part_that_ends_at_its_start_is_quoted(tmp_path: Path) -> None:
    """Where to look is no reason: the part's own last line is."""
    running = Stack(tmp_path, Ports.in_a_row(1, free_ports(11)), {})
    (tmp_path / "logs").mkdir()
    with pytest.raises(StackError, match="broker ended at its start: the disk is full"):
        await running._start(
            [
                Part(
                    "broker",
                    address="redis://127.0.0.1:1",
                    argv=["sh", "-c", "echo reading; echo 'the disk is full'; exit 1"],
                )
            ]
        )


def test_the_stacks_broker_runs_on_a_copy_of_valkey_conf(tmp_path: Path) -> None:
    """`hiroba broker apply` rewrites the file that a server was started on; ours is every server's."""
    broker = parts.broker("valkey-server", tmp_path / "broker", dict.fromkeys(users.PASSWORDS, "x"), 6379)
    conf = tmp_path / "broker" / "valkey.conf"
    assert broker.argv[1] == str(conf)
    assert (
        stat.S_IMODE(conf.stat().st_mode) == stat.S_IMODE((tmp_path / "broker" / "users.acl").stat().st_mode) == 0o600
    )
