"""`make compose-test` where there is an engine, or where CONTAINER_ENGINE names a script that brings one.

The script's words: `start`, `stop`, and `sh COMMAND…`, which runs a command where the engine is. CONTAINER_IMAGES, if
it is set, is run after `start`, and makes the images that docker-compose.yml names.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.compose.engine import missing
from tests.deploy.compose import ROOT
from tests.support import need

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]


@pytest.fixture
def inside() -> Iterator[list[str]]:
    """What goes in front of a command that needs the engine."""
    script, images = os.environ.get("CONTAINER_ENGINE"), os.environ.get("CONTAINER_IMAGES")
    if script is None:
        if reason := missing():
            need.missing(f"{reason}, and CONTAINER_ENGINE names no script that brings one")
        yield []
        return
    running = subprocess.run([script, "sh", "docker", "info"], capture_output=True, check=False).returncode == 0
    try:
        if not running:
            subprocess.run([script, "start"], check=True, timeout=120)
        if images is not None:
            subprocess.run([images], check=True, timeout=900, cwd=ROOT)
        yield [script, "sh"]
    finally:
        if not running:
            subprocess.run([script, "stop"], check=False, timeout=60)


def test_docker_compose_holds_what_it_promises(inside: list[str], tmp_path: Path) -> None:
    """The trials of deploy/compose/trials.py, each said as it goes: `said` can be followed meanwhile."""
    # Also where there are some: the users may do what today's nodes do.
    subprocess.run([sys.executable, "-m", "broker_config", "secrets"], check=True, cwd=ROOT)
    with (tmp_path / "said").open("w") as said:
        done = subprocess.run(
            [*inside, sys.executable, "-m", "deploy.compose"],
            cwd=ROOT, env=os.environ | {"CI": "true"}, stdout=said, stderr=subprocess.STDOUT, check=False, timeout=2700,
        )  # fmt: skip
    text = (tmp_path / "said").read_text("utf-8")
    assert done.returncode == 0, text
    assert "all of them held" in text
