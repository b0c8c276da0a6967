"""deploy/k8s as kustomize renders it: against Kubernetes' schemas, and what it promises an operator.

That it agrees with Compose, the stack and the code is in test_one_source.py.
"""

import shutil
import subprocess
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from deploy.k8s import rules
from gateway.settings.model import Settings
from tests.deploy import kustomize
from tests.deploy.compose import OVERLAY, ROOT
from tests.deploy.kustomize import Resource, Unrendered, render
from tests.deploy.manifests import DIRECTORIES, K8S, OVERLAYS, broken_copy, check, one


def pods(resources: list[Resource]) -> list[tuple[str, dict[str, Any]]]:
    """Each workload's name and its pod's spec."""
    kinds = ("Deployment", "StatefulSet")
    return [(each["metadata"]["name"], each["spec"]["template"]["spec"]) for each in resources if each["kind"] in kinds]


# ---- the files are Kubernetes' ----


@pytest.mark.parametrize("directory", DIRECTORIES)
def test_every_resource_is_what_its_schema_says(project: Path, directory: str) -> None:
    resources = render(project / "deploy/k8s" / directory)
    assert len(resources) >= 3
    for resource in resources:
        check(resource)


@pytest.mark.parametrize("directory", DIRECTORIES)
def test_kubectl_renders_the_same(project: Path, directory: str) -> None:
    """Where there is one: else the tests rest on a renderer that is only ours."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not in Debian's main line of packages; https://kubernetes.io/docs/tasks/tools/")
    argv = [kubectl, "kustomize", str(project / "deploy/k8s" / directory)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    theirs = [each for each in yaml.safe_load_all(done.stdout) if each]
    assert _by_name(_folded(theirs)) == _by_name(_folded(render(project / "deploy/k8s" / directory)))


def _by_name(resources: list[Resource]) -> dict[tuple[str, str], Resource]:
    return {(each["kind"], each["metadata"]["name"]): each for each in resources}


def _folded(node: Any) -> Any:
    """Without the spaces of long expressions: kubectl folds them anew when it writes YAML, and adds lines."""
    if isinstance(node, dict):
        return {key: " ".join(value.split()) if key == "expr" else _folded(value) for key, value in node.items()}
    return [_folded(each) for each in node] if isinstance(node, list) else node


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("k8s/base/gateway.yaml", "terminationGracePeriodSeconds: 60", "terminationGracePeriodSeconds: 60s"),
        ("k8s/base/gateway.yaml", "readinessProbe:", "readynessProbe:"),
        ("k8s/example/kustomization.yaml", "/spec/maxReplicas", "/spec/maximum"),
        ("k8s/base/haproxy.yaml", "containerPort: 8404", "containerPort: ops"),
        ("k8s/base/network.yaml", "policyTypes: [Ingress]", "policyTypes: Ingress"),
        ("k8s/broker/broker.yaml", "serviceName: hiroba-broker", "servicename: hiroba-broker"),
        ("k8s/namespace/namespace.yaml", "kind: Namespace", "kind: Namespace\nspecs: {}"),
        ("k8s/monitoring/servicemonitor.yaml", "interval: 10s", "interval: ten"),
        ("k8s/monitoring/servicemonitor.yaml", "jobLabel:", "joblabel:"),
        ("k8s/monitoring/prometheusrule.yaml", "expr:", "expression:"),
    ],
)
def test_a_broken_manifest_is_refused(project: Path, tmp_path: Path, file: str, old: str, new: str) -> None:
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        for resource in render(broken_copy(project, tmp_path, file, old, new)):
            check(resource)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("k8s/example/kustomization.yaml", "../base", "../bass"),
        ("k8s/example/kustomization.yaml", "name: hiroba-settings", "name: hiroba-setting"),
        ("k8s/example/kustomization.yaml", "images:", "imagez:"),
        ("k8s/base/kustomization.yaml", "gateway.yaml", "../../haproxy/haproxy.cfg"),
    ],
)
def test_a_broken_kustomization_is_refused(project: Path, tmp_path: Path, file: str, old: str, new: str) -> None:
    broken = broken_copy(project, tmp_path, file, old, new)
    with pytest.raises(Unrendered):
        render(broken)
    if kubectl := shutil.which("kubectl"):
        assert subprocess.run([kubectl, "kustomize", broken], capture_output=True, check=False).returncode != 0


def test_yamllint_has_nothing_to_say_and_refuses_broken_files(tmp_path: Path) -> None:
    from yamllint import linter
    from yamllint.config import YamlLintConfig

    config = YamlLintConfig((ROOT / ".yamllint").read_text("utf-8"))
    files = [ROOT / "docker-compose.yml", *(ROOT / "deploy").rglob("*.y*ml"), *(ROOT / "broker_config").glob("*.yaml")]
    assert len(files) > 15
    said = [f"{file}: {problem}" for file in files for problem in linter.run(file.read_text("utf-8"), config)]
    assert said == []
    for file in files:
        untidy = file.read_text("utf-8").rstrip("\n") + " \n"
        assert "trailing-spaces" in [problem.rule for problem in linter.run(untidy, config)], file
    twice = (
        (K8S / "base" / "gateway.yaml")
        .read_text("utf-8")
        .replace("      containers:", "      containers: []\n      containers:", 1)
    )
    assert [problem.rule for problem in linter.run(twice, config)] == ["key-duplicates"]


# ---- what an operator is promised ----


def test_every_pod_is_locked_up(overlay: list[Resource]) -> None:
    for name, pod in pods(overlay):
        assert pod["automountServiceAccountToken"] is False and pod["serviceAccountName"] == "hiroba", name
        assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] > 0, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, container["name"]
            for kind in ("requests", "limits"):
                assert container["resources"][kind].keys() == {"cpu", "memory"}, container["name"]
    namespace = one(overlay, "Namespace", "hiroba")
    modes = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    assert namespace["metadata"]["labels"].items() >= modes.items()
    assert one(overlay, "ServiceAccount", "hiroba")["automountServiceAccountToken"] is False


def test_the_balancer_is_believed_whatever_addresses_the_cluster_gives(overlay: list[Resource]) -> None:
    """Else all its clients would be one, at its address, and locked out together."""
    said = one(overlay, "ConfigMap", "hiroba-settings-.*")["data"]["HIROBA_TRUSTED_PROXIES"]
    believed = Settings(trusted_proxies=said).trusted_proxies
    for pod in ("10.244.1.7", "172.20.1.7", "192.168.1.7", "100.64.1.7", "fd00:10:244::7"):
        assert any(ip_address(pod) in network for network in believed), pod
    assert not any(ip_address(client) in network for client in ("203.0.113.7", "2001:db8::7") for network in believed)


def test_no_service_of_the_namespace_becomes_a_setting(overlay: list[Resource]) -> None:
    """The Service `hiroba` would set HIROBA_PORT=tcp://… in every pod."""
    assert one(overlay, "Service", "hiroba")
    for name, pod in pods(overlay):
        assert pod["enableServiceLinks"] is False, name


