"""The programs of the stack: how each is started on the files that every other way to deploy uses too.

Only addresses differ. Nothing is started here; `run.py` does, and tests start single parts by themselves.
"""

import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from broker_config import home, users

DEPLOY = Path(__file__).parents[1]
HOST = "127.0.0.1"

# Program -> Debian's package, for the sentence that says what is missing.
PACKAGES = {
    "haproxy": "haproxy",
    "prometheus": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "prometheus-redis-exporter": "prometheus-redis-exporter",
    "prometheus-blackbox-exporter": "prometheus-blackbox-exporter",
    # What docs/operations.md tells people to type.
    "redis-cli": "redis-tools",
    "socat": "socat",
}


@dataclass(frozen=True)
class Part:
    """One program. `ready`: a URL that answers 200 once it serves; None: see who starts it."""

    name: str
    argv: Sequence[str]
    # Beside what was inherited. Secrets are here, never in argv, which any user of the machine can read.
    env: Mapping[str, str] = field(default_factory=dict)
    ready: str | None = None
    # What a person opens or connects to.
    address: str = ""
    # Of the files that it makes (umask(2)); None: ours.
    umask: int | None = None


@dataclass(frozen=True)
class NodeAt:
    """Where a node is: its public and its ops port, on HOST."""

    port: int
    ops_port: int


def broker(binary: str, directory: Path, passwords: Mapping[str, str], port: int) -> Part:
    """A copy of valkey.conf, users.acl, data: all in `directory`."""
    conf = home.furnish(directory)
    acl = directory / "users.acl"
    acl.write_text(users.acl_file(passwords), "utf-8")
    acl.chmod(0o600)
    argv = [binary, str(conf), "--dir", str(directory), "--port", str(port), "--aclfile", str(acl)]
    return Part("broker", argv, address=f"redis://operator@{HOST}:{port}", umask=home.UMASK)


def node(number: int, at: NodeAt, broker_port: int, passwords: Mapping[str, str]) -> Part:
    """One `hiroba node` under the gateway's user."""
    settings = {
        "BROKER_URL": f"redis://gateway:{passwords['gateway']}@{HOST}:{broker_port}/0",
        "PORT": str(at.port),
        "OPS_PORT": str(at.ops_port),
        "TRUSTED_PROXIES": HOST,
        "LOG_FORMAT": "json",
    }
    return Part(
        f"node{number}",
        [sys.executable, "-m", "gateway", "node"],
        {f"HIROBA_{name}": value for name, value in settings.items()},
        ready=f"http://{HOST}:{at.ops_port}/readyz",
        address=f"http://{HOST}:{at.port}/chat/",
    )


def haproxy(directory: Path, nodes: Sequence[NodeAt], port: int, ops_port: int, **variables: str) -> Part:
    """haproxy.cfg, and the nodes in a file of our own. `variables` as haproxy.cfg names them."""
    directory.mkdir(parents=True, exist_ok=True)
    servers = "".join(
        f"    server node{number} {HOST}:{at.port} port {at.ops_port}\n" for number, at in enumerate(nodes)
    )
    (directory / "nodes.cfg").write_text(f"backend nodes from nodes\n{servers}", "utf-8")
    env = {
        "LB_BIND": f"{HOST}:{port}",
        "LB_OPS_BIND": f"{HOST}:{ops_port}",
        "LB_SOCKET": str(balancer_socket(port)),
        "LB_CONNECTIONS_MAX": str(_connections_max()),
        # All clients of this machine have one address: a load test is not a flood.
        "LB_ADDRESS_CONNECTIONS_MAX": "1000000",
        "LB_ADDRESS_HANDSHAKES_MAX": "1000000",
    }
    config = [str(DEPLOY / "haproxy" / "haproxy.cfg"), str(directory / "nodes.cfg")]
    # A renewed certificate is taken up by a reload, and a reload wants a master.
    master = ["-W"] if "LB_CERT" in variables else []
    return Part(
        "haproxy",
        ["haproxy", *master, "-db", "-dW", "-f", config[0], "-f", config[1]],
        env | variables,
        ready=f"http://{HOST}:{ops_port}/healthz",
        address=f"http://{HOST}:{port}/chat/",
    )


def balancer_socket(port: int) -> Path:
    """Not beside its other files: a socket's path has 107 bytes at most."""
    return Path(tempfile.gettempdir(), f"hiroba-haproxy-{port}.sock")


