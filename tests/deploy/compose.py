"""A model of docker-compose.yml: what Compose would make of it, without Compose.

Merge keys are YAML's, interpolation is Compose's (https://docs.docker.com/reference/compose-file/interpolation/).
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
# What makes it speak TLS.
OVERLAY = ROOT / "deploy" / "compose" / "tls.yml"
SCHEMA = Path(__file__).with_name("schemas") / "compose-spec.json"

# What `make secrets` writes to .env, which Compose reads by itself.
SECRETS = {f"BROKER_{user}_PASSWORD": f"{user.lower()}-password" for user in ("GATEWAY", "OPERATOR", "EXPORTER")}

_VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)(?:(:?[-?+])([^}]*))?\})")
_DURATION = re.compile(r"(?:(\d+)m)?(?:(\d+)s)?")


class Refused(Exception):
    """Compose would not start. The text is what it would say."""


@dataclass(frozen=True)
class Port:
    """A published port. `host` is empty for all interfaces."""

    host: str
    published: int
    target: int


@dataclass(frozen=True)
class Mount:
    """`source` is a path below the project for a bind mount, else a volume's name."""

    kind: str
    source: str
    target: str
    read_only: bool


class Service:
    def __init__(self, name: str, raw: Mapping[str, Any]) -> None:
        self.name = name
        self.raw = raw

    @property
    def environment(self) -> dict[str, str | None]:
        """None: passed on from whoever runs Compose."""
        return dict(self.raw.get("environment", {}))

    @property
    def ports(self) -> list[Port]:
        found = []
        for text in self.raw.get("ports", []):
            *host, published, target = text.split(":")
            found.append(Port(":".join(host), int(published), int(target)))
        return found

    @property
    def mounts(self) -> list[Mount]:
        found = []
        for each in self.raw.get("volumes", []):
            if isinstance(each, str):
                source, target, *mode = each.split(":")
                found.append(Mount("volume", source, target, "ro" in mode))
            else:
                found.append(Mount(each["type"], each["source"], each["target"], bool(each.get("read_only"))))
        return found

    @property
    def argv(self) -> list[str]:
        """entrypoint and command; the image's own where they are not given."""
        return [*self.raw.get("entrypoint", []), *self.raw.get("command", [])]

    def seconds(self, field: str) -> int:
        minutes, seconds = _DURATION.fullmatch(self.raw[field]).groups(default="0")  # type: ignore[union-attr]
        return 60 * int(minutes) + int(seconds)

    @property
    def uid(self) -> int:
        return int(self.raw["user"].partition(":")[0])


def services(
    text: str | None = None, variables: Mapping[str, str] = SECRETS, overlay: str | None = None
) -> dict[str, Service]:
    """By name; `overlay`: the text of a second file. Raises Refused: no file of Compose, or a variable is missing."""
    raw = _valid(FILE.read_text("utf-8") if text is None else text)
    if overlay is not None:
        raw["services"] = _merged(raw["services"], _valid(overlay)["services"])
    whole = _interpolate(raw, variables)
    named = {name: Service(name, each) for name, each in whole["services"].items()}
    _check_references(named, whole.get("volumes") or {})
    return named


def _valid(text: str) -> dict[str, Any]:
    raw: dict[str, Any] = yaml.safe_load(text)
    complaints = sorted(_validator().iter_errors(raw), key=lambda error: error.json_path)
    if complaints:
        raise Refused("; ".join(f"{error.json_path}: {error.message}" for error in complaints))
    return raw


def _merged(first: Any, second: Any) -> Any:
    """https://docs.docker.com/reference/compose-file/merge/, as far as our files use it."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first | {key: _merged(first[key], value) if key in first else value for key, value in second.items()}
    return [*first, *second] if isinstance(first, list) and isinstance(second, list) else second


@cache
def _validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text("utf-8")))


def _check_references(named: Mapping[str, Service], volumes: Mapping[str, Any]) -> None:
    """What the schema cannot see: names of services, volumes and files that are not there."""
    for service in named.values():
        depends = set(service.raw.get("depends_on", []))
        for other in sorted(depends - named.keys()):
            raise Refused(f'service "{service.name}" depends on undefined service "{other}"')
        for mount in service.mounts:
            if mount.kind == "volume" and mount.source not in volumes:
                raise Refused(f'service "{service.name}" refers to undefined volume {mount.source}')


def _interpolate(node: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(node, dict):
        return {key: _interpolate(value, variables) for key, value in node.items()}
    if isinstance(node, list):
        return [_interpolate(value, variables) for value in node]
    return _VARIABLE.sub(lambda match: _value(match, variables), node) if isinstance(node, str) else node


def _value(match: re.Match[str], variables: Mapping[str, str]) -> str:
    dollar, name, operator, operand = match.groups()
    if dollar:
        return "$"
    value = variables.get(name)
    # With a colon an empty value counts as none.
    given = bool(value) if operator and operator.startswith(":") else value is not None
    if operator and operator.endswith("?") and not given:
        raise Refused(f"required variable {name} is missing a value: {operand}")
    if operator and operator.endswith("-") and not given:
        return operand or ""
    if operator and operator.endswith("+"):
        return operand if given else ""
    return value or ""
