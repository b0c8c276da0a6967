"""Compose, Kubernetes, the stack, the Dockerfile and the code say the same: each number and name has one source.

The source is on the left of each comparison: `Settings` for what nodes do, haproxy.cfg and valkey.conf for theirs.
"""

import inspect
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker_config import users
from deploy.stack import parts
from deploy.stack.run import Ports
from gateway.node import CONNECTIONS_MAX, DESCRIPTORS_SPARE
from gateway.process.drain import HURRY_S
from gateway.settings.model import Settings, SettingsError
from loadtest import cli as loadtest
from tests.deploy import sources
from tests.deploy.compose import FILE, OVERLAY, ROOT, SECRETS, Service, services
from tests.deploy.sources import (
    GRAFANA,
    HAPROXY,
    NODES_DNS,
    PROMETHEUS,
    VALKEY,
    Containers,
    bytes_of,
    containers,
    directive,
    environment,
    everyones_environment,
    preset,
    resources,
)

VERSIONS = (ROOT / "docs/versions.md").read_text("utf-8")
SETTINGS = Settings()


@pytest.fixture(scope="module")
def compose() -> dict[str, Service]:
    return services()


@pytest.fixture(scope="module")
def k8s() -> Containers:
    return containers()


# ---- ports ----


def test_ports(compose: dict[str, Service], k8s: Containers) -> None:
    ports = Ports.usual(1)
    assert SETTINGS.port == ports.public == int(preset("LB_BIND").strip(":"))
    assert f"127.0.0.1:{ports.haproxy}" == preset("LB_OPS_BIND")
    for env in (environment(k8s["haproxy"]), compose["haproxy"].environment):
        assert env["LB_OPS_BIND"] == f":{ports.haproxy}"
    assert ports.broker == int(directive("port"))
    node = [SETTINGS.port, SETTINGS.ops_port]
    assert node == [int(port) for port in compose["gateway"].raw["expose"]]
    assert node == [port["containerPort"] for port in k8s["gateway"]["ports"]]
    assert f"EXPOSE {SETTINGS.port} {SETTINGS.ops_port}" in sources.dockerfile()
    assert re.findall(r":(\d+)\" resolvers", NODES_DNS) == [str(SETTINGS.port)]
    assert re.findall(r"default-server check port (\d+)", HAPROXY) == [str(SETTINGS.ops_port)]
    start = (ROOT / "deploy/docker/prometheus-start.sh").read_text("utf-8")
    assert re.findall(r"by_dns \w+ \S+ (\d+)", start) == [str(SETTINGS.ops_port), str(ports.loadtest)]
    health = (ROOT / "deploy/docker/gateway-health.sh").read_text("utf-8")
    assert re.findall(r"HIROBA_OPS_PORT:-(\d+)", health) == [str(SETTINGS.ops_port)]
    assert [ports.public, ports.haproxy] == [port["containerPort"] for port in k8s["haproxy"]["ports"]]
    assert [ports.public, ports.haproxy] == [port.target for port in compose["haproxy"].ports]
    assert [ports.broker] == [port["containerPort"] for port in k8s["broker"]["ports"]]
    assert [ports.exporter] == [port["containerPort"] for port in k8s["exporter"]["ports"]]


def test_metric_ports(compose: dict[str, Service]) -> None:
    """What Prometheus asks in Compose is what the stack asks, by other names."""
    ports = Ports.usual(1)
    wanted = {
        "haproxy": ports.haproxy, "broker": ports.exporter,
        "prometheus": ports.prometheus, "alertmanager": ports.alertmanager,
    }  # fmt: skip
    files = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "deploy/compose/targets").glob("*.yml")}
    assert {job: int(targets[0]["targets"][0].rpartition(":")[2]) for job, targets in files.items()} == wanted
    # The first two are found by DNS; and nobody's certificates, until somebody names addresses.
    jobs = {job["job_name"] for job in PROMETHEUS["scrape_configs"]}
    assert files.keys() | {"gateway", "loadtest", "certificates"} == jobs
    arguments = loadtest._parser().parse_args(compose["loadtest"].argv)
    assert arguments.prometheus_port == ports.loadtest
    for service, port in (("prometheus", ports.prometheus), ("alertmanager", ports.alertmanager)):
        assert [port] == [each.target for each in compose[service].ports]


