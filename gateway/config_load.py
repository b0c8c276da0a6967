"""Where settings come from: flag > variable HIROBA_… > TOML file > default. What they are is in `config.py`.

An unknown key in any source is an error that names the nearest known one: a misspelt limit must not look set.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import Any

from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource, TomlConfigSettingsSource

from gateway.config import ENV_PREFIX, Settings, SettingsError, masked

CONFIG_VARIABLE = ENV_PREFIX + "CONFIG"
CONFIG_FILE = Path("hiroba.toml")


@dataclass(frozen=True)
class Loaded:
    """The settings and, for each field, where its value came from."""

    settings: Settings
    origins: Mapping[str, str]  # "flag", "environment", the file's path, "default"


def load(flags: Mapping[str, object], config: str | None = None) -> Loaded:
    """Settings from `flags` (by field name), the environment and the TOML file.

    `config` is the file that `--config` names; else HIROBA_CONFIG does (empty: no file), else ./hiroba.toml
    where it exists. Raises `SettingsError`.
    """
    path = _config_path(config)
    sources: list[tuple[str, Mapping[str, object]]] = [
        ("default", {}),
        *([(str(path), _from_toml(path))] if path else []),
        ("environment", _from_environment()),
        ("flag", flags),
    ]
    values: dict[str, object] = {}
    origins = dict.fromkeys(Settings.model_fields, "default")
    for origin, found in sources:
        values |= found
        origins |= dict.fromkeys(found, origin)
    try:
        return Loaded(Settings(**values), origins)  # type: ignore[arg-type]  # pydantic checks them
    except ValidationError as exc:
        raise SettingsError(_in_words(exc, origins)) from None


def unknown(spelling: str, known: Iterable[str], where: str = "") -> SettingsError:
    """The error for a key that no setting has."""
    nearest = get_close_matches(spelling, list(known), n=1, cutoff=0.0)
    return SettingsError(f"{spelling} is not a setting{where}; the nearest one is {nearest[0]}")


def as_flag(name: str) -> str:
    """`drain_s` as `--drain-s`."""
    return "--" + name.replace("_", "-")


def as_variable(name: str) -> str:
    """`drain_s` as `HIROBA_DRAIN_S`."""
    return ENV_PREFIX + name.upper()


def _config_path(config: str | None) -> Path | None:
    named = os.environ.get(CONFIG_VARIABLE) if config is None else config
    if named is None:
        return CONFIG_FILE if CONFIG_FILE.is_file() else None
    return Path(named) if named else None


def _from_toml(path: Path) -> dict[str, Any]:
    try:
        path.open("rb").close()  # the source below takes a missing file for an empty one
        found = TomlConfigSettingsSource(Settings, path)()
    except TOMLDecodeError as exc:
        raise SettingsError(f"{path} is not TOML: {masked(str(exc))}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is not TOML: not UTF-8") from None
    except OSError as exc:
        raise SettingsError(f"can't read {path}: {exc.strerror}") from None
    for key in found:
        if key not in Settings.model_fields:
            raise unknown(key, Settings.model_fields, f" (in {path})")
    return found


def _from_environment() -> dict[str, Any]:
    known = {CONFIG_VARIABLE, *map(as_variable, Settings.model_fields)}
    for key in sorted(os.environ):
        if key.upper().startswith(ENV_PREFIX) and key.upper() not in known:
            raise _service_link(key) or unknown(key, known, " (in the environment)")
    if os.environ.get("HIROBA_PORT", "").startswith("tcp://"):
        raise _service_link("HIROBA_PORT_") or AssertionError
    # An empty variable is an unset one: Compose and CI systems make them.
    return EnvSettingsSource(Settings, env_prefix=ENV_PREFIX, env_ignore_empty=True)()


def _service_link(key: str) -> SettingsError | None:
    """Kubernetes gives every pod HIROBA_SERVICE_HOST, HIROBA_PORT=tcp://… of a Service that is named
    hiroba."""
    if not key.startswith(("HIROBA_SERVICE_", "HIROBA_PORT_")):
        return None
    return SettingsError(
        f"{key.rstrip('_')} is no setting: Kubernetes set it for a Service named hiroba;\n"
        "say `enableServiceLinks: false` in the pod's spec"
    )


def _in_words(exc: ValidationError, origins: Mapping[str, str]) -> str:
    errors = exc.errors(include_url=False)
    first = errors[0]
    text = _PLAIN.get(first["type"], "{msg}").format(msg=first["msg"], **first.get("ctx", {}))
    text = text.removeprefix("Value error, ")
    others = len({error["loc"][:1] for error in errors}) - 1
    more = f"\n({others} more to come)" if others else ""
    if not first["loc"]:
        return text + more
    name = str(first["loc"][0])
    shown = "" if name == "broker_url" else f" {_shorten(first['input'])}"
    return f"{_spelt(name, origins[name])}{shown} {text}{more}"


def _spelt(name: str, origin: str) -> str:
    if origin == "flag":
        return as_flag(name)
    if origin == "environment":
        return as_variable(name)
    return f"{name} (in {origin})"


def _shorten(value: object) -> str:
    text = masked(repr(value))
    return text if len(text) <= 60 else text[:57] + "…"


# pydantic's words where plainer ones exist.
_PLAIN = {
    "int_parsing": "is not a whole number",
    "int_type": "is not a whole number",
    "int_from_float": "is not a whole number",
    "float_parsing": "is not a number",
    "float_type": "is not a number",
    "finite_number": "is not a number one can wait for",
    "bool_parsing": "is neither true nor false",
    "bool_type": "is neither true nor false",
    "greater_than": "is too small: it must be more than {gt:g}",
    "greater_than_equal": "is too small: the least is {ge:g}",
    "less_than_equal": "is too large: the most is {le:g}",
    "literal_error": "is not one of {expected}",
    "string_too_short": "is empty",
    "string_type": "is not a text",
    "path_type": "is not a path",
    "tuple_type": "is not a list",
    "ip_v4_network": "is not a network such as 10.0.0.0/8",
    "ip_v6_network": "is not a network such as fd00::/8",
}