def _connections_max() -> int:
    """haproxy.cfg's 20,000, or what the descriptor limit allows: two for each connection, some for itself."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 20_000 if hard == resource.RLIM_INFINITY else max(1, min(20_000, (hard - 200) // 2))


def redis_exporter(broker_port: int, password: str, port: int, timeout_s: float = 3.0) -> Part:
    """Under the broker's user `exporter`. It also counts the nodes that are alive: the length of hiroba:nodes.

    `timeout_s` is below the scrape's 5 s: a broker that hangs is told as one that is down, not as an exporter that is.
    """
    env = {
        "REDIS_ADDR": f"redis://{HOST}:{broker_port}",
        "REDIS_USER": "exporter",
        "REDIS_PASSWORD": password,
        "REDIS_EXPORTER_WEB_LISTEN_ADDRESS": f"{HOST}:{port}",
        "REDIS_EXPORTER_CHECK_SINGLE_KEYS": "hiroba:nodes",
        "REDIS_EXPORTER_CONNECTION_TIMEOUT": f"{timeout_s:g}s",
        # The machine's memory: what a broker without maxmemory is measured by (rules/recording.yml).
        "REDIS_EXPORTER_INCL_SYSTEM_METRICS": "true",
    }
    address = f"http://{HOST}:{port}/metrics"
    return Part("redis-exporter", ["prometheus-redis-exporter"], env, ready=address, address=address)


def blackbox(port: int) -> Part:
    """Looks at the certificates of the addresses that Prometheus names (the target `certificates`)."""
    argv = ["prometheus-blackbox-exporter", f"--config.file={DEPLOY / 'prometheus' / 'blackbox.yml'}"]
    argv += [f"--web.listen-address={HOST}:{port}", "--log.level=warn"]
    address = f"http://{HOST}:{port}"
    return Part("blackbox-exporter", argv, ready=f"{address}/-/healthy", address=address)


def prometheus(
    directory: Path, targets: Mapping[str, Sequence[int | str]], port: int, blackbox_port: int = 9115
) -> Part:
    """prometheus.yml and the rules as they are, but for the exporter that looks at certificates; `targets` by job, in
    files of our own."""
    (directory / "targets").mkdir(parents=True, exist_ok=True)
    text = (DEPLOY / "prometheus" / "prometheus.yml").read_text("utf-8")
    (directory / "prometheus.yml").write_text(text.replace(BLACKBOX, f"{HOST}:{blackbox_port}"), "utf-8")
    rules = directory / "rules"
    rules.unlink(missing_ok=True)
    rules.symlink_to(DEPLOY / "prometheus" / "rules")
    for job, addresses in targets.items():
        target(directory, job, addresses)
    argv = ["prometheus", f"--config.file={directory / 'prometheus.yml'}", f"--storage.tsdb.path={directory / 'data'}"]
    argv += [f"--web.listen-address={HOST}:{port}", "--log.level=warn"]
    address = f"http://{HOST}:{port}"
    return Part("prometheus", argv, ready=f"{address}/-/ready", address=address)


def target(directory: Path, job: str, addresses: Sequence[int | str]) -> None:
    """What Prometheus scrapes as `job` from now on (file_sd_configs): a number is a port of HOST. None, no target."""
    listed = "".join(f"    - {HOST}:{each}\n" if isinstance(each, int) else f"    - {each}\n" for each in addresses)
    file = directory / "targets" / f"{job}.yml"
    fresh = file.with_suffix(".new")
    fresh.write_text(f"- targets:\n{listed}" if listed else "[]\n", "utf-8")
    fresh.replace(file)  # in one step: half a file would be no file


def alertmanager(directory: Path, port: int, webhook: str | None = None) -> Part:
    """alertmanager.yml as it is, or with another `webhook`."""
    directory.mkdir(parents=True, exist_ok=True)
    text = (DEPLOY / "prometheus" / "alertmanager.yml").read_text("utf-8")
    (directory / "alertmanager.yml").write_text(text.replace(WEBHOOK, webhook or WEBHOOK), "utf-8")
    argv = ["prometheus-alertmanager", f"--config.file={directory / 'alertmanager.yml'}"]
    argv += [f"--storage.path={directory / 'data'}", f"--web.listen-address={HOST}:{port}"]
    # One alone: no cluster, no port for it.
    argv += ["--cluster.listen-address=", "--log.level=warn"]
    address = f"http://{HOST}:{port}"
    return Part("alertmanager", argv, ready=f"{address}/-/ready", address=address)


# In alertmanager.yml.
WEBHOOK = "http://127.0.0.1:9095/alerts"
# In prometheus.yml.
BLACKBOX = "127.0.0.1:9115"


def missing_packages() -> list[str]:
    """Debian's names of what is not on PATH. Debian keeps HAProxy in sbin, which a user's PATH may lack."""
    os.environ["PATH"] += f"{os.pathsep}/usr/sbin"
    return [package for program, package in PACKAGES.items() if shutil.which(program) is None]
