"""The manifests as tests use them: with secrets, checked against schemas, and broken on purpose."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import kubernetes_validate

from tests.deploy.compose import ROOT
from tests.deploy.kustomize import Resource
from tests.support.certs import make_certs

K8S = ROOT / "deploy" / "k8s"
SCHEMAS = Path(__file__).with_name("schemas")
# The oldest that is promised, and the newest that the schemas know.
VERSIONS = ("1.30", "1.37")
OVERLAYS = ("example", "managed", "sentinel")
DIRECTORIES = ("base", "broker", "certificates", "monitoring", *OVERLAYS)
# As their kustomization.yaml and README.md have them.
URLS = {
    "managed": "rediss://gateway:geheim-g@redis.example.org:6379/0?ssl_ca_certs=/etc/hiroba/broker/ca.pem",
    "sentinel": "redis+sentinel://gateway:geheim-g@s1:26379,s2:26379,s3:26379/chat",
}


def with_secrets(base: Path) -> Path:
    """Makes `base` a copy of what is rendered, with the secrets that `make secrets` and secrets.sh make."""
    for part in ("deploy", "broker_config"):
        shutil.copytree(ROOT / part, base / part, ignore=shutil.ignore_patterns("__pycache__", "secrets"))
    (base / "secrets").mkdir()
    (base / "secrets" / "users.acl").write_text("user gateway on ~hiroba:*\n")
    (base / ".env").write_text("BROKER_GATEWAY_PASSWORD=geheim-g\nBROKER_EXPORTER_PASSWORD=geheim-e\n")
    subprocess.run(["sh", base / "deploy/k8s/secrets.sh"], check=True)
    for overlay, url in URLS.items():
        secrets = base / "deploy/k8s" / overlay / "secrets"
        secrets.mkdir()
        (secrets / "url").write_text(url)
    make_certs(base / "deploy/k8s/managed/secrets")
    return base


# What was found good, as JSON: overlays and broken copies have nearly everything in common, and each look at the
# schemas reads them anew.
_good: set[str] = set()


def check(resource: Resource) -> None:
    """Raises ValidationError: a server would refuse it, or ignore a part of it."""
    text = json.dumps(resource, sort_keys=True)
    if text not in _good:
        _check(resource)
        _good.add(text)


def _check(resource: Resource) -> None:
    if resource["apiVersion"].startswith("monitoring.coreos.com/"):
        schema = json.loads((SCHEMAS / f"{resource['kind']}.json").read_text("utf-8"))
        jsonschema.validate(resource, schema, jsonschema.Draft7Validator)
        return
    for version in VERSIONS:
        kubernetes_validate.validate(resource, version, strict=True)


def one(resources: list[Resource], kind: str, name: str) -> Resource:
    (found,) = [each for each in resources if each["kind"] == kind and re.fullmatch(name, each["metadata"]["name"])]
    return found


def broken_copy(project: Path, tmp_path: Path, file: str, old: str, new: str, overlay: str = "example") -> Path:
    """An overlay of a copy of the project in which one thing is wrong."""
    copy = tmp_path / "broken"
    shutil.copytree(project, copy)
    text = (copy / "deploy" / file).read_text("utf-8")
    assert old in text
    (copy / "deploy" / file).write_text(text.replace(old, new))
    return copy / "deploy/k8s" / overlay
