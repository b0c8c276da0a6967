"""deploy/k8s on a real API server, with real controllers and a real scheduler; no pod of it is ever run.

`make kubernetes` builds them. What a schema cannot say is asked here: what the server judges, fills in and keeps, and
what controllers make of it when nodes are replaced, evicted, or never get ready.
"""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.pages import typed
from tests.deploy.control_plane import ControlPlane, Refused
from tests.deploy.kubelet import Kubelets, is_ready
from tests.deploy.kustomize import Resource, render
from tests.deploy.manifests import DIRECTORIES, OVERLAYS, broken_copy, one
from tests.support.until import until

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

# As the cluster of an operator has one: with prometheus-operator, a class of volumes, and a volume.
VOLUMES: Resource = {
    "apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "kubernetes.io/no-provisioner",
            "metadata": {"name": "disks", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        },
        {
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "disk"},
            "spec": {
                "capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "disks",
                "hostPath": {"path": "/nowhere"},
            },
        },
    ],
}  # fmt: skip


async def cluster(directory: Path, *, controllers: bool = False) -> ControlPlane:
    plane = await ControlPlane(directory).start(controllers=controllers)
    await plane.kubectl("apply", "--server-side", "-f", plane.binaries / "operator")

    async def established() -> bool:
        """Not `kubectl wait`, which fails on one that the server has not looked at yet."""
        kinds = [kind.get("status", {}).get("conditions") or [] for kind in await plane.get("crd")]
        return all(any((each["type"], each["status"]) == ("Established", "True") for each in kind) for kind in kinds)

    await until(established, "the operator's kinds are established", within_s=60, every_s=0.2)
    return plane


async def apply(plane: ControlPlane, directory: Path) -> None:
    """As README.md has it."""
    kubectl, *argv, _ = shlex.split(typed("deploy/k8s/README.md", "docker build").splitlines()[-1])
    assert kubectl == "kubectl"
    await plane.kubectl(*argv, directory)