# ---- settings, users, scripts ----


def test_every_setting_that_is_set_exists(compose: dict[str, Service], k8s: Containers) -> None:
    found = [pair for pair in everyones_environment(compose, k8s) if pair[0].startswith("HIROBA_")]
    mine = [(key, value) for key, value in found if key != "HIROBA_PROMETHEUS_URL"]
    assert len(mine) >= 9
    for key, value in mine:
        name = key.removeprefix("HIROBA_").lower()
        assert name in Settings.model_fields, key
        if value:
            Settings(**{name: value})
    with pytest.raises((SettingsError, ValueError)):
        Settings(trusted_proxies="10.0.0.0/80")


def test_every_variable_of_the_balancer_exists(compose: dict[str, Service], k8s: Containers, tmp_path: Path) -> None:
    known = set(re.findall(r"presetenv (LB_\w+)", HAPROXY + NODES_DNS)) | {"LB_CERT"}
    used = {key for key, _ in everyones_environment(compose, k8s) if key.startswith("LB_")}
    stack = parts.haproxy(tmp_path, [], 1, 2).env
    assert used | stack.keys() <= known and {"LB_NODES", "LB_OPS_BIND"} <= used


def test_the_load_test_takes_its_options(compose: dict[str, Service]) -> None:
    arguments = loadtest._parser().parse_args(compose["loadtest"].argv)
    assert arguments.users == 400 and arguments.processes == 2
    mount = {mount.target for mount in compose["loadtest"].mounts}
    assert {str(Path(arguments.html).parent), str(Path(arguments.json).parent)} == mount


def test_users_of_the_broker(compose: dict[str, Service], k8s: Containers) -> None:
    text = (ROOT / "docker-compose.yml").read_text("utf-8")
    assert set(re.findall(r"\{(BROKER_\w+_PASSWORD)", text)) <= set(users.PASSWORDS.values())
    secrets = (ROOT / "deploy/k8s/secrets.sh").read_text("utf-8")
    assert set(re.findall(r"\$(BROKER_\w+)", secrets)) <= set(users.PASSWORDS.values())
    urls = re.findall(r"redis://(\w+):[%\\]", text + secrets)
    assert urls == ["gateway", "gateway"] and "gateway" in users.PASSWORDS
    exporter = parts.redis_exporter(6379, "x", 9121).env
    for env in (compose["redis-exporter"].environment, environment(k8s["exporter"])):
        assert env["REDIS_USER"] == exporter["REDIS_USER"] and env["REDIS_USER"] in users.PASSWORDS
        assert env["REDIS_EXPORTER_CHECK_SINGLE_KEYS"] == exporter["REDIS_EXPORTER_CHECK_SINGLE_KEYS"]
    health = (ROOT / "deploy/docker/broker-health.sh").read_text("utf-8")
    assert users.PASSWORDS["exporter"] in health and "--user exporter" in health
    assert users.PASSWORDS["exporter"] in compose["broker"].environment
    assert users.PASSWORDS["exporter"] in environment(k8s["broker"])


def test_users_of_the_machine(compose: dict[str, Service], k8s: Containers) -> None:
    (image,) = [line for line in sources.dockerfile() if line.startswith("USER")]
    assert image == f"USER {compose['gateway'].raw['user']}" == f"USER {compose['loadtest'].raw['user']}"
    for name in ("gateway", "haproxy", "broker"):
        context = k8s[name]["pod"]["securityContext"]
        assert f"{context['runAsUser']}:{context['runAsGroup']}" == compose[name].raw["user"], name


