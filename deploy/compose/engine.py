"""The container engine by its command line: Compose under a project name of its own, and single containers."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PROJECT, FILE = "hiroba-test", ROOT / "docker-compose.yml"
COMPOSE = ["docker", "compose", "--project-name", PROJECT, "--file", str(FILE)]


def missing() -> str:
    """Why there is none, in words; empty where there is one that runs Compose."""
    if shutil.which("docker") is None:
        return "there is no container engine here (no docker on PATH)"
    for argv, what in ((["docker", "info"], "no container engine runs here"), (["docker", "compose", "version"], "")):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            return what or "the container engine here has no Compose (docker compose)"
    return ""


def compose(*args: str, overlays: Sequence[Path] = (), **variables: str) -> str:
    """Its output; `variables` as docker-compose.yml and the files over it name them. Raises CalledProcessError, after
    its own words on standard error."""
    argv = [*COMPOSE, *(part for file in overlays for part in ("--file", str(file))), *args]
    return subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | variables).stdout


@contextmanager
def reader(text: str, cwd: str | Path = ROOT, stdout: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Somebody who types what a page says, at this project; what is still running at the end is ended by Ctrl-C."""
    env = os.environ | {"COMPOSE_PROJECT_NAME": PROJECT, "COMPOSE_FILE": str(FILE)}
    argv, nothing = ["sh", "-ec", text], subprocess.DEVNULL
    typing = subprocess.Popen(argv, cwd=cwd, env=env, stdin=nothing, stdout=stdout, start_new_session=True)
    try:
        yield typing
    finally:
        if typing.poll() is None:
            os.killpg(typing.pid, signal.SIGINT)
            typing.wait(180)


def types(text: str, cwd: str | Path = ROOT) -> str:
    """The same for what ends by itself; what it says. Raises AssertionError: not with exit code 0."""
    with reader(text, cwd, stdout=subprocess.PIPE) as typing:
        said, _ = typing.communicate(timeout=300)
    assert typing.returncode == 0, f"{text}\nended with {typing.returncode}: {said.decode()}"
    return said.decode()


def password() -> dict[str, str]:
    """What a reader puts in for `…`: the operator's, as .env has it."""
    name = "BROKER_OPERATOR_PASSWORD="
    (line,) = [line for line in (ROOT / ".env").read_text("utf-8").splitlines() if line.startswith(name)]
    return {"…": line.removeprefix(name)}


def docker(*args: str) -> str:
    """One command to one container: `compose` means all of a service. Raises CalledProcessError."""
    return subprocess.run(["docker", *args], stdout=subprocess.PIPE, text=True, check=True).stdout


def operator(*words: str) -> str:
    """What the broker answers to people: its own client, in its container. Raises CalledProcessError."""
    (broker,) = containers("broker")
    (client,) = docker("exec", broker, "sh", "-c", "command -v valkey-cli || command -v redis-cli").split()
    (secret,) = password().values()
    return docker("exec", "-e", f"REDISCLI_AUTH={secret}", broker, client, "--user", "operator", *words).strip()


def address(container: str) -> str:
    """Where this machine reaches it without the balancer: in its network, where the engine runs on Linux."""
    (found,) = json.loads(docker("inspect", container))
    (network,) = found["NetworkSettings"]["Networks"].values()
    return str(network["IPAddress"])


def containers(service: str = "") -> dict[str, Mapping[str, Any]]:
    """What the engine knows of each container of the project, or of one service, by its name; stopped ones too."""
    names = compose("ps", "--all", "--quiet", *([service] if service else [])).split()
    found = json.loads(docker("inspect", *names)) if names else []
    return {each["Name"].removeprefix("/"): each for each in found}


def wanted() -> dict[str, Mapping[str, Any]]:
    """The services of docker-compose.yml as Compose itself reads it."""
    services: dict[str, Mapping[str, Any]] = json.loads(compose("config", "--format", "json"))["services"]
    return services
