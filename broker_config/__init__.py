"""The broker's own truth: scripts, server configuration, users, retention. Usable without the gateway."""

from importlib.resources import files

# Every one there is: what `hiroba broker apply` loads and `check` misses, and whose commands a user must have.
SCRIPTS = tuple(sorted(file.name[:-4] for file in files(__name__).iterdir() if file.name.endswith(".lua")))


def script(name: str) -> str:
    """The Lua source of `<name>.lua`."""
    return files(__name__).joinpath(f"{name}.lua").read_text(encoding="utf-8")
