"""`hiroba broker`: a server made so, compared, kept over restarts; passwords made and never shown."""

import asyncio
import contextlib
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis

from broker_config import SCRIPTS, users
from tests.conftest import BrokerFactory
from tests.support.broker import PASSWORDS, Broker, Kind
from tests.support.ports import free_port
from tests.support.until import until

VARIABLES = {users.PASSWORDS[user]: password for user, password in PASSWORDS.items()}


def hiroba_broker(
    *argv: object, module: tuple[str, ...] = ("broker_config",), **environ: str
) -> subprocess.CompletedProcess[str]:
    known = {key: value for key, value in os.environ.items() if not key.startswith(("HIROBA_", "BROKER_"))}
    done = subprocess.run(
        [sys.executable, "-m", *module, *map(str, argv)],
        env=known | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "geheim" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


async def bare(start_broker: BrokerFactory, kind: Kind) -> Broker:
    """As a package installs it: no persistence to speak of, no users, everything open."""
    return await start_broker(kind=kind, acl=False)


@pytest.mark.parametrize("kind", ["redis", "valkey"])
async def test_apply_makes_any_server_so_and_it_stays_so(start_broker: BrokerFactory, kind: Kind) -> None:
    broker = await bare(start_broker, kind)
    before = hiroba_broker("check", broker.url)
    assert before.returncode == 3
    for said in ("appendonly is 'no', not 'yes'", "user default is somebody", "user gateway is missing", "publish.lua"):
        assert said in before.stdout
    applied = hiroba_broker("apply", broker.url, **VARIABLES)
    assert (applied.returncode, applied.stderr) == (0, "")
    assert "mended: user gateway is missing" in applied.stdout

    operator = broker.url.replace("redis://", "redis://operator@")
    checked = hiroba_broker("check", operator, **VARIABLES)
    assert (checked.returncode, checked.stderr) == (0, "") and "is as hiroba wants it" in checked.stdout
    stranger = hiroba_broker("check", broker.url, **VARIABLES)
    assert stranger.returncode == 1 and "refused user default" in stranger.stderr

    await broker.stop()
    broker.process.spawn()
    await until(lambda: "Ready to accept" in broker.process.tail(5), "the broker serves again")
    checked = hiroba_broker("check", operator, **VARIABLES)
    # Scripts live in memory, and nodes load them by themselves: a timer that runs `check` must wake nobody for it.
    *notes, verdict = checked.stdout.splitlines()
    assert checked.returncode == 0 and "is as hiroba wants it" in verdict
    assert notes == [f"note: script {name}.lua is not loaded; a node does it when it needs it" for name in SCRIPTS]


# What somebody did by hand, and the words in which `check` tells it.
DRIFTS = [
    (
        ["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"],
        "maxmemory-policy is 'allkeys-lru', not 'noeviction': the log",
    ),
    (["CONFIG", "SET", "appendfsync", "everysec"], "appendfsync is 'everysec', not 'always': kill -9 may lose"),
    (["CONFIG", "SET", "appendonly", "no"], "appendonly is 'no', not 'yes'"),
    (["CONFIG", "SET", "maxmemory", "0"], "maxmemory is 0"),
    (["CONFIG", "SET", "latency-monitor-threshold", "0"], "latency-monitor-threshold is '0', not '10'"),
    (["CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 1mb 1"], "client-output-buffer-limit is "),
    (["ACL", "SETUSER", "gateway", "-evalsha"], "user gateway lacks +evalsha"),
    (["ACL", "SETUSER", "gateway", "+flushall", "~*"], "user gateway has, and should not, +flushall"),
    (["ACL", "SETUSER", "gateway", "resetpass", ">other"], "user gateway has another password than ours"),
    (["ACL", "SETUSER", "default", "-@all", "off"], "user default is off, but lacks rights"),
    (["ACL", "DELUSER", "exporter"], "user exporter is missing"),
    (["SCRIPT", "FLUSH"], "script publish.lua is not loaded"),
]


@pytest.mark.parametrize("kind", ["redis", "valkey"])
async def test_check_names_every_drift_and_apply_mends_it(start_broker: BrokerFactory, kind: Kind) -> None:
    broker = await start_broker(kind=kind)
    assert hiroba_broker("apply", broker.operator_url, **VARIABLES).returncode == 0
    async with broker.client() as client:
        for command, _ in DRIFTS:
            await client.execute_command(*command)
    found = hiroba_broker("check", broker.operator_url, **VARIABLES)
    assert found.returncode == 3
    for _, said in DRIFTS:
        assert said in found.stdout, said
    assert hiroba_broker("apply", broker.operator_url, **VARIABLES).returncode == 0
    mended = hiroba_broker("check", broker.operator_url, **VARIABLES)
    assert (mended.returncode, mended.stdout.count("drift")) == (0, 0)


async def test_what_apply_cannot_mend_is_left_to_people(start_broker: BrokerFactory) -> None:
    """An old server, and a disk that takes no rewrite."""
    broker = await start_broker(kind="redis")
    assert hiroba_broker("apply", broker.operator_url, **VARIABLES).returncode == 0
    async with broker.client() as client, older(broker.port) as port:
        shutil.rmtree(broker.directory)

        async def failed() -> bool:
            info = await client.info("persistence")
            if not info["aof_rewrite_in_progress"]:
                with contextlib.suppress(redis.ResponseError):  # it may fail at once, too
                    await client.bgrewriteaof()
            return info["aof_last_bgrewrite_status"] == "err"

        await until(failed, "the rewrite has failed")
        url = broker.operator_url.replace(str(broker.port), str(port))
        found = await asyncio.to_thread(hiroba_broker, "check", url, **VARIABLES)
        applied = await asyncio.to_thread(hiroba_broker, "apply", url, **VARIABLES)
    assert found.returncode == applied.returncode == 3
    for said in ("Redis 6.0.", "is too old: sharded pub/sub came with Redis 7.0", "aof_last_bgrewrite_status is 'err'"):
        assert said in found.stdout and said in applied.stdout
    assert "not all by `apply`" in found.stdout


@contextlib.asynccontextmanager
async def older(port: int) -> AsyncIterator[int]:
    """The port of a proxy through which this Redis 7.0 says that it is a 6.0."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)

        async def carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(1 << 20):
                sink.write(data.replace(b"redis_version:7.0", b"redis_version:6.0"))
            sink.close()

        await asyncio.gather(carry(reader, up_writer), carry(up_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("kind", ["redis", "valkey"])
async def test_what_a_server_refuses_to_tell_is_named_and_the_rest_compared(
    start_broker: BrokerFactory, kind: Kind
) -> None:
    """Managed services take CONFIG or ACL away; it read "no broker at …". As it did to a user who may not ask."""
    broker = await start_broker(kind=kind, directives=('rename-command CONFIG ""', 'rename-command ACL ""'))
    found = hiroba_broker("check", broker.operator_url, **VARIABLES)
    assert (found.returncode, found.stderr) == (1, "")
    for said in (
        "unknown: its settings could not be compared: ",
        "unknown: its users could not be compared: ",
        "note: script publish.lua is not loaded",
    ):
        assert said in found.stdout
    applied = hiroba_broker("apply", broker.operator_url, **VARIABLES)
    assert (applied.returncode, applied.stderr) == (3, "")
    assert "mended: script publish.lua is not loaded" in applied.stdout
    assert "still:  user gateway was refused: " in applied.stdout
    found = hiroba_broker("check", broker.operator_url, **VARIABLES)
    assert (found.returncode, "drift: " in found.stdout) == (1, False)
    assert "is as hiroba wants it, as far as it tells" in found.stdout
    as_gateway = hiroba_broker("check", broker.url, **VARIABLES)
    assert as_gateway.returncode == 1 and "name the operator, redis://operator@" in as_gateway.stdout


@pytest.mark.parametrize("kind", ["redis", "valkey"])
async def test_a_server_where_nobody_makes_users_shuts_nobody_out(start_broker: BrokerFactory, kind: Kind) -> None:
    """Whoever came as somebody of the service's goes on as that."""
    broker = await start_broker(kind=kind, acl=False, directives=('rename-command ACL ""',))
    applied = hiroba_broker("apply", broker.url, **VARIABLES)
    assert (applied.returncode, applied.stderr) == (3, "")
    assert "mended: appendonly is 'no'" in applied.stdout and "still:  user operator was refused: " in applied.stdout
    async with broker.client() as client:
        assert await client.ping()


async def test_a_server_in_cluster_mode_is_told(start_broker: BrokerFactory) -> None:
    broker = await start_broker(kind="valkey", directives=("cluster-enabled yes", f"cluster-port {free_port()}"))
    found = hiroba_broker("check", broker.operator_url, **VARIABLES)
    assert found.returncode == 3 and "drift: it runs in cluster mode" in found.stdout


async def test_users_of_several_installations_are_allowed_the_keys_of_each(start_broker: BrokerFactory) -> None:
    """Two that share a server share its users: applied for one alone, the other could not go on."""
    broker = await start_broker(kind="redis")
    both = ("--key-prefix", "hiroba", "--key-prefix", "chat:b")
    assert hiroba_broker("apply", broker.operator_url, *both, **VARIABLES).returncode == 0
    assert hiroba_broker("check", broker.operator_url, *both, **VARIABLES).returncode == 0
    alone = hiroba_broker("check", broker.operator_url, **VARIABLES)
    assert "user gateway has, and should not, &chat:b:* ~chat:b:*" in alone.stdout
    assert "user exporter has, and should not, %R~chat:b:nodes" in alone.stdout
    async with broker.client() as client:
        may = [await client.acl_dryrun("gateway", "GET", key) for key in ("hiroba:x", "chat:b:x", "chat:x")]
    assert may[:2] == [b"OK", b"OK"] and b"no permissions" in may[2].lower()
    wrong = hiroba_broker("check", broker.operator_url, "--key-prefix", "a*", **VARIABLES)
    assert wrong.returncode == 2 and "'a*' is no prefix of keys" in wrong.stderr


async def test_appendfsync_no_is_no_drift(start_broker: BrokerFactory) -> None:
    """The decision record names it as the way out on slow disks."""
    broker = await start_broker(kind="valkey")
    assert hiroba_broker("apply", broker.operator_url, **VARIABLES).returncode == 0
    async with broker.client() as client:
        await client.config_set("appendfsync", "no")
    assert hiroba_broker("check", broker.operator_url, **VARIABLES).returncode == 0


async def test_what_cannot_be_reached_or_may_not_be_asked_gets_a_sentence(broker: Broker, tmp_path: Path) -> None:
    for url, code, said in (
        ("redis://127.0.0.1:1", 1, "no broker at 127.0.0.1:1: "),
        (broker.operator_url.replace("geheim-operator", "geheim-falsch"), 1, "refused user operator: invalid"),
        ("http://operator:geheim@127.0.0.1", 2, "URL must begin with redis://"),
        ("redis://operator:geheim@127.0.0.1:port", 2, "URL is not a URL"),
        ("redis://operator@127.0.0.1?family=0", 2, "URL says family, which is no option of redis://"),
        ("redis://operator@127.0.0.1?tls=true", 2, "URL says tls, which belongs to rediss://"),
        ("redis://operator@127.0.0.1?ssl_cert_reqs=none", 2, "URL says ssl_cert_reqs, which belongs to rediss://"),
        ("rediss://operator@127.0.0.1?ssl_ca_certs=/none.pem", 1, "no broker at 127.0.0.1: "),
        ("redis+sentinel://operator:geheim@127.0.0.1/chat", 2, "name each in turn, the master and its replicas"),
    ):
        done = hiroba_broker("check", url, **VARIABLES)
        assert (done.returncode, done.stdout) == (code, ""), url
        assert said in done.stderr and done.stderr.count("\n") == 1
    done = hiroba_broker("apply", broker.operator_url, "--secrets", tmp_path / "none")
    assert done.returncode == 1 and "make secrets" in done.stderr
    done = hiroba_broker("check", broker.operator_url, broker.operator_url, module=("gateway", "broker"))
    assert done.returncode == 2 and done.stderr.count("\n") == 1


def test_secrets_are_made_once_and_are_their_owners_alone(tmp_path: Path) -> None:
    file, acl = tmp_path / ".env", tmp_path / "secrets" / "users.acl"
    file.write_text("OTHER=kept\nBROKER_OPERATOR_PASSWORD='chosen by hand'\n")
    file.chmod(0o600)
    assert hiroba_broker("secrets", "--file", file, "--acl", acl).returncode == 0
    first = file.read_text()
    known = users.passwords(file)
    assert first.startswith("OTHER=kept\n") and known["operator"] == "chosen by hand"
    assert known["gateway"] != known["exporter"] and min(map(len, known.values())) >= 14
    assert hiroba_broker("secrets", "--file", file, "--acl", acl).returncode == 0
    assert file.read_text() == first
    assert not any(password in acl.read_text() for password in known.values())

    fresh = tmp_path / "fresh.env"
    assert hiroba_broker("secrets", "--file", fresh, "--acl", acl).returncode == 0
    assert stat.S_IMODE(fresh.stat().st_mode) == 0o600
    assert set(users.passwords(fresh).values()).isdisjoint(known.values())


def test_a_container_can_read_the_users_whatever_the_umask(tmp_path: Path) -> None:
    """Compose mounts the file for uid 999, which is not whoever ran `make secrets`."""
    file, acl = tmp_path / ".env", tmp_path / "secrets" / "users.acl"
    before = os.umask(0o077)
    try:
        assert hiroba_broker("secrets", "--file", file, "--acl", acl).returncode == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(acl.stat().st_mode) == 0o644
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("kind", ["redis", "valkey"])
async def test_who_comes_by_a_socket_s_file_is_not_shut_out(start_broker: BrokerFactory, kind: Kind) -> None:
    """An embedded broker's nodes have no password: after `apply` the next lost connection was their last."""
    broker = await start_broker(kind=kind, acl=False, unix=True)
    applied = hiroba_broker("apply", broker.url, **VARIABLES)
    assert (applied.returncode, applied.stderr) == (0, ""), applied.stdout
    assert "mended: appendonly is 'no'" in applied.stdout and "users are for servers" in applied.stdout
    async with broker.client() as anybody:
        assert await anybody.acl_users() == ["default"]
    checked = hiroba_broker("check", broker.url, **VARIABLES)
    assert checked.returncode == 0 and "user" not in checked.stdout, checked.stdout
