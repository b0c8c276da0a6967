"""What the files of a deployment say, read out of them: for the tests that hold them against each other."""

import re
from typing import Any

import yaml

from tests.deploy.compose import ROOT, Service
from tests.deploy.kustomize import Resource, render

HAPROXY = (ROOT / "deploy/haproxy/haproxy.cfg").read_text("utf-8")
NODES_DNS = (ROOT / "deploy/haproxy/nodes-dns.cfg").read_text("utf-8")
VALKEY = (ROOT / "broker_config/valkey.conf").read_text("utf-8")
PROMETHEUS = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text("utf-8"))
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
GRAFANA = ROOT / "deploy" / "grafana"
K8S = ROOT / "deploy" / "k8s"

# By name: a container as its pod has it, with the pod and the workload's spec as `pod` and `spec`.
Containers = dict[str, dict[str, Any]]


def dockerfile(text: str | None = None) -> list[str]:
    """Its instructions, continued lines joined, no comments."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text("utf-8") if text is None else text, flags=re.MULTILINE)
    return [line for line in re.sub(r"\\\n\s*", "", text).splitlines() if line.strip()]


def containers() -> Containers:
    """Those of base and broker."""
    found = {}
    for directory in ("base", "broker"):
        for resource in render(K8S / directory):
            if resource["kind"] in ("Deployment", "StatefulSet"):
                pod = resource["spec"]["template"]["spec"]
                for container in pod["containers"]:
                    found[container["name"]] = container | {"pod": pod, "spec": resource["spec"]}
    return found


def resources(directory: str, kind: str) -> list[Resource]:
    return [each for each in render(K8S / directory) if each["kind"] == kind]


def preset(name: str) -> str:
    """What haproxy.cfg or nodes-dns.cfg has for a variable that nobody sets."""
    (value,) = re.findall(rf"^ +presetenv {name} (\S+)$", HAPROXY + NODES_DNS, re.MULTILINE)
    return str(value)


def directive(name: str) -> str:
    (value,) = re.findall(rf"^{name} (.+)$", VALKEY, re.MULTILINE)
    return str(value)


def bytes_of(text: str) -> int:
    """`1gb` of valkey.conf, `2g` of Compose, `2Gi` of Kubernetes: all powers of 1024."""
    number, unit = re.fullmatch(r"(\d+)([kmg])(?:b|i)?", text.lower()).groups()  # type: ignore[union-attr]
    return int(number) << {"k": 10, "m": 20, "g": 30}[unit]


def environment(container: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in container.get("env", [])}


def everyones_environment(compose: dict[str, Service], k8s: Containers) -> list[tuple[str, str]]:
    """Each variable that is set anywhere, with its value; empty where it comes from elsewhere."""
    found = [(key, value or "") for service in compose.values() for key, value in service.environment.items()]
    found += [pair for container in k8s.values() for pair in environment(container).items()]
    for directory in ("base", "broker"):
        for resource in resources(directory, "ConfigMap"):
            found += [pair for pair in resource["data"].items() if pair[0].isupper()]
    for line in dockerfile():
        if line.startswith("ENV"):
            found += re.findall(r"(\w+)=(\S+)", line)
    return found
