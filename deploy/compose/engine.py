"""The container engine by its command line: Compose under a project name of its own, and single containers."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
COMPOSE = ["docker", "compose", "--project-name", "hiroba-test", "--file", str(ROOT / "docker-compose.yml")]


def missing() -> str:
    """Why there is none, in words; empty where there is one that runs Compose."""
    if shutil.which("docker") is None:
        return "there is no container engine here (no docker on PATH)"
    for argv, what in ((["docker", "info"], "no container engine runs here"), (["docker", "compose", "version"], "")):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            return what or "the container engine here has no Compose (docker compose)"
    return ""


def compose(*args: str, **variables: str) -> str:
    """Its output; `variables` as docker-compose.yml names them. Raises CalledProcessError, after its own words on
    standard error."""
    env = os.environ | variables
    return subprocess.run([*COMPOSE, *args], stdout=subprocess.PIPE, text=True, check=True, env=env).stdout


def docker(*args: str) -> str:
    """One command to one container: `compose` means all of a service. Raises CalledProcessError."""
    return subprocess.run(["docker", *args], stdout=subprocess.PIPE, text=True, check=True).stdout


def containers(service: str = "") -> dict[str, Mapping[str, Any]]:
    """What the engine knows of each container of the project, or of one service, by its name; stopped ones too."""
    names = compose("ps", "--all", "--quiet", *([service] if service else [])).split()
    found = json.loads(docker("inspect", *names)) if names else []
    return {each["Name"].removeprefix("/"): each for each in found}


def wanted() -> dict[str, Mapping[str, Any]]:
    """The services of docker-compose.yml as Compose itself reads it."""
    services: dict[str, Mapping[str, Any]] = json.loads(compose("config", "--format", "json"))["services"]
    return services