def templates(resources: list[Resource]) -> list[Resource]:
    """A Pod of each workload, as its controller would make it."""
    found = []
    for each in resources:
        if each["kind"] in ("Deployment", "StatefulSet"):
            spec = each["spec"]["template"]["spec"]
            claims = [claim["metadata"]["name"] for claim in each["spec"].get("volumeClaimTemplates", [])]
            claimed = [{"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in claims]
            metadata = each["spec"]["template"]["metadata"] | {"name": each["metadata"]["name"], "namespace": "hiroba"}
            spec = spec | {"volumes": spec.get("volumes", []) + claimed}
            found.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    return found


def lost(said: Any, kept: Any, at: str = "") -> list[str]:
    """Where the server has something else than it was told. Empty and absent are the same to it."""
    if isinstance(said, dict) and isinstance(kept, dict):
        return [where for key in said for where in lost(said[key], kept.get(key), f"{at}.{key}")]
    if isinstance(said, list) and isinstance(kept, list) and len(said) == len(kept):
        pairs = enumerate(zip(said, kept, strict=True))
        return [where for number, (ours, theirs) in pairs for where in lost(ours, theirs, f"{at}[{number}]")]
    return [] if said == kept or not (said or kept) else [f"{at}: {said!r} became {kept!r}"]


# ---- what the server says of the files ----


@pytest.mark.parametrize("directory", DIRECTORIES)
async def test_a_server_takes_every_object_keeps_all_of_it_and_a_second_apply_changes_nothing(
    project: Path, tmp_path: Path, directory: str
) -> None:
    """Fields that it does not know, and whatever it warns of, are refused (kubectl's default, and ours)."""
    plane = await cluster(tmp_path / "plane")
    overlay = project / "deploy/k8s" / directory
    # Parts name no namespace; there they would be put into one by hand.
    elsewhere = [] if directory in OVERLAYS else ["--namespace=hiroba"]
    if elsewhere:
        await plane.kubectl("create", "namespace", "hiroba")
    again = ["apply", "--server-side", *elsewhere, "-k", overlay]
    await plane.kubectl(*again)

    kept = await plane.get(*elsewhere, "-k", str(overlay))
    # Not by the tests' own renderer: kustomize folds long expressions anew.
    said = list(yaml.safe_load_all(await plane.kubectl("kustomize", overlay)))
    assert len(kept) == len(said)
    for resource in said:
        found = one(kept, resource["kind"], resource["metadata"]["name"])
        if resource["kind"] == "Secret":
            resource["data"] = {key: value.replace("\n", "") for key, value in resource["data"].items()}
        assert lost(resource, found) == [], f"{resource['kind']} {resource['metadata']['name']}"

    await plane.kubectl(*again)
    await plane.kubectl("diff", "--server-side", *elsewhere, "-k", overlay)
    versions = [each["metadata"]["resourceVersion"] for each in kept]
    assert versions == [each["metadata"]["resourceVersion"] for each in await plane.get(*elsewhere, "-k", str(overlay))]


async def test_a_server_refuses_what_is_wrong_by_name(project: Path, tmp_path: Path) -> None:
    """Fields, and what only a server knows of: values that contradict each other."""
    plane = await cluster(tmp_path / "plane")
    cases = (
        ("base/gateway.yaml", "readinessProbe:", "readynessProbe:", "readynessProbe"),
        ("base/gateway.yaml", "maxSurge: 1", "maxSurge: 0", "may not be 0 when `maxSurge` is 0"),
        ("base/gateway.yaml", "averageUtilization: 60", "averageUtilization: 0", "must be greater than 0"),
        ("base/gateway.yaml", "Escalation: false", "Escalation: true", "would violate PodSecurity"),
        ("base/haproxy.yaml", "emptyDir: {medium: Memory", "emptyDir: {memory: Memory", "memory"),
        ("base/network.yaml", "{port: 9000}", "{port: 90000}", "must be between 1 and 65535"),
        ("monitoring/servicemonitor.yaml", "interval: 10s", "interval: ten", "endpoints[0].interval"),
    )
    for number, (file, old, new, words) in enumerate(cases):
        (tmp_path / str(number)).mkdir()
        with pytest.raises(Refused) as refused:
            await apply(plane, broken_copy(project, tmp_path / str(number), f"k8s/{file}", old, new))
        assert words in str(refused.value), file


async def test_every_pod_is_let_in_under_the_strictest_profile_and_gets_no_token(project: Path, tmp_path: Path) -> None:
    """The namespace's label is a wall of the server's: a pod that it stops shows as a Deployment without pods."""
    plane = await cluster(tmp_path / "plane")
    for overlay in OVERLAYS:
        await apply(plane, project / "deploy/k8s" / overlay)
        pods = templates(render(project / "deploy/k8s" / overlay))
        assert len(pods) == (3 if overlay == "example" else 2)
        for pod in pods:
            made = await plane.kubectl("create", "--dry-run=server", "-o", "yaml", "-f", "-", given=pod)
            assert "serviceAccountToken" not in made
            loose = pod | {"spec": pod["spec"] | {"hostNetwork": True}}
            with pytest.raises(Refused, match='violates PodSecurity "restricted:latest": host namespaces'):
                await plane.kubectl("create", "--dry-run=server", "-f", "-", given=loose)


async def test_the_pods_own_account_may_nothing_that_not_everybody_may(project: Path, tmp_path: Path) -> None:
    plane = await cluster(tmp_path / "plane")
    await apply(plane, project / "deploy/k8s/example")
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": "hiroba"},
    }

    async def rules(account: str) -> list[str]:
        who = [f"--as=system:serviceaccount:hiroba:{account}", "--as-group=system:authenticated"]
        # To judge what is sent, kubectl would read types that strangers may not read.
        argv = ["create", *who, "--as-group=system:serviceaccounts", "--validate=false", "-o", "json", "-f", "-"]
        may = json.loads(await plane.kubectl(*argv, given=review))["status"]["resourceRules"]
        return sorted(json.dumps(each, sort_keys=True) for each in may)

    assert await rules("hiroba") == await rules("stranger")
    for verb in ("get", "list", "create"):
        with pytest.raises(Refused, match=r"(?m)^no$"):
            account = "--as=system:serviceaccount:hiroba:hiroba"
            await plane.kubectl("auth", "can-i", verb, "secrets", account, "--namespace=hiroba")


async def test_what_the_server_fills_in_is_what_was_meant(project: Path, tmp_path: Path) -> None:
    """Defaults that nobody wrote down, and that something rests on."""
    plane = await cluster(tmp_path / "plane")
    await apply(plane, project / "deploy/k8s/example")

    async def spec(kind: str, name: str) -> Any:
        return (await plane.get(kind, name, "--namespace=hiroba"))["spec"]

    broker = await spec("statefulset", "hiroba-broker")
    # Neither a smaller number nor the StatefulSet's end takes the volume with it.
    assert broker["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    assert broker["updateStrategy"]["type"] == "RollingUpdate" and broker["podManagementPolicy"] == "Parallel"

    autoscaler = await spec("hpa", "hiroba-gateway")
    assert [autoscaler["behavior"][way]["selectPolicy"] for way in ("scaleUp", "scaleDown")] == ["Max", "Max"]
    assert (autoscaler["minReplicas"], autoscaler["maxReplicas"]) == (2, 8)

    for name in ("hiroba-gateway", "hiroba-haproxy"):
        budget = await spec("pdb", name)
        assert budget["maxUnavailable"] == 1 and "minAvailable" not in budget
        pod = (await spec("deployment", name))["template"]["spec"]
        assert pod["restartPolicy"] == "Always" and pod["dnsPolicy"] == "ClusterFirst"
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            (container,) = pod["containers"]
            assert container[probe]["httpGet"]["scheme"] == "HTTP"
            assert container[probe]["periodSeconds"] * container[probe]["failureThreshold"] >= 4

    public = await spec("service", "hiroba")
    assert public["externalTrafficPolicy"] == "Local" and public["healthCheckNodePort"] > 0
    assert public["sessionAffinity"] == "None"
    for name in ("hiroba-gateway", "hiroba-haproxy-ops"):
        assert (await spec("service", name))["clusterIP"] == "None"

    for policy in await plane.get("networkpolicy", "--namespace=hiroba"):
        for rule in policy["spec"]["ingress"]:
            assert {port["protocol"] for port in rule["ports"]} == {"TCP"}
    nowhere = await spec("networkpolicy", "hiroba-broker")
    assert "egress" not in nowhere and "Egress" in nowhere["policyTypes"], "no rule, and judged: nothing goes out"


# ---- what controllers make of it ----


class Crowd:
    """How many nodes there were at each moment since `begin`."""

    def __init__(self) -> None:
        self.ready: list[int] = []
        self.all: list[int] = []

    def begin(self) -> None:
        self.ready, self.all = self.ready[-1:], self.all[-1:]

    def count(self, pods: list[Resource]) -> None:
        nodes = [pod for pod in pods if pod["metadata"]["labels"]["app.kubernetes.io/component"] == "gateway"]
        self.ready.append(sum(map(is_ready, nodes)))
        self.all.append(sum("deletionTimestamp" not in pod["metadata"] for pod in nodes))


async def rolled_out(plane: ControlPlane, name: str = "deployment/hiroba-gateway") -> None:
    _, *argv, _ = shlex.split(typed("deploy/k8s/README.md", "kubectl -n hiroba rollout status"))
    await plane.kubectl(*argv, name, "--timeout=100s")


async def nodes(plane: ControlPlane) -> list[Resource]:
    """The gateway's pods that are to stay."""
    found = await plane.get("pods", "--namespace=hiroba", "--selector=app.kubernetes.io/component=gateway")
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


async def two_nodes_are_ready(plane: ControlPlane) -> list[Resource]:
    async def ready() -> list[Resource]:
        return [pod for pod in await nodes(plane) if is_ready(pod)]

    async def two() -> list[Resource] | None:
        found = await ready()
        return found if len(found) == 2 else None

    await until(two, "the autoscaler's least number of nodes is ready", within_s=100, every_s=0.5)
    await rolled_out(plane)
    return await ready()


async def test_nodes_are_replaced_one_by_one_and_a_bad_version_replaces_nobody(project: Path, tmp_path: Path) -> None:
    """Upgrade, an upgrade that never gets ready, and the way back, as README.md has them."""
    crowd = Crowd()
    plane = await cluster(tmp_path / "plane", controllers=True)
    await plane.kubectl("apply", "-f", "-", given=VOLUMES)
    async with Kubelets(plane, crowd.count) as kubelets:
        await apply(plane, project / "deploy/k8s/example")
        first = await two_nodes_are_ready(plane)
        assert len({pod["spec"]["nodeName"] for pod in first}) == 2, "two machines, not one"
        await rolled_out(plane, "deployment/hiroba-haproxy")
        await rolled_out(plane, "statefulset/hiroba-broker")
        claim = await plane.get("pvc", "data-hiroba-broker-0", "--namespace=hiroba")
        assert claim["status"]["phase"] == "Bound" and claim["status"]["capacity"] == {"storage": "10Gi"}
        broker = await plane.get("pod", "hiroba-broker-0", "--namespace=hiroba")

        # As the autoscaler does it: no apply may take it back.
        await plane.kubectl("scale", "deployment/hiroba-gateway", "--replicas=3", "--namespace=hiroba")
        await rolled_out(plane)
        crowd.begin()
        await apply(plane, version(project, tmp_path, "0.2.0"))
        await rolled_out(plane)
        assert (min(crowd.ready), max(crowd.all)) == (3, 4)
        assert await tags(plane) == ["0.2.0"] * 3

        crowd.begin()
        kubelets.broken_tag = "0.3.0"
        await apply(plane, version(project, tmp_path, "0.3.0"))
        with pytest.raises(Refused, match="timed out"):
            await plane.kubectl("rollout", "status", "deployment/hiroba-gateway", "--namespace=hiroba", "--timeout=10s")
        assert await tags(plane) == ["0.2.0"] * 3 + ["0.3.0"]
        await apply(plane, tmp_path / "0.2.0/broken/deploy/k8s/example")
        await rolled_out(plane)
        assert (min(crowd.ready), max(crowd.all)) == (3, 4)
        assert await tags(plane) == ["0.2.0"] * 3
        after = await plane.get("pod", "hiroba-broker-0", "--namespace=hiroba")
        assert after["metadata"]["uid"] == broker["metadata"]["uid"], "a new version of the nodes is none of the broker"


async def test_a_bad_version_of_the_broker_can_be_taken_back(project: Path, tmp_path: Path) -> None:
    """A StatefulSet of the usual kind waits for the bad one to get ready, whatever is applied after it."""
    plane = await cluster(tmp_path / "plane", controllers=True)
    await plane.kubectl("apply", "-f", "-", given=VOLUMES)
    async with Kubelets(plane) as kubelets:
        await apply(plane, project / "deploy/k8s/example")
        await rolled_out(plane, "statefulset/hiroba-broker")
        first = await plane.get("pod", "hiroba-broker-0", "--namespace=hiroba")

        kubelets.broken_tag = "bad"
        bad = broken_copy(project, tmp_path, "k8s/broker/broker.yaml", "valkey/valkey:9.1", "valkey/valkey:bad")
        await apply(plane, bad)

        async def has_come() -> bool:
            pods = await plane.get("pods", "--namespace=hiroba", "--selector=app.kubernetes.io/component=broker")
            return [pod["spec"]["containers"][0]["image"] for pod in pods] == ["valkey/valkey:bad"]

        await until(has_come, "the bad one is there", within_s=60, every_s=0.2)
        await apply(plane, project / "deploy/k8s/example")
        await rolled_out(plane, "statefulset/hiroba-broker")
        last = await plane.get("pod", "hiroba-broker-0", "--namespace=hiroba")
        assert is_ready(last) and last["spec"]["containers"] == first["spec"]["containers"]
        volumes = [[each for each in pod["spec"]["volumes"] if each["name"] == "data"] for pod in (first, last)]
        assert volumes[0] == volumes[1]


async def test_a_rollout_undo_makes_the_next_apply_a_conflict(project: Path, tmp_path: Path) -> None:
    """Why README.md tells to take a version back by the file: who set a field by hand owns it from then on."""
    plane = await cluster(tmp_path / "plane", controllers=True)
    await plane.kubectl("apply", "-f", "-", given=VOLUMES)
    async with Kubelets(plane):
        await apply(plane, project / "deploy/k8s/example")
        await rolled_out(plane)  # or there never was a version before
        await apply(plane, version(project, tmp_path, "0.2.0"))
        await rolled_out(plane)
        await plane.kubectl("rollout", "undo", "deployment/hiroba-gateway", "--namespace=hiroba")
        with pytest.raises(Refused, match=r'conflict with "kubectl.*"gateway"\].image'):
            await apply(plane, version(project, tmp_path, "0.3.0"))
        await plane.kubectl(
            "apply", "--server-side", "--force-conflicts", "-k", tmp_path / "0.3.0/broken/deploy/k8s/example"
        )
        await rolled_out(plane)
        assert set(await tags(plane)) == {"0.3.0"}


def version(project: Path, tmp_path: Path, tag: str) -> Path:
    (tmp_path / tag).mkdir()
    return broken_copy(project, tmp_path / tag, "k8s/example/kustomization.yaml", '"0.1.0"', f'"{tag}"')


async def tags(plane: ControlPlane) -> list[str]:
    return sorted(pod["spec"]["containers"][0]["image"].rpartition(":")[2] for pod in await nodes(plane))


async def test_machines_are_emptied_one_node_at_a_time(project: Path, tmp_path: Path) -> None:
    """The eviction API asks the disruption budget: `kubectl drain` of two machines at once waits for the successor."""
    crowd = Crowd()
    plane = await cluster(tmp_path / "plane", controllers=True)
    await plane.kubectl("apply", "-f", "-", given=VOLUMES)
    async with Kubelets(plane, crowd.count) as kubelets:
        await apply(plane, project / "deploy/k8s/example")
        first, second = await two_nodes_are_ready(plane)

        async def may_go() -> bool:
            budget = await plane.get("pdb", "hiroba-gateway", "--namespace=hiroba")
            return bool(budget["status"].get("disruptionsAllowed") == 1)

        await until(may_go, "the budget lets one go", within_s=60, every_s=0.2)
        crowd.begin()
        kubelets.awake.clear()
        await evict(plane, first)
        with pytest.raises(Refused, match="violate the pod's disruption budget"):
            await evict(plane, second)
        kubelets.awake.set()
        await until(may_go, "the successor is ready", within_s=60, every_s=0.2)
        await evict(plane, second)
        await two_nodes_are_ready(plane)
        assert min(crowd.ready) == 1

        (balancer, *_) = await plane.get("pods", "--namespace=hiroba", "--selector=app.kubernetes.io/component=haproxy")
        machine = balancer["spec"]["nodeName"]
        await plane.kubectl(
            "drain", machine, "--delete-emptydir-data", "--force", "--timeout=100s", "--ignore-daemonsets"
        )
        for pod in await plane.get("pods", "--namespace=hiroba"):
            assert pod["spec"].get("nodeName") != machine or "deletionTimestamp" in pod["metadata"]
        assert min(crowd.ready) == 1


async def evict(plane: ControlPlane, pod: Resource) -> None:
    name = pod["metadata"]["name"]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": "hiroba"}}
    await plane.kubectl("create", "--raw", f"/api/v1/namespaces/hiroba/pods/{name}/eviction", "-f", "-", given=eviction)
