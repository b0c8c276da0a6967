"""docker-compose.yml against the Compose Specification, and what it promises an operator. No engine is here.

That it agrees with Kubernetes, the stack and the code is in test_one_source.py.
"""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
import yaml

from deploy.compose import alarms
from deploy.compose.trials import chat
from tests.conftest import BrokerFactory
from tests.deploy.compose import FILE, OVERLAY, ROOT, SECRETS, Refused, Service, services
from tests.deploy.queries import alerts
from tests.deploy.sources import bytes_of
from tests.deploy.stranger import ground, stranger
from tests.support.need import need_tool
from tests.support.node import Node

DOCKER = ROOT / "deploy" / "docker"
# The one that everybody may reach.
PUBLIC = {("haproxy", 8000)}
# Prometheus' and Alertmanager's.
UID = 65534

Named = dict[str, Service]


@pytest.fixture(scope="module")
def compose() -> Named:
    return services()


def test_it_is_a_compose_file(compose: Named) -> None:
    assert set(compose) == {
        "broker", "gateway", "haproxy", "redis-exporter", "prometheus", "alertmanager", "grafana", "loadtest"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("read_only: true\n  cap_drop", "readonly: true\n  cap_drop", "readonly"),
        ("stop_grace_period: 50s", "stop_grace_period: [50]", "stop_grace_period"),
        ("condition: service_healthy", "condition: healthy", "depends_on"),
        ("depends_on: [broker]", "depends_on: [brocker]", "undefined service"),
        ("  prometheus-data:\n  alert", "  alert", "undefined volume"),
    ],
)
def test_a_broken_copy_is_refused(old: str, new: str, said: str) -> None:
    text = FILE.read_text("utf-8")
    assert old in text
    with pytest.raises(Refused, match=said):
        services(text.replace(old, new))


@pytest.mark.parametrize("variable", ["BROKER_GATEWAY_PASSWORD", "BROKER_EXPORTER_PASSWORD"])
def test_without_its_secrets_it_says_in_one_sentence_what_to_do(variable: str) -> None:
    for value in ({}, {variable: ""}):
        with pytest.raises(Refused, match=r"^[^\n]*make secrets[^\n]*$"):
            services(variables={**{k: v for k, v in SECRETS.items() if k != variable}, **value})


def test_it_holds_no_password(compose: Named) -> None:
    found = [value for each in compose.values() for key, value in each.environment.items() if "PASSWORD" in key]
    found.append(urlsplit(compose["gateway"].environment["HIROBA_BROKER_URL"] or "").password)
    assert set(filter(None, found)) == {SECRETS[f"BROKER_{user}_PASSWORD"] for user in ("GATEWAY", "EXPORTER")}


def test_every_container_is_locked_up(compose: Named) -> None:
    for service in compose.values():
        raw = service.raw
        assert raw["read_only"] is True, service.name
        assert raw["cap_drop"] == ["ALL"] and "cap_add" not in raw and "privileged" not in raw, service.name
        assert "no-new-privileges:true" in raw["security_opt"], service.name
        assert service.uid > 0, service.name
        assert raw["restart"] == ("no" if service.name == "loadtest" else "unless-stopped"), service.name
        for mount in service.mounts:
            assert mount.read_only or mount.kind == "volume", f"{service.name} may write to {mount.source}"


def test_only_the_balancer_is_published_to_the_world(compose: Named) -> None:
    published = [(service.name, port) for service in compose.values() for port in service.ports]
    assert {(name, port.published) for name, port in published if port.host != "127.0.0.1"} == PUBLIC
    assert {port.published for _, port in published} == {8000, 8404, 9090, 9093, 3000}


def test_every_container_says_whether_it_is_well(compose: Named) -> None:
    for service in compose.values():
        check = service.raw["healthcheck"]
        if service.name == "loadtest":
            assert check == {"disable": True}
            continue
        assert check["test"][0] == "CMD" and check["retries"] >= 3, service.name
    assert "readyz" not in str(compose["gateway"].raw["healthcheck"]), "a node is not restarted for its broker's sake"