def test_a_node_is_probed_by_its_loop_and_only_found_ready_by_its_road(example: list[Resource]) -> None:
    (gateway,) = one(example, "Deployment", "hiroba-gateway")["spec"]["template"]["spec"]["containers"]
    for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert gateway[probe]["httpGet"] == {"path": path, "port": "ops"}


def test_a_balancer_takes_nobodys_place_before_it_has_found_a_node(example: list[Resource]) -> None:
    """Without one it would answer 503 to those whom its predecessor served. Later it stays: 503 says when to come."""
    (haproxy,) = one(example, "Deployment", "hiroba-haproxy")["spec"]["template"]["spec"]["containers"]
    for probe, path in (("startupProbe", "/readyz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/healthz")):
        assert haproxy[probe]["httpGet"] == {"path": path, "port": "ops"}
    # Nodes wait for the broker, which reads its data first.
    (broker, _) = one(example, "StatefulSet", "hiroba-broker")["spec"]["template"]["spec"]["containers"]
    assert _patience_s(haproxy["startupProbe"]) >= _patience_s(broker["startupProbe"])


def _patience_s(probe: dict[str, Any]) -> int:
    return int(probe["periodSeconds"] * probe["failureThreshold"])


def test_nobody_is_taken_out_before_the_next_is_in(overlay: list[Resource]) -> None:
    for name in ("hiroba-gateway", "hiroba-haproxy"):
        assert one(overlay, "Deployment", name)["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
        budget = one(overlay, "PodDisruptionBudget", name)["spec"]
        labels = one(overlay, "Deployment", name)["spec"]["template"]["metadata"]["labels"]
        assert budget["maxUnavailable"] == 1 and budget["selector"]["matchLabels"].items() <= labels.items()
    assert "replicas" not in one(overlay, "Deployment", "hiroba-gateway")["spec"], "an apply would undo the autoscaler"


def test_nodes_grow_by_cpu_and_stand_apart(overlay: list[Resource]) -> None:
    autoscaler = one(overlay, "HorizontalPodAutoscaler", "hiroba-gateway")["spec"]
    assert autoscaler["scaleTargetRef"]["name"] == "hiroba-gateway"
    (metric,) = autoscaler["metrics"]
    assert metric["resource"]["name"] == "cpu" and metric["resource"]["target"]["type"] == "Utilization"
    for name in ("hiroba-gateway", "hiroba-haproxy"):
        template = one(overlay, "Deployment", name)["spec"]["template"]
        spread = template["spec"]["topologySpreadConstraints"]
        assert "kubernetes.io/hostname" in {each["topologyKey"] for each in spread}
        for each in spread:
            assert each["matchLabelKeys"] == ["pod-template-hash"], "else old ones count, and the new stand together"
            assert each["labelSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()


def test_the_single_broker_keeps_its_data_on_a_volume(example: list[Resource]) -> None:
    broker = one(example, "StatefulSet", "hiroba-broker")["spec"]
    (claim,) = broker["volumeClaimTemplates"]
    mounts = {each["name"]: each["mountPath"] for each in broker["template"]["spec"]["containers"][0]["volumeMounts"]}
    assert broker["replicas"] == 1 and mounts[claim["metadata"]["name"]] == "/data"


def test_the_broker_is_not_the_first_to_go_when_a_machine_has_no_memory(example: list[Resource]) -> None:
    """The kubelet evicts first who uses more than was asked for; the kernel kills first who asked for little.

    https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/
    """
    broker = one(example, "StatefulSet", "hiroba-broker")["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert broker["requests"]["memory"] == broker["limits"]["memory"]


def test_selectors_select_what_they_are_for(overlay: list[Resource]) -> None:
    """Every Service, NetworkPolicy and PodDisruptionBudget has pods; every port they name is one of these pods'."""
    templates = [each["spec"]["template"] for each in overlay if each["kind"] in ("Deployment", "StatefulSet")]

    def chosen(labels: dict[str, str]) -> list[dict[str, Any]]:
        return [each["spec"] for each in templates if labels.items() <= each["metadata"]["labels"].items()]

    def ports(pod: dict[str, Any]) -> dict[str, int]:
        return {each["name"]: each["containerPort"] for container in pod["containers"] for each in container["ports"]}

    for resource in overlay:
        spec = resource.get("spec", {})
        match resource["kind"]:
            case "Service":
                (pod,) = chosen(spec["selector"])
                assert {each["targetPort"] for each in spec["ports"]} <= ports(pod).keys()
                assert all(each["port"] in (80, ports(pod)[each["targetPort"]]) for each in spec["ports"])
            case "NetworkPolicy" if "ingress" in spec:
                (pod,) = chosen(spec["podSelector"]["matchLabels"])
                assert {each["port"] for rule in spec["ingress"] for each in rule["ports"]} == set(ports(pod).values())
            case "PodDisruptionBudget":
                assert len(chosen(spec["selector"]["matchLabels"])) == 1
    policies = {each["metadata"]["name"] for each in overlay if each["kind"] == "NetworkPolicy"}
    assert policies - {"hiroba-gateway-broker"} == {name for name, _ in pods(overlay)}, (
        "a pod without a policy is open to everybody"
    )


def test_ops_ports_are_for_prometheus_and_the_balancer_only(overlay: list[Resource]) -> None:
    ops = {9000, 8404, 9121}
    for resource in overlay:
        if resource["kind"] == "NetworkPolicy":
            for rule in resource["spec"].get("ingress", []):
                assert "from" in rule or ops.isdisjoint(port["port"] for port in rule["ports"])
        if resource["kind"] == "Service" and resource["spec"].get("type") == "LoadBalancer":
            assert [port["targetPort"] for port in resource["spec"]["ports"]] == ["http"]


def test_every_volume_and_reference_is_there(overlay: list[Resource]) -> None:
    there = {(each["kind"], each["metadata"]["name"]): each.get("data", {}) for each in overlay}
    found: list[tuple[str, str, str | None]] = []

    def visit(node: dict[str, Any]) -> None:
        for key, kind in kustomize.REFERENCES.items():
            if isinstance(reference := node.get(key), dict):
                items = [each["key"] for each in reference.get("items", [])] or [reference.get("key")]
                found.extend((kind, reference["name"], item) for item in items)

    kustomize.walk([each for each in overlay if each["kind"] in ("Deployment", "StatefulSet")], visit)
    assert len(found) >= 3
    for kind, name, key in found:
        assert (kind, name) in there and (key is None or key in there[kind, name]), (kind, name, key)
    for _, pod in pods(overlay):
        volumes = {volume["name"] for volume in pod.get("volumes", [])} | {"data"}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes


def test_no_password_outside_a_secret(overlay: list[Resource]) -> None:
    """And none in the repository: the directory of the secrets is ignored."""
    text = yaml.safe_dump([each for each in overlay if each["kind"] != "Secret"])
    assert "geheim" not in text
    for name in OVERLAYS:
        argv = ["git", "check-ignore", "-q", f"deploy/k8s/{name}/secrets/url"]
        assert subprocess.run(argv, cwd=ROOT, check=False).returncode == 0


def test_without_secrets_it_is_refused_by_name(project: Path, tmp_path: Path) -> None:
    copy = tmp_path / "fresh"
    shutil.copytree(project, copy, ignore=shutil.ignore_patterns("secrets", ".env"))
    with pytest.raises(Unrendered, match="secrets/url: no such file"):
        render(copy / "deploy/k8s/example")
    done = subprocess.run(["sh", copy / "deploy/k8s/secrets.sh"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "make secrets" in done.stderr and done.stderr.count("\n") == 1


def test_a_new_url_is_none_of_the_broker(project: Path, tmp_path: Path, example: list[Resource]) -> None:
    """While it restarts nobody talks; and the nodes' new password must come before the old one goes."""
    copy = tmp_path / "copy"
    shutil.copytree(project, copy)
    with (copy / "deploy/k8s/example/secrets/url").open("a") as url:
        url.write("?db=1")
    changed = render(copy / "deploy/k8s/example")
    assert one(changed, "StatefulSet", "hiroba-broker") == one(example, "StatefulSet", "hiroba-broker")
    assert one(changed, "Deployment", "hiroba-gateway") != one(example, "Deployment", "hiroba-gateway")


def test_a_changed_configuration_changes_the_pods(project: Path, tmp_path: Path, example: list[Resource]) -> None:
    """Else an apply would change a file under a running HAProxy that never reads it again."""
    broken = broken_copy(project, tmp_path, "haproxy/haproxy.cfg", "slowstart 15s", "slowstart 20s")

    def config(resources: list[Resource]) -> str:
        (volume, _) = one(resources, "Deployment", "hiroba-haproxy")["spec"]["template"]["spec"]["volumes"]
        return str(volume["configMap"]["name"])

    assert config(render(broken)) != config(example)


# ---- rules and dashboards ----


def test_the_rules_are_the_rules(example: list[Resource]) -> None:
    """The same groups as the files that promtool tests; when this fails: python -m deploy.k8s.rules."""
    assert rules.RESOURCE.read_text("utf-8") == rules.resource(), "stale: python -m deploy.k8s.rules"
    for file in sorted(rules.RULES.glob("*.yml")):
        theirs = yaml.safe_load(file.read_text("utf-8"))["groups"]
        assert one(example, "PrometheusRule", f"hiroba-{file.stem}")["spec"]["groups"] == theirs


def test_rules_without_groups_are_refused(tmp_path: Path) -> None:
    (tmp_path / "odd.yml").write_text("rules: []\n")
    with pytest.raises(ValueError, match=r"odd\.yml"):
        rules.resource(tmp_path)


def test_prometheus_scrapes_every_ops_port_under_its_job(example: list[Resource]) -> None:
    """`job` is what rules and dashboards ask for: the component's name, as in prometheus.yml."""
    monitor = one(example, "ServiceMonitor", "hiroba")["spec"]
    (endpoint,) = monitor["endpoints"]
    scraped = {
        each["metadata"]["labels"][monitor["jobLabel"]]
        for each in example
        if each["kind"] == "Service"
        and monitor["selector"]["matchLabels"].items() <= each["metadata"]["labels"].items()
        and endpoint["port"] in {port["name"] for port in each["spec"]["ports"]}
    }
    prometheus = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text("utf-8"))
    jobs = {each["job_name"] for each in prometheus["scrape_configs"]}
    assert scraped == jobs - {"prometheus", "alertmanager", "loadtest", "certificates"}
    assert endpoint["interval"] == prometheus["global"]["scrape_interval"]
    assert endpoint["scrapeTimeout"] == prometheus["global"]["scrape_timeout"]


def test_certificates_are_watched_as_everywhere_if_somebody_wants_it(project: Path, example: list[Resource]) -> None:
    """By the same module and job, under an `instance` that leads to the very address; and by Prometheus only."""
    found = render(project / "deploy/k8s/certificates")
    ((_, pod),) = pods(found)
    test_every_pod_is_locked_up([*found, *example])
    monitor = one(found, "ServiceMonitor", "hiroba-certificates")["spec"]
    service = one(found, "Service", "hiroba-blackbox")
    labels = service["metadata"]["labels"]
    assert monitor["selector"]["matchLabels"].items() <= labels.items()
    prometheus = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text("utf-8"))
    (job,) = [each for each in prometheus["scrape_configs"] if each["job_name"] == labels[monitor["jobLabel"]]]
    for endpoint in monitor["endpoints"]:
        assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
        assert (endpoint["path"], endpoint["interval"]) == (job["metrics_path"], job["scrape_interval"])
        assert endpoint["params"]["module"] == job["params"]["module"]
        (address,) = endpoint["params"]["target"]
        assert address.removesuffix(":443") == endpoint["relabelings"][0]["replacement"].removeprefix("https://")
    (container,) = pod["containers"]
    (config,) = [each for each in found if each["kind"] == "ConfigMap"]
    assert config["data"] == {"blackbox.yml": (ROOT / "deploy/prometheus/blackbox.yml").read_text("utf-8")}
    assert container["args"] == ["--config.file=/etc/hiroba/blackbox.yml"]
    compose = yaml.safe_load(OVERLAY.read_text("utf-8"))["services"]["blackbox-exporter"]
    assert (container["image"], f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}") == (
        compose["image"],
        compose["user"],
    )


# ---- the promises above, tested ----


@pytest.mark.parametrize(
    ("file", "old", "new", "judge"),
    [
        ("base/gateway.yaml", "runAsNonRoot: true", "runAsNonRoot: false", test_every_pod_is_locked_up),
        ("base/gateway.yaml", "automountServiceAccountToken: false", "", test_every_pod_is_locked_up),
        ("base/haproxy.yaml", "limits: {cpu: \"2\", memory: 1Gi}", "limits: {cpu: \"2\"}", test_every_pod_is_locked_up),
        ("namespace/namespace.yaml", "enforce: restricted", "enforce: baseline", test_every_pod_is_locked_up),
        ("namespace/namespace.yaml", "    pod-security.kubernetes.io/warn: restricted\n", "",
         test_every_pod_is_locked_up),
        ("base/haproxy.yaml", "enableServiceLinks: false", "enableServiceLinks: true",
         test_no_service_of_the_namespace_becomes_a_setting),
        ("base/kustomization.yaml", ",100.64.0.0/10", "",
         test_the_balancer_is_believed_whatever_addresses_the_cluster_gives),
        ("base/gateway.yaml", "path: /healthz", "path: /readyz",
         test_a_node_is_probed_by_its_loop_and_only_found_ready_by_its_road),
        ("base/haproxy.yaml", "path: /readyz", "path: /healthz",
         test_a_balancer_takes_nobodys_place_before_it_has_found_a_node),
        ("base/haproxy.yaml", "failureThreshold: 600", "failureThreshold: 60",
         test_a_balancer_takes_nobodys_place_before_it_has_found_a_node),
        ("broker/broker.yaml", "requests: {cpu: 500m, memory: 2Gi}", "requests: {cpu: 500m, memory: 1Gi}",
         test_the_broker_is_not_the_first_to_go_when_a_machine_has_no_memory),
        ("base/gateway.yaml", "          matchLabelKeys: [pod-template-hash]\n", "",
         test_nodes_grow_by_cpu_and_stand_apart),
        ("base/gateway.yaml", "maxUnavailable: 0", "maxUnavailable: 1", test_nobody_is_taken_out_before_the_next_is_in),
        ("base/haproxy.yaml", "spec:\n  maxUnavailable: 1", "spec:\n  maxUnavailable: 2",
         test_nobody_is_taken_out_before_the_next_is_in),
        ("base/gateway.yaml", "  clusterIP: None\n", "  type: LoadBalancer\n",
         test_ops_ports_are_for_prometheus_and_the_balancer_only),
        ("base/network.yaml", "  ingress:\n    - ports:\n", "  ingress:\n    - ports:\n        - {port: 8404}\n",
         test_ops_ports_are_for_prometheus_and_the_balancer_only),
        ("base/network.yaml", "component: haproxy}\n  policyTypes", "component: balancer}\n  policyTypes",
         test_selectors_select_what_they_are_for),
        ("base/haproxy.yaml", "configMap: {name: hiroba-haproxy}", "configMap: {name: haproxy}",
         test_every_volume_and_reference_is_there),
        ("base/gateway.yaml", "name: cpu,", "name: memory,", test_nodes_grow_by_cpu_and_stand_apart),
        ("base/haproxy.yaml", "topologyKey: kubernetes.io/hostname", "topologyKey: topology.kubernetes.io/zone",
         test_nodes_grow_by_cpu_and_stand_apart),
        ("broker/broker.yaml", "name: data, mountPath: /data", "name: data, mountPath: /var/data",
         test_the_single_broker_keeps_its_data_on_a_volume),
        ("base/gateway.yaml", "key: url", "key: address", test_every_volume_and_reference_is_there),
        ("base/kustomization.yaml", "literals:", "literals:\n      - HIROBA_BROKER_URL=redis://:geheim@h",
         test_no_password_outside_a_secret),
        ("monitoring/servicemonitor.yaml", "port: ops", "port: http",
         test_prometheus_scrapes_every_ops_port_under_its_job),
    ],
)  # fmt: skip
def test_an_overlay_that_promises_less_is_refused(
    project: Path, tmp_path: Path, file: str, old: str, new: str, judge: Callable[[list[Resource]], None]
) -> None:
    with pytest.raises((AssertionError, KeyError, ValueError)):
        judge(render(broken_copy(project, tmp_path, f"k8s/{file}", old, new)))
