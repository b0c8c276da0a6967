"""deploy/k8s with a broker of one's own: the overlays for a managed one and for Sentinel, and the URLs of README.md."""

import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jsonschema
import kubernetes_validate
import pytest

from gateway.settings.urls import check_broker_url
from tests.deploy.kustomize import Resource, Unrendered, render
from tests.deploy.manifests import K8S, URLS, broken_copy, check, one

README = (K8S / "README.md").read_text("utf-8")
# The last is what this version does not speak.
DESCRIBED = re.findall(r"^\| (\S+)[^|]*\| `(redis\S*://\S+)` \|", README, re.MULTILINE)
PLACEHOLDERS = {"PASSWORD": "geheim", "HOST": "redis.example.org", "SERVICE": "chat"}


def url_in(overlay: str) -> str:
    """The one that its kustomization.yaml tells people to write."""
    text = (K8S / overlay / "kustomization.yaml").read_text("utf-8")
    (url,) = re.findall(r"^# +secrets/url +(\S+)$", text, re.MULTILINE)
    return str(url)


def filled(url: str) -> str:
    for name, value in PLACEHOLDERS.items():
        url = url.replace(name, value)
    return re.sub(r"\b[SH](\d)\b", r"s\1.example.org", url)


@pytest.mark.parametrize("overlay", URLS)
def test_a_node_takes_the_url_that_an_overlay_is_given(overlay: str) -> None:
    for url in (URLS[overlay], filled(url_in(overlay))):
        assert check_broker_url(url) == url
    assert urlsplit(URLS[overlay])._replace(netloc="") == urlsplit(filled(url_in(overlay)))._replace(netloc="")


def test_readme_tells_of_every_broker_and_of_the_one_that_is_refused() -> None:
    assert [kind for kind, _ in DESCRIBED] == ["managed", "Sentinel", "Cluster"]
    *taken, (_, refused) = DESCRIBED
    for _, url in taken:
        check_broker_url(filled(url))
    with pytest.raises(ValueError, match=r"^this version can't speak redis\+cluster://[^.]*$"):
        check_broker_url(filled(refused))


def test_the_authority_is_where_the_url_says(project: Path) -> None:
    check_authority(render(project / "deploy/k8s/managed"))


def check_authority(resources: list[Resource]) -> None:
    wanted = Path(parse_qs(urlsplit(URLS["managed"]).query)["ssl_ca_certs"][0])
    pod = one(resources, "Deployment", "hiroba-gateway")["spec"]["template"]["spec"]
    (mount,) = pod["containers"][0]["volumeMounts"]
    assert mount["mountPath"] == str(wanted.parent) and mount["readOnly"] is True
    (volume,) = (each for each in pod["volumes"] if each["name"] == mount["name"])
    (data,) = (
        each["data"]
        for each in resources
        if (each["kind"], each["metadata"]["name"]) == ("ConfigMap", volume["configMap"]["name"])
    )
    assert "BEGIN CERTIFICATE" in data[wanted.name]


def test_nodes_may_go_to_the_sentinels_and_servers_and_nowhere_else(project: Path) -> None:
    check_roads(render(project / "deploy/k8s/sentinel"))


def check_roads(resources: list[Resource]) -> None:
    """Names everywhere; beyond that only the ports of the URL and of the servers, and only where those are."""
    policy = one(resources, "NetworkPolicy", "hiroba-gateway-broker")["spec"]
    labels = one(resources, "Deployment", "hiroba-gateway")["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items() and policy["policyTypes"] == ["Egress"]
    names, brokers = policy["egress"]
    assert names == {"ports": [{"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]}
    sentinels = {int(port) for port in re.findall(r":(\d+)[,/]", url_in("sentinel"))}
    assert {each["port"] for each in brokers["ports"]} == sentinels | {6379}
    assert [peer.keys() for peer in brokers["to"]] == [{"namespaceSelector", "podSelector"}], (
        "one peer of both, not two of one each"
    )


def test_no_broker_of_ours_is_left_beside_another(project: Path) -> None:
    for overlay in URLS:
        resources = render(project / "deploy/k8s" / overlay)
        assert not [each for each in resources if each["kind"] == "StatefulSet" or "users.acl" in each.get("data", {})]
        (secret,) = (each["data"] for each in resources if each["kind"] == "Secret")
        assert secret.keys() == {"url"}


@pytest.mark.parametrize(
    ("overlay", "file", "old", "new", "judge"),
    [
        (
            "managed",
            "k8s/managed/kustomization.yaml",
            "mountPath: /etc/hiroba/broker",
            "mountPath: /ca",
            check_authority,
        ),
        ("sentinel", "k8s/sentinel/network.yaml", "{port: 26379}", "{port: 6380}", check_roads),
        ("sentinel", "k8s/sentinel/network.yaml", "          podSelector:", "        - podSelector:", check_roads),
        ("sentinel", "k8s/sentinel/network.yaml", "component: gateway", "component: node", check_roads),
    ],
)
def test_an_overlay_that_says_otherwise_is_refused(
    project: Path, tmp_path: Path, overlay: str, file: str, old: str, new: str, judge: Any
) -> None:
    with pytest.raises(AssertionError):
        judge(render(broken_copy(project, tmp_path, file, old, new, overlay)))


@pytest.mark.parametrize(
    ("overlay", "file", "old", "new"),
    [
        ("managed", "k8s/managed/kustomization.yaml", "readOnly: true", "readonly: true"),
        ("sentinel", "k8s/sentinel/network.yaml", "policyTypes: [Egress]", "policyTypes: Egress"),
        ("sentinel", "k8s/sentinel/network.yaml", "namespaceSelector:", "nameSpaceSelector:"),
    ],
)
def test_a_broken_overlay_is_refused(
    project: Path, tmp_path: Path, overlay: str, file: str, old: str, new: str
) -> None:
    resources = render(broken_copy(project, tmp_path, file, old, new, overlay))
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        for resource in resources:
            check(resource)


@pytest.mark.parametrize("missing", ["managed/secrets/url", "managed/secrets/ca.pem", "sentinel/secrets/url"])
def test_without_its_secrets_an_overlay_is_refused_by_name(project: Path, tmp_path: Path, missing: str) -> None:
    copy = tmp_path / "fresh"
    shutil.copytree(project, copy)
    (copy / "deploy/k8s" / missing).unlink()
    with pytest.raises(Unrendered, match=missing.partition("/")[2]):
        render((copy / "deploy/k8s" / missing).parents[1])