def test_every_mounted_file_is_in_the_repository(compose: Named) -> None:
    for service in compose.values():
        for mount in service.mounts:
            if mount.kind == "bind":
                assert (ROOT / mount.source).exists(), f"{service.name}: {mount.source}"


def test_a_missing_users_file_is_the_scripts_to_tell_and_no_directory_of_the_engines(compose: Named) -> None:
    """As Docker makes one of a bind mount whose source is not there. The directory is in the repository."""
    (mount,) = [each for each in compose["broker"].raw["volumes"] if "secrets" in str(each)]
    assert mount["bind"]["create_host_path"] is False
    assert compose["broker"].environment["BROKER_ACL"] == f"{mount['target']}/users.acl"
    tracked = subprocess.run(
        ["git", "ls-files", "secrets"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert tracked.split() == ["secrets/.gitignore"]


def test_every_container_has_a_bound_of_memory_and_of_processes(compose: Named) -> None:
    """One that leaks must not take the machine, and with it the broker, along."""
    for service in compose.values():
        assert bytes_of(service.raw["mem_limit"]) <= 2 << 30 and 0 < service.raw["pids_limit"] <= 256, service.name


def test_the_number_of_nodes_holds_for_every_up() -> None:
    """`--scale` holds until the next `up` without it."""
    assert services()["gateway"].raw["deploy"]["replicas"] == "2"
    assert services(variables={**SECRETS, "GATEWAY_REPLICAS": "5"})["gateway"].raw["deploy"]["replicas"] == "5"


def test_a_script_that_a_container_runs_is_mounted_there(compose: Named) -> None:
    for service in compose.values():
        scripts = [
            word for word in [*service.argv, *service.raw["healthcheck"].get("test", [])] if word.endswith(".sh")
        ]
        for script in scripts:
            if "/" not in script:  # the image's own: test_dockerfile.py
                continue
            (mount,) = [each for each in service.mounts if script.startswith(each.target + "/")]
            assert (ROOT / mount.source / Path(script).relative_to(mount.target)).is_file(), script


def test_the_broker_is_redis_by_one_variable() -> None:
    assert services()["broker"].raw["image"].startswith("valkey/valkey:")
    assert services(variables={**SECRETS, "BROKER_IMAGE": "redis:7.0"})["broker"].raw["image"] == "redis:7.0"


def test_the_nodes_are_found_by_name(compose: Named) -> None:
    """However many there are: HAProxy and Prometheus ask the DNS."""
    assert compose["haproxy"].environment["LB_NODES"] in compose
    assert "container_name" not in compose["gateway"].raw and not compose["gateway"].ports, "could not be scaled"
    prometheus = compose["prometheus"].argv
    assert prometheus[prometheus.index("/tmp/prometheus") + 1] == "gateway"


def test_every_target_of_prometheus_is_a_service_with_that_port(compose: Named) -> None:
    for path in (ROOT / "deploy" / "compose" / "targets").glob("*.yml"):
        ((target,),) = (each["targets"] for each in yaml.safe_load(path.read_text("utf-8")))
        host, _, port = target.partition(":")
        if host == "127.0.0.1":
            assert path.stem == "prometheus"
            continue
        service = compose[host]
        listening = {each.target for each in service.ports} | {int(each) for each in service.raw.get("expose", [])}
        assert int(port) in listening, f"{path.name}: {target}"


def test_a_load_test_stays_within_what_the_balancer_allows_one_address(compose: Named) -> None:
    text = (ROOT / "deploy" / "haproxy" / "haproxy.cfg").read_text("utf-8")
    limits = {name: int(value) for name, value in re.findall(r"presetenv (LB_ADDRESS_\w+) (\d+)", text)}
    argv = compose["loadtest"].argv
    users, spawn_rate = (int(argv[argv.index(flag) + 1]) for flag in ("--users", "--spawn-rate"))
    assert users <= limits["LB_ADDRESS_CONNECTIONS_MAX"] and spawn_rate * 10 <= limits["LB_ADDRESS_HANDSHAKES_MAX"]


@pytest.mark.parametrize(
    ("old", "new", "judge"),
    [
        ("REDIS_USER: exporter", "REDIS_USER: exporter\n      A_PASSWORD: geheim", test_it_holds_no_password),
        ("  read_only: true\n  cap_drop", "  read_only: false\n  cap_drop", test_every_container_is_locked_up),
        ("cap_drop: [ALL]", "cap_drop: [ALL]\n  cap_add: [NET_ADMIN]", test_every_container_is_locked_up),
        ("no-new-privileges:true", "no-new-privileges:false", test_every_container_is_locked_up),
        ('user: "472:0"', 'user: "0:0"', test_every_container_is_locked_up),
        ("restart: unless-stopped", "restart: always", test_every_container_is_locked_up),
        ("target: /etc/prometheus/rules, read_only: true", "target: /etc/prometheus/rules",
         test_every_container_is_locked_up),
        ("127.0.0.1:3000:3000", "3000:3000", test_only_the_balancer_is_published_to_the_world),
        ("127.0.0.1:8404:8404", "0.0.0.0:8404:8404", test_only_the_balancer_is_published_to_the_world),
        ('expose: ["9121"]', 'ports: ["9121:9121"]', test_only_the_balancer_is_published_to_the_world),
        ("retries: 3", "retries: 1", test_every_container_says_whether_it_is_well),
        ("source: ./deploy/docker,", "source: ./deploy/scripts,",
         test_every_mounted_file_is_in_the_repository),
        ("create_host_path: false", "create_host_path: true",
         test_a_missing_users_file_is_the_scripts_to_tell_and_no_directory_of_the_engines),
        ("mem_limit: 256m", "mem_limit: 256g", test_every_container_has_a_bound_of_memory_and_of_processes),
        ("pids_limit: 256", "pids_limit: -1", test_every_container_has_a_bound_of_memory_and_of_processes),
        ("scripts/broker-start.sh", "scripts/broker-begin.sh", test_a_script_that_a_container_runs_is_mounted_there),
        ("LB_NODES: gateway", "LB_NODES: node", test_the_nodes_are_found_by_name),
        ("  gateway:\n    <<: *careful", "  gateway:\n    <<: *careful\n    container_name: node",
         test_the_nodes_are_found_by_name),
        ('expose: ["9121"]', 'expose: ["9122"]', test_every_target_of_prometheus_is_a_service_with_that_port),
        ('--users, "400"', '--users, "4000"', test_a_load_test_stays_within_what_the_balancer_allows_one_address),
    ],
)  # fmt: skip
def test_a_file_that_promises_less_is_refused(old: str, new: str, judge: Callable[[Named], None]) -> None:
    text = FILE.read_text("utf-8")
    assert old in text
    with pytest.raises((AssertionError, KeyError, ValueError)):
        judge(services(text.replace(old, new)))


def test_where_there_is_no_engine_compose_test_says_so(tmp_path: Path) -> None:
    """And does nothing else. The second one is a client without its engine."""
    client = tmp_path / "docker"
    client.write_text("#!/bin/sh\nexit 1\n")
    for _ in range(2):
        env = {"PATH": str(tmp_path), "PYTHONPATH": str(ROOT)}
        for more, code in (({}, 0), ({"CI": "1"}, 1)):
            argv = [sys.executable, "-m", "deploy.compose"]
            done = subprocess.run(argv, env=env | more, capture_output=True, text=True, check=False)
            assert done.returncode == code and "no container engine" in done.stderr
            assert done.stderr.count("\n") == 1 and not done.stdout
        client.chmod(0o755)


async def test_what_compose_test_says_through_the_balancer_everybody_hears(
    start_broker: BrokerFactory, tmp_path: Path
) -> None:
    """Its chat against a real node, since there is no engine to try it on; and against nobody."""
    broker = await start_broker(kind="redis")
    node = await Node(broker.url, tmp_path).start()
    await chat(node.url("").rstrip("/"))
    await node.kill()
    with pytest.raises(aiohttp.ClientError):
        await chat(node.url("").rstrip("/"))


# ---- deploy/compose/tls.yml ----

TLS = {**SECRETS, "TLS_DIRECTORY": "/etc/hiroba/tls"}


@pytest.fixture(scope="module")
def tls() -> Named:
    return services(variables=TLS, overlay=OVERLAY.read_text("utf-8"))


def test_with_certificates_every_promise_still_holds(tls: Named, compose: Named) -> None:
    assert tls.keys() - compose.keys() == {"blackbox-exporter"}
    for judge in (
        test_it_holds_no_password,
        test_every_container_is_locked_up,
        test_every_container_says_whether_it_is_well,
        test_every_container_has_a_bound_of_memory_and_of_processes,
        test_the_nodes_are_found_by_name,
    ):
        judge(tls)
    published = {(service.name, port.published) for service in tls.values() for port in service.ports if not port.host}
    assert published == PUBLIC | {("haproxy", 8443)}


def test_with_certificates_the_balancer_serves_them_and_their_ends_are_watched(tls: Named) -> None:
    """By default that of the balancer itself, at the port where HAProxy has TLS."""
    (mount,) = [each for each in tls["haproxy"].mounts if each.source == TLS["TLS_DIRECTORY"]]
    assert tls["haproxy"].environment["LB_CERT"] == mount.target and mount.read_only
    assert tls["prometheus"].environment["CERTIFICATES"] == "https://haproxy:8443"
    host, _, port = str(tls["prometheus"].environment["BLACKBOX"]).partition(":")
    assert tls[host].raw["expose"] == [port]
    (config,) = tls[host].mounts
    assert f"--config.file={config.target}" in tls[host].argv and (ROOT / config.source).is_file()
    with pytest.raises(Refused, match=r"TLS_DIRECTORY.*docs/tls\.md"):
        services(overlay=OVERLAY.read_text("utf-8"))


# ---- what make compose-test tries ----


def test_every_alarm_is_made_to_go_off_by_a_trial() -> None:
    assert alerts().keys() == alarms.TRIED


def test_for_these_trials_alarms_come_sooner_and_are_the_same(tmp_path: Path) -> None:
    """Only what they wait for, and how far they look back, is shorter."""
    alarms.hurry(tmp_path)
    shipped, waits = ROOT / "deploy" / "prometheus", r"\[\w+\]|(for|interval|timeout): \w+"
    names = ("prometheus.yml", "rules/alerts.yml", "rules/recording.yml")
    for ours, theirs in ((tmp_path / name, shipped / name) for name in names):
        assert ours.read_text("utf-8") != theirs.read_text("utf-8")
        assert re.sub(waits, "", ours.read_text("utf-8")) == re.sub(waits, "", theirs.read_text("utf-8"))
    promtool = need_tool("promtool", "prometheus")
    checked = subprocess.run(
        [promtool, "check", "config", tmp_path / "prometheus.yml"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    overlay = (ROOT / "deploy/compose/alarms.yml").read_text("utf-8")
    mounts = services(variables={**SECRETS, "SOONER": "/sooner"}, overlay=overlay)["prometheus"].mounts
    assert {mount.source for mount in mounts} >= {"/sooner/prometheus.yml", "/sooner/rules"}


# ---- the scripts that containers start with ----


@pytest.fixture
def disk() -> Iterator[Path]:
    """/etc/prometheus as `etc`, programs that only print their arguments, and as `own` what is /tmp there."""
    with ground(UID) as base:
        for directory in ("etc", "programs"):
            (base / directory).mkdir()
        for name in ("prometheus", "alertmanager"):
            (base / "programs" / name).write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
            (base / "programs" / name).chmod(0o755)
        (base / "etc/prometheus.yml").write_text((ROOT / "deploy/prometheus/prometheus.yml").read_text("utf-8"))
        (base / "etc/rules").symlink_to(ROOT / "deploy/prometheus/rules")
        (base / "etc/targets").symlink_to(ROOT / "deploy/compose/targets")
        yield base


def run(disk: Path, script: str, *args: object, **env: str) -> subprocess.CompletedProcess[str]:
    argv = stranger("sh", DOCKER / script, *args, uid=UID, writable=[disk / "own"])
    path = {"PATH": f"{disk / 'programs'}:/usr/bin:/bin", **env}
    return subprocess.run(argv, env=path, capture_output=True, text=True, check=False, timeout=30)


def test_the_scripts_run_as_the_users_of_compose() -> None:
    assert {services()[name].uid for name in ("prometheus", "alertmanager")} == {UID}


def test_prometheus_finds_nodes_and_a_load_test_by_dns_and_all_else_as_everywhere(disk: Path) -> None:
    made = disk / "own" / "made"
    done = run(disk, "prometheus-start.sh", disk / "etc", made, "gateway", "--storage.tsdb.path=/x")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"--config.file={made}/prometheus.yml", "--storage.tsdb.path=/x"]
    ours = yaml.safe_load((made / "prometheus.yml").read_text("utf-8"))
    theirs = yaml.safe_load((disk / "etc" / "prometheus.yml").read_text("utf-8"))
    names = {"gateway": ("gateway", 9000), "loadtest": ("loadtest.", 9089)}
    for mine, other in zip(ours["scrape_configs"], theirs["scrape_configs"], strict=True):
        if mine["job_name"] in names:
            (found,) = mine.pop("dns_sd_configs")
            assert (*found["names"], found["port"]) == names[mine["job_name"]] and found["type"] == "A"
            del other["file_sd_configs"]
    assert ours == theirs
    promtool = need_tool("promtool", "prometheus")
    checked = subprocess.run(
        [promtool, "check", "config", made / "prometheus.yml"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_prometheus_watches_the_certificates_that_a_variable_names(disk: Path) -> None:
    made = disk / "own" / "made"
    for named in ("", "https://chat.example.org rediss://gateway:a,b@broker:6379/0?x=*"):
        env = {"CERTIFICATES": named, "BLACKBOX": "blackbox-exporter:9115"} if named else {}
        done = run(disk, "prometheus-start.sh", disk / "etc", made, "gateway", **env)
        assert done.returncode == 0, done.stderr
        (group,) = yaml.safe_load((made / "targets" / "certificates.yml").read_text("utf-8"))
        assert (group["targets"] or []) == named.split()
        assert ("blackbox-exporter:9115" in (made / "prometheus.yml").read_text("utf-8")) == bool(named)
        promtool = need_tool("promtool", "prometheus")
        checked = subprocess.run(
            [promtool, "check", "config", made / "prometheus.yml"], capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0 and "certificates" not in checked.stdout, checked.stdout + checked.stderr
        assert (made / "targets" / "haproxy.yml").is_file()


@pytest.mark.parametrize("job", ["gateway", "loadtest"])
def test_prometheus_does_not_start_on_a_file_that_the_script_does_not_know(disk: Path, job: str) -> None:
    file = disk / "etc" / "prometheus.yml"
    file.write_text(file.read_text().replace(f"targets/{job}.yml", "targets/others.yml"))
    done = run(disk, "prometheus-start.sh", disk / "etc", disk / "own" / "made", "gateway")
    assert done.returncode == 2 and "targets/gateway.yml" in done.stderr and not done.stdout


def test_alertmanager_tells_whom_a_variable_names(disk: Path) -> None:
    source, file = ROOT / "deploy/prometheus/alertmanager.yml", disk / "own" / "alertmanager.yml"
    for webhook in (None, "https://pager.example.org/hook?a=1&b=x|y"):
        env = {"ALERT_WEBHOOK": webhook, "WATCHDOG_WEBHOOK": f"{webhook}&dead=man"} if webhook else {}
        done = run(disk, "alertmanager-start.sh", source, file, "--storage.path=/x", **env)
        assert done.stdout.splitlines() == [f"--config.file={file}", "--storage.path=/x"], done.stderr
        ours, theirs = (yaml.safe_load(path.read_text("utf-8")) for path in (file, source))
        if webhook:
            alerts, watchdog = theirs["receivers"]
            alerts["webhook_configs"][0]["url"], watchdog["webhook_configs"][0]["url"] = webhook, f"{webhook}&dead=man"
        assert ours == theirs
        amtool = need_tool("amtool", "prometheus-alertmanager")
        assert subprocess.run([amtool, "check-config", file], capture_output=True, check=False).returncode == 0
