"""People who chat through the balancer while something happens to it: `loadtest run`, and what it must report."""

import contextlib
import json
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

USERS = 60
# What each has heard, on average, when something is said to be proven.
HEARD = 10
# What nobody may lose, hear twice, or be told is missing.
NEVER = ("lost", "doubled", "gaps", "not_recovered", "errors")


class Load:
    """`with Load(url) as load: …`: v1 users who resume. `load.result` afterwards: the harness' own, judged."""

    def __init__(self, url: str) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="hiroba-compose-")
        self._file = Path(self._directory.name) / "result.json"
        argv = [sys.executable, "-m", "loadtest", "run", "--headless", "-H", url, "--wire", "v1", "-u", str(USERS)]
        argv += ["--rooms", "6", "--rate", "40", "-r", "30", "-t", "10m", "--settle", "30s"]
        self._port = _free_port()
        self._argv = [*argv, "--json", str(self._file), "--prometheus-port", str(self._port)]
        self.result: Mapping[str, Any] = {}

    def __enter__(self) -> "Load":
        self._process = subprocess.Popen(self._argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.everybody_is_in()
        return self

    def everybody_is_in(self) -> None:
        """Wait until all users are connected. Raises AssertionError."""
        self._until(lambda: self._metric("users") >= USERS, "everybody is in")

    def everybody_hears(self) -> None:
        """Wait until people are all in and have heard as much again as proves something. Raises AssertionError."""
        self.everybody_is_in()
        before = self._metric("delivered_total")
        self._until(lambda: self._metric("delivered_total") > before + HEARD * USERS, "people chat on")

    def _until(self, condition: Callable[[], bool], what: str, within_s: float = 60.0) -> None:
        deadline = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
            time.sleep(0.2)

    def _metric(self, name: str) -> float:
        with contextlib.suppress(urllib.error.URLError, OSError):
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=2) as answer:
                found = re.search(rf"^hiroba_loadtest_{name} (\S+)$", answer.read().decode(), re.MULTILINE)
            return float(found[1]) if found else 0.0
        return 0.0

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """They fall silent, hear the rest, are judged. Raises AssertionError."""
        self._process.terminate()
        try:
            _, said = self._process.communicate(timeout=120)
            if kind is None:
                assert self._file.exists(), f"the load test said: {said}"
                self.result = json.loads(self._file.read_text("utf-8"))
        finally:
            self._process.kill()
            self._directory.cleanup()
        if kind is None:
            counts = self.result["counts"]
            assert not any(counts[name] for name in NEVER), f"people lost something: {counts}"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