def test_the_broker_starts_alike(compose: dict[str, Service], k8s: Containers) -> None:
    """The same script on the same valkey.conf and users.acl at the same place; and the same health check."""
    theirs, ours = k8s["broker"]["command"], compose["broker"].argv
    assert [Path(word).name for word in theirs] == [Path(word).name for word in ours]
    check = compose["broker"].raw["healthcheck"]["test"][-1]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert Path(k8s["broker"][probe]["exec"]["command"][-1]).name == Path(check).name
    maps = {each["metadata"]["name"].rpartition("-")[0]: each["data"] for each in resources("broker", "ConfigMap")}
    assert maps["hiroba-broker-config"]["valkey.conf"] == VALKEY
    for name, text in maps["hiroba-broker-scripts"].items():
        assert text == (ROOT / "deploy/docker" / name).read_text("utf-8")
    start = (ROOT / "deploy/docker/broker-start.sh").read_text("utf-8")
    paths = set(re.findall(r":-(/etc/\S+|/data)\}", start))
    given = {path if path != "/etc/hiroba/users.acl" else "/etc/hiroba/secrets" for path in paths}
    assert given <= {mount.target for mount in compose["broker"].mounts}
    assert {mount["mountPath"] for mount in k8s["broker"]["volumeMounts"]} == {
        str(Path(path).parent if path != "/data" else path) for path in paths
    }


def test_the_balancer_reads_the_same_files(compose: dict[str, Service], k8s: Containers) -> None:
    assert compose["haproxy"].argv == k8s["haproxy"]["command"]
    (data,) = [each["data"] for each in resources("base", "ConfigMap") if "haproxy" in each["metadata"]["name"]]
    start = (ROOT / "deploy/haproxy/haproxy-start.sh").read_text("utf-8")
    assert data == {"haproxy.cfg": HAPROXY, "nodes-dns.cfg": NODES_DNS, "haproxy-start.sh": start}
    assert f"LB_CONNECTIONS_MAX:-{preset('LB_CONNECTIONS_MAX')}" in start
    headless = environment(k8s["haproxy"])["LB_NODES"].partition(".")[0]
    (service,) = [each for each in resources("base", "Service") if each["metadata"]["name"] == headless]
    assert service["spec"]["clusterIP"] == "None" and service["spec"]["publishNotReadyAddresses"] is True


def test_grafana_finds_everything(compose: dict[str, Service]) -> None:
    (provider,) = (GRAFANA / "provisioning" / "dashboards").glob("*.yml")
    (wanted,) = yaml.safe_load(provider.read_text("utf-8"))["providers"]
    mounts = {mount.target: mount.source for mount in compose["grafana"].mounts}
    assert (ROOT / mounts[wanted["options"]["path"]]).resolve() == GRAFANA / "dashboards"
    assert (ROOT / mounts["/etc/grafana/provisioning"]).resolve() == GRAFANA / "provisioning"
    variables = set(
        re.findall(
            r"^ +[\w]+: \$(\w+)",
            "".join(path.read_text() for path in (GRAFANA / "provisioning").rglob("*.yml")),
            re.MULTILINE,
        )
    )
    assert variables and variables <= compose["grafana"].environment.keys()
    home = compose["grafana"].environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home is not None and (GRAFANA / "dashboards" / Path(home).name).is_file()
    maps = [each["data"] for each in resources("monitoring", "ConfigMap")]
    assert sorted(name for data in maps for name in data) == sorted(p.name for p in (GRAFANA / "dashboards").iterdir())


# ---- how long things take ----


def drain_s() -> float:
    """From SIGTERM to the end of a node, at most: gateway/process/drain.py's steps."""
    s = SETTINGS
    return s.lb_wait_s + s.drain_s + s.close_s + HURRY_S + s.publish_timeout_s


def deregistered_s() -> float:
    """Until HAProxy has seen that a node is not ready: haproxy.cfg's inter × fall, and one check's timeout."""
    ((inter, fall),) = re.findall(r"inter (\d+)s fall (\d+)", HAPROXY)
    (timeout,) = re.findall(r"timeout check (\d+)s", HAPROXY)
    return float(int(inter) * int(fall) + int(timeout))


