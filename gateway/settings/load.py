"""Where settings come from: flag > variable HIROBA_… > TOML file > default. What they are is in `config.py`.

An unknown key in any source is an error that names the nearest known one: a misspelt limit must not look set. All that
is wrong is told at once.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource, TomlConfigSettingsSource

from gateway.settings.model import ENV_PREFIX, SECRETS, Settings, SettingsError, masked

CONFIG_VARIABLE = ENV_PREFIX + "CONFIG"
CONFIG_FILE = Path("hiroba.toml")


@dataclass(frozen=True)
class Loaded:
    """The settings and, for each field, where its value came from."""

    settings: Settings
    origins: Mapping[str, str]  # "flag", "environment", the file's path, "default"


def load(flags: Mapping[str, object], config: str | None = None, wrong: Iterable[str] = ()) -> Loaded:
    """Settings from `flags` (by field name), the environment and the TOML file.

    `config` is the file that `--config` names; else HIROBA_CONFIG does (empty: no file), else ./hiroba.toml
    where it exists. Raises `SettingsError` with a line for each mistake, those in `wrong` before all others.
    """
    path = _config_path(config)
    wrong = list(wrong)
    sources: list[tuple[str, Mapping[str, object]]] = [
        ("default", {}),
        *([(str(path), _from_toml(path, wrong))] if path else []),
        ("environment", _from_environment(wrong)),
        ("flag", flags),
    ]
    values: dict[str, object] = {}
    origins = dict.fromkeys(Settings.model_fields, "default")
    for origin, found in sources:
        values |= found
        origins |= dict.fromkeys(found, origin)
    settings = _checked(values, origins, wrong)
    if settings is None or wrong:
        raise SettingsError("\n".join(wrong))
    return Loaded(settings, origins)


def unknown(spelling: str, known: Iterable[str], where: str = "") -> str:
    """What is said of a key that no setting has."""
    nearest = get_close_matches(spelling, list(known), n=1, cutoff=0.0)
    return f"{spelling} is not a setting{where}; the nearest one is {nearest[0]}"


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


def _from_toml(path: Path, wrong: list[str]) -> dict[str, Any]:
    """What the file says of settings; `wrong` gets what it says of others."""
    try:
        path.open("rb").close()  # the source below takes a missing file for an empty one
        found = TomlConfigSettingsSource(Settings, path)()
    except TOMLDecodeError as exc:
        raise SettingsError(f"{path} is not TOML: {masked(str(exc))}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is not TOML: not UTF-8") from None
    except OSError as exc:
        raise SettingsError(f"can't read {path}: {exc.strerror}") from None
    wrong += [unknown(key, Settings.model_fields, f" (in {path})") for key in found if key not in Settings.model_fields]
    return {key: value for key, value in found.items() if key in Settings.model_fields}


def _from_environment(wrong: list[str]) -> dict[str, Any]:
    known = {CONFIG_VARIABLE, *map(as_variable, Settings.model_fields)}
    for key in sorted(os.environ):
        if key.upper().startswith(ENV_PREFIX) and key.upper() not in known:
            _refuse_service_link(key)
            wrong.append(unknown(key, known, " (in the environment)"))
    if os.environ.get("HIROBA_PORT", "").startswith("tcp://"):
        _refuse_service_link("HIROBA_PORT_")
    # An empty variable is an unset one: Compose and CI systems make them.
    return EnvSettingsSource(Settings, env_prefix=ENV_PREFIX, env_ignore_empty=True)()


def _refuse_service_link(key: str) -> None:
    """Kubernetes gives every pod HIROBA_SERVICE_HOST, HIROBA_PORT=tcp://… of a Service that is named
    hiroba: one cause of many wrong variables, told alone."""
    if key.startswith(("HIROBA_SERVICE_", "HIROBA_PORT_")):
        raise SettingsError(
            f"{key.rstrip('_')} is no setting: Kubernetes set it for a Service named hiroba;\n"
            "say `enableServiceLinks: false` in the pod's spec"
        )


def _checked(values: Mapping[str, object], origins: Mapping[str, str], wrong: list[str]) -> Settings | None:
    """The settings, or None: then `wrong` gets a line for each that is not right."""
    try:
        return Settings(**values)  # type: ignore[arg-type]  # pydantic checks them
    except ValidationError as exc:
        errors = exc.errors(include_url=False)
    wrong += dict.fromkeys(_in_words(error, origins) for error in errors)  # a union has an error for each member
    names = {str(error["loc"][0]) for error in errors if error["loc"]}
    if names:
        # Settings that contradict each other are only looked for among those that are right by themselves.
        others: list[str] = []
        _checked({name: value for name, value in values.items() if name not in names}, origins, others)
        wrong += [line for text in others for line in text.splitlines() if not any(name in line for name in names)]
    return None


def _in_words(error: ErrorDetails, origins: Mapping[str, str]) -> str:
    text = _PLAIN.get(error["type"], "{msg}").format(msg=error["msg"], **error.get("ctx", {}))
    text = text.removeprefix("Value error, ")
    if not error["loc"]:
        return text
    name = str(error["loc"][0])
    shown = "" if name in ("broker_url", *SECRETS) else f" {_shorten(error['input'])}"
    return f"{_spelt(name, origins[name])}{shown} {text}"


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
    "too_short": "is empty",
    "string_type": "is not a text",
    "path_type": "is not a path",
    "tuple_type": "is not a list",
    "ip_v4_network": "is not a network such as 10.0.0.0/8 or fd00::/8",
    "ip_v6_network": "is not a network such as 10.0.0.0/8 or fd00::/8",
}
