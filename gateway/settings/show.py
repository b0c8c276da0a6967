"""Settings for people: `hiroba config`, the example file, docs/settings.md. All text comes from the fields.

What this prints holds no password.
"""

import json
from collections.abc import Iterator
from textwrap import wrap

from pydantic.fields import FieldInfo

from gateway.settings.load import Loaded
from gateway.settings.model import SECTIONS, Settings, as_text, for_people

_MARKDOWN_HEAD = """\
# Settings

Made by `hiroba config --markdown` from `gateway/settings/model.py`; a test holds this page against the code.

A setting is a flag (`--drain-s 5`), a variable (`HIROBA_DRAIN_S=5`) or a key of a TOML file (`drain_s = 5`),
in this order of precedence. The file is what `--config` names, else `HIROBA_CONFIG`, else `./hiroba.toml`
where it is there. Lists are written with commas in flags and variables, as arrays in TOML. An empty variable
is an unset one. An unknown key anywhere is an error that names the nearest known one. `hiroba config` prints
each value and where it came from, `hiroba config --example` a file to begin with.
"""


def values(loaded: Loaded) -> str:
    """A line for each setting: name, value, where it came from."""
    shown = {name: for_people(name, getattr(loaded.settings, name)) or "(unset)" for name, _ in _fields()}
    name_width, value_width = max(map(len, shown)), min(48, max(map(len, shown.values())))
    lines = (f"{name:{name_width}}  {value:{value_width}}  {loaded.origins[name]}" for name, value in shown.items())
    return "".join(f"{line}\n" for line in lines)


def example() -> str:
    """A TOML file in which every setting is commented out at its default (`#key = value`; prose has `# `)."""
    lines = ["# hiroba.toml: every setting at its default. Take the # from those that you change."]
    for section in SECTIONS:
        lines += ["", "", f"# ---- {section.__doc__} ----"]
        for name in section.__annotations__:
            field = Settings.model_fields[name]
            lines += ["", *(f"# {line}" for line in wrap(_prose(field), 108))]
            if field.default is None:
                lines.append(f"#{name} = {_toml((field.examples or [''])[0])}  # for example; unset by default")
            else:
                lines.append(f"#{name} = {_toml(field.default)}")
    return "\n".join(lines) + "\n"


def markdown() -> str:
    """docs/settings.md."""
    lines = [_MARKDOWN_HEAD]
    for section in SECTIONS:
        lines += [f"## {section.__doc__}", "", "| setting | default | what and why |", "|---|---|---|"]
        for name in section.__annotations__:
            field = Settings.model_fields[name]
            default = f"`{as_text(field.default)}`" if as_text(field.default) else "unset"
            lines.append(f"| `{name}` | {default} | {_prose(field)} |")
        lines.append("")
    return "\n".join(lines)


def _fields() -> Iterator[tuple[str, FieldInfo]]:
    for section in SECTIONS:
        for name in section.__annotations__:
            yield name, Settings.model_fields[name]


def _prose(field: FieldInfo) -> str:
    return " ".join((field.description or "").split())


def _toml(value: object) -> str:
    if isinstance(value, tuple) and len(value) != 1:
        return json.dumps([str(part) for part in value])
    if isinstance(value, tuple):
        return _toml(value[0])
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    return json.dumps(str(value), ensure_ascii=False)