def sleep_s(container: dict[str, Any]) -> int:
    command, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    return int(seconds)


def test_a_node_has_time_to_drain(compose: dict[str, Service], k8s: Containers) -> None:
    assert SETTINGS.lb_wait_s > deregistered_s()
    assert compose["gateway"].seconds("stop_grace_period") > drain_s() > deregistered_s()
    grace = k8s["gateway"]["pod"]["terminationGracePeriodSeconds"]
    assert grace > sleep_s(k8s["gateway"]) + drain_s() > SETTINGS.drain_s > deregistered_s()


def test_the_balancer_outlives_the_nodes_behind_it(compose: dict[str, Service], k8s: Containers) -> None:
    """Else clients would be cut before their node told them where to go."""
    balancer = compose["haproxy"]
    assert balancer.seconds("stop_grace_period") > compose["gateway"].seconds("stop_grace_period")
    assert balancer.raw["stop_signal"] == "SIGUSR1" and "depends_on" not in balancer.raw
    grace = k8s["haproxy"]["pod"]["terminationGracePeriodSeconds"]
    assert grace > sleep_s(k8s["haproxy"]) + drain_s()


def test_the_broker_has_time_to_write(compose: dict[str, Service], k8s: Containers) -> None:
    wanted = int(directive("shutdown-timeout"))
    assert compose["broker"].seconds("stop_grace_period") > wanted
    assert k8s["broker"]["pod"]["terminationGracePeriodSeconds"] > wanted


# ---- how much things take ----


def test_there_is_memory_for_what_is_configured(compose: dict[str, Service], k8s: Containers) -> None:
    rooms = bytes_of(directive("maxmemory"))
    for limit in (compose["broker"].raw["mem_limit"], k8s["broker"]["resources"]["limits"]["memory"]):
        assert rooms <= 0.6 * bytes_of(limit)
    (idle_kb,) = re.findall(r"idle, some (\d+) KB", HAPROXY)
    # Two buffers of tune.bufsize (16 KB) when something is on its way.
    balancer = int(preset("LB_CONNECTIONS_MAX")) * (int(idle_kb) + 2 * 16) * 1000
    assert balancer < bytes_of(k8s["haproxy"]["resources"]["limits"]["memory"])
    node = CONNECTIONS_MAX * 16_000 + SETTINGS.tail_bytes_max + SETTINGS.publish_queue_bytes_max
    assert node < 0.75 * bytes_of(k8s["gateway"]["resources"]["limits"]["memory"])


def test_there_are_descriptors_for_what_is_configured(compose: dict[str, Service]) -> None:
    assert compose["gateway"].raw["ulimits"]["nofile"] >= CONNECTIONS_MAX + DESCRIPTORS_SPARE
    assert compose["haproxy"].raw["ulimits"]["nofile"] >= 2 * int(preset("LB_CONNECTIONS_MAX")) + 200
    assert compose["broker"].raw["ulimits"]["nofile"] >= int(directive("maxclients")) + 32


def test_the_balancer_has_a_place_for_every_node(k8s: Containers) -> None:
    (autoscaler,) = resources("base", "HorizontalPodAutoscaler")
    surge = k8s["gateway"]["spec"]["strategy"]["rollingUpdate"]["maxSurge"]
    assert autoscaler["spec"]["maxReplicas"] + surge <= int(preset("LB_NODES_MAX"))
    assert autoscaler["spec"]["minReplicas"] >= 2


# ---- versions ----


