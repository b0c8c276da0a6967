"""What npm installs for tests: once, exactly what the lock beside package.json names."""

import fcntl
import json
import shutil
import subprocess
from pathlib import Path

from tests.support.need import missing, need_tool

# vitest 4, which the suite runs on, wants it.
NODE_MIN = 20


def installed(directory: Path) -> Path:
    """The directory's node_modules, as its package-lock.json has it; installed first if need be."""
    modules, lock = directory / "node_modules", directory / "package-lock.json"
    npm, node = need_tool("npm", "npm"), need_tool("node", "nodejs")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=20, check=True).stdout
    if int(version.strip("v").partition(".")[0]) < NODE_MIN:
        missing(f"Node is {version.strip()}: the test wants {NODE_MIN}")
    with (directory / "package.json").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # other workers want it too
        done = modules / ".installed"
        if not done.exists() or done.read_bytes() != lock.read_bytes():
            command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
            subprocess.run(command, cwd=directory, check=True, timeout=300, capture_output=True)
            shutil.copyfile(lock, done)
    return modules


def versions(directory: Path) -> dict[str, str]:
    """What package.json pins."""
    pinned: dict[str, str] = json.loads((directory / "package.json").read_text("utf-8"))["devDependencies"]
    return pinned
