"""The broker's own truth: scripts, server configuration, users, retention. Usable without the gateway."""

from importlib.resources import files

SCRIPTS = ("heartbeat", "publish", "start")


def script(name: str) -> str:
    """The Lua source of `<name>.lua`."""
    return files(__name__).joinpath(f"{name}.lua").read_text(encoding="utf-8")