def test_images(compose: dict[str, Service], k8s: Containers) -> None:
    for ours, theirs in (
        ("gateway", "gateway"),
        ("haproxy", "haproxy"),
        ("broker", "broker"),
        ("redis-exporter", "exporter"),
    ):
        assert compose[ours].raw["image"] == k8s[theirs]["image"]
    used = {service.raw["image"] for service in compose.values() if not service.raw["image"].startswith("hiroba")}
    (base,) = [line.split()[1] for line in sources.dockerfile() if line.startswith("FROM") and ":" in line]
    tls = services(variables={**SECRETS, "TLS_DIRECTORY": "/tls"}, overlay=OVERLAY.read_text("utf-8"))
    used.add(tls["blackbox-exporter"].raw["image"])
    assert used | {base, "redis:7.0"} == set(re.findall(r"^\| `([\w./-]+:[\w.-]+)`", VERSIONS, re.MULTILINE))
    assert all(re.search(r":v?\d+\.\d+", image) for image in used), "pinned by tag"


# ---- the tests above, tested ----


@pytest.mark.parametrize(
    ("old", "new", "check"),
    [
        ("stop_grace_period: 50s", "stop_grace_period: 40s", test_a_node_has_time_to_drain),
        ("stop_grace_period: 60s", "stop_grace_period: 30s", test_the_balancer_outlives_the_nodes_behind_it),
        ('expose: ["8000", "9000"]', 'expose: ["8000", "9001"]', test_ports),
        ("HIROBA_LOG_LEVEL:", "HIROBA_LOGLEVEL:", test_every_setting_that_is_set_exists),
        ("LB_NODES:", "LB_NODE:", test_every_variable_of_the_balancer_exists),
        ("REDIS_USER: exporter", "REDIS_USER: export", test_users_of_the_broker),
        ('user: "99:99"', 'user: "98:98"', test_users_of_the_machine),
        ("target: /etc/hiroba/secrets", "target: /etc/secrets", test_the_broker_starts_alike),
        ("/etc/hiroba/haproxy-start.sh", "/etc/hiroba/start.sh", test_the_balancer_reads_the_same_files),
        ("target: /etc/grafana/dashboards", "target: /var/dashboards", test_grafana_finds_everything),
        (
            "mem_limit: 2g\n    pids_limit: 64",
            "mem_limit: 1g\n    pids_limit: 64",
            test_there_is_memory_for_what_is_configured,
        ),
        ("ulimits: {nofile: 10000}", "ulimits: {nofile: 1024}", test_there_are_descriptors_for_what_is_configured),
        ("haproxy:2.6-alpine", "haproxy:3.2-alpine", test_images),
    ],
)
def test_a_compose_file_that_says_otherwise_is_refused(
    old: str, new: str, check: Callable[..., None], k8s: Containers, tmp_path: Path
) -> None:
    text = FILE.read_text("utf-8")
    assert old in text
    fixtures = {"compose": services(text.replace(old, new)), "k8s": k8s, "tmp_path": tmp_path}
    wanted = {name: fixtures[name] for name in inspect.signature(check).parameters}
    with pytest.raises((AssertionError, KeyError)):
        check(**wanted)


@pytest.mark.parametrize(
    ("old", "new", "check"),
    [
        ("terminationGracePeriodSeconds: 60", "terminationGracePeriodSeconds: 45", test_a_node_has_time_to_drain),
        ("containerPort: 9000", "containerPort: 9001", test_ports),
        ("runAsUser: 10001", "runAsUser: 1001", test_users_of_the_machine),
        ("maxReplicas: 20", "maxReplicas: 40", test_the_balancer_has_a_place_for_every_node),
        ("memory: 1Gi}", "memory: 256Mi}", test_there_is_memory_for_what_is_configured),
    ],
)
def test_a_manifest_that_says_otherwise_is_refused(
    old: str, new: str, check: Callable[..., None], compose: dict[str, Service], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for part in ("deploy", "broker_config"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__", "secrets"))
    file = tmp_path / "deploy/k8s/base/gateway.yaml"
    text = file.read_text("utf-8")
    assert old in text
    file.write_text(text.replace(old, new))
    monkeypatch.setattr(sources, "K8S", tmp_path / "deploy/k8s")
    fixtures = {"compose": compose, "k8s": containers()}
    wanted = {name: fixtures[name] for name in inspect.signature(check).parameters}
    with pytest.raises(AssertionError):
        check(**wanted)
