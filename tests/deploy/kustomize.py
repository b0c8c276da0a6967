"""Renders the part of kustomize that deploy/k8s uses, so that manifests can be checked where there is no kubectl.

A field that it does not know is an error and not ignored. Where kubectl is, a test compares the two.
Source: https://kubectl.docs.kubernetes.io/references/kustomize/kustomization/ and kyaml's hash of ConfigMaps.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

Resource = dict[str, Any]
FIELDS = {
    "apiVersion", "kind", "namespace", "labels", "resources", "images", "patches",
    "configMapGenerator", "secretGenerator",
}  # fmt: skip
# Kinds that live in no namespace.
GLOBAL_KINDS = {"Namespace"}
# (key of a reference, kind it names): how pods name what is generated.
REFERENCES = {
    "configMap": "ConfigMap", "configMapRef": "ConfigMap", "configMapKeyRef": "ConfigMap",
    "secret": "Secret", "secretRef": "Secret", "secretKeyRef": "Secret",
}  # fmt: skip


class Unrendered(ValueError):
    """kustomize would refuse this, or this renderer does not know it. The text says what."""


def render(directory: Path) -> list[Resource]:
    """All resources of a kustomization, as `kubectl kustomize` gives them; their order is not kustomize's."""
    resources = _accumulate(directory)
    names: dict[tuple[str, str], str] = {}
    for resource in resources:
        if resource.pop("_generated", False):
            key = (resource["kind"], resource["metadata"]["name"])
            names[key] = resource["metadata"]["name"] = f"{key[1]}-{_suffix(resource)}"
    for resource in resources:
        _rename(resource, names)
    return resources


def _accumulate(directory: Path) -> list[Resource]:
    file = directory / "kustomization.yaml"
    try:
        wanted = yaml.safe_load(file.read_text("utf-8"))
    except FileNotFoundError as exc:
        raise Unrendered(f"{directory} has no kustomization.yaml") from exc
    if unknown := wanted.keys() - FIELDS:
        raise Unrendered(f"{file}: {', '.join(sorted(unknown))}")
    resources: list[Resource] = []
    for name in wanted.get("resources", []):
        path = (directory / name).resolve()
        resources += _accumulate(path) if path.is_dir() else list(_load(_inside(directory, name)))
    _generate(directory, wanted, resources)
    for patch in wanted.get("patches", []):
        _patch(resources, patch)
    for resource in resources:
        metadata = resource["metadata"]
        for label in wanted.get("labels", []):
            metadata.setdefault("labels", {}).update(label["pairs"])
        if "namespace" in wanted:
            where = metadata if resource["kind"] not in GLOBAL_KINDS else None
            if where is not None:
                where["namespace"] = wanted["namespace"]
    _replace_images(resources, wanted.get("images", []))
    return resources


def _load(path: Path) -> Iterator[Resource]:
    # libyaml's, where it is: ten times as fast.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    yield from (document for document in yaml.load_all(path.read_text("utf-8"), loader) if document)


def _inside(directory: Path, name: str) -> Path:
    """kustomize reads files from below its kustomization only (LoadRestrictionsRootOnly)."""
    path = (directory / name).resolve()
    if not path.is_relative_to(directory.resolve()):
        raise Unrendered(f"{name} is outside {directory}")
    if not path.is_file():
        raise Unrendered(f"{path}: no such file")
    return path


# ---- generators ----


def _generate(directory: Path, wanted: dict[str, Any], resources: list[Resource]) -> None:
    for kind, field, encode in (("ConfigMap", "configMapGenerator", str), ("Secret", "secretGenerator", _base64)):
        for generator in wanted.get(field, []):
            data = {key: encode(value) for key, value in _data(directory, generator).items()}
            match generator.get("behavior", "create"):
                case "create":
                    made: Resource = {"apiVersion": "v1", "kind": kind, "metadata": {"name": generator["name"]}}
                    made |= {"data": data, "_generated": True}
                    if kind == "Secret":
                        made["type"] = "Opaque"
                    resources.append(made)
                case "merge":
                    _find(resources, kind, generator["name"])["data"].update(data)
                case other:
                    raise Unrendered(f"behavior {other}")


def _data(directory: Path, generator: dict[str, Any]) -> dict[str, str]:
    if unknown := generator.keys() - {"name", "behavior", "files", "literals"}:
        raise Unrendered(f"generator {generator['name']}: {', '.join(sorted(unknown))}")
    data = {}
    for name in generator.get("files", []):
        path = _inside(directory, name)
        data[path.name] = path.read_text("utf-8")
    for literal in generator.get("literals", []):
        key, _, value = literal.partition("=")
        data[key] = value
    return data


def _base64(text: str) -> str:
    """In lines of 70 where it is longer, each with its end, as kustomize has them (and hashes them)."""
    coded = base64.b64encode(text.encode()).decode()
    return coded if len(coded) < 70 else "".join(f"{coded[at : at + 70]}\n" for at in range(0, len(coded), 70))


def _suffix(resource: Resource) -> str:
    """kustomize's ten letters: a hash in hex whose digits can make neither words nor 0 of O."""
    # The name is empty there: kustomize looks "metadata/name" up as one key.
    subject = {"data": resource["data"], "kind": resource["kind"], "name": ""}
    if resource["kind"] == "Secret":
        subject["type"] = resource["type"]
    # As Go's json.Marshal writes it: no spaces, sorted, and three characters escaped.
    text = json.dumps(subject, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    for plain in "<>&":
        text = text.replace(plain, f"\\u{ord(plain):04x}")
    digest = hashlib.sha256(text.encode()).hexdigest()[:10]
    return digest.translate(str.maketrans("013ae", "ghkmt"))


# ---- transformers ----


def _patch(resources: list[Resource], patch: dict[str, Any]) -> None:
    """JSON patches (RFC 6902) of single resources."""
    target = _find(resources, patch["target"]["kind"], patch["target"]["name"])
    for step in yaml.safe_load(patch["patch"]):
        *road, last = step["path"].strip("/").split("/")
        at: Any = target
        for name in road:
            at = at[int(name) if isinstance(at, list) else name]
        # kustomize lets `replace` add, against the RFC: what should not be there is for the schemas to say.
        if step["op"] not in ("replace", "add"):
            raise Unrendered(f"patch {step}")
        at[last] = step["value"]


def _find(resources: list[Resource], kind: str, name: str) -> Resource:
    found = [each for each in resources if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    if len(found) != 1:
        raise Unrendered(f"{len(found)} of {kind} {name}")
    return found[0]


def _replace_images(resources: list[Resource], images: list[dict[str, str]]) -> None:
    def replace(node: dict[str, Any]) -> None:
        name, _, tag = str(node.get("image", "")).rpartition(":")
        for image in images:
            if name == image["name"]:
                node["image"] = f"{image.get('newName', name)}:{image.get('newTag', tag)}"

    walk(resources, replace)


def _rename(resource: Resource, names: dict[tuple[str, str], str]) -> None:
    def rename(node: dict[str, Any]) -> None:
        for key, kind in REFERENCES.items():
            if isinstance(reference := node.get(key), dict):
                field = "secretName" if "secretName" in reference else "name"
                if field in reference:
                    reference[field] = names.get((kind, reference[field]), reference[field])

    walk(resource, rename)


def walk(node: Any, visit: Callable[[dict[str, Any]], None]) -> None:
    if isinstance(node, dict):
        visit(node)
        for child in node.values():
            walk(child, visit)
    elif isinstance(node, list):
        for child in node:
            walk(child, visit)
