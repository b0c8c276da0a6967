"""A reader's machine: a network of its own, so that every port of our pages is free, and a checkout in which nothing
was run yet. What a page says is typed there as it stands."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.deploy.compose import ROOT
from tests.support.need import missing, need_tool, need_valkey
from tests.support.process import Process

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Machine:
    """`directory` is empty. Its checkout is used with our .venv; its socket of HAProxy is not another stack's."""

    def __init__(self, directory: Path, temp: Path) -> None:
        self.checkout = directory / "hiroba"
        listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
        for name in filter(None, names):
            if (ROOT / name).exists():
                (self.checkout / name).parent.mkdir(parents=True, exist_ok=True)
                # With its time, by which make goes.
                shutil.copy2(ROOT / name, self.checkout / name, follow_symlinks=False)
        (self.checkout / ".venv").symlink_to(ROOT / ".venv")
        fresh = subprocess.run(["make", "-q", ".venv/installed"], cwd=self.checkout, check=False)
        assert fresh.returncode == 0, "pyproject.toml or constraints.txt is newer than .venv: make .venv/installed"
        programs = directory / "programs"
        programs.mkdir()
        (programs / "valkey-server").symlink_to(need_valkey())
        self.programs = programs
        self.temp = temp
        path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"
        inherited = {
            key: value for key, value in os.environ.items() if not key.startswith(("HIROBA_", "BROKER_", "LB_"))
        }
        self.started: list[Process] = []
        self.env = inherited | {"PATH": path, "TMPDIR": str(temp), "CI": "true"}

    def run(self, text: str, *, at: str = ".", code: int = 0, within_s: float = 60, **variables: str) -> str:
        """Somebody types `text` in the directory `at` of the checkout; what is said. `code`: how it has to end."""
        done = subprocess.run(
            ["sh", "-ec", text], cwd=self.checkout / at, env=self.env | variables, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=within_s, check=False,
        )  # fmt: skip
        assert done.returncode == code, f"{text}\nended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def start(self, name: str, text: str, *, at: str = ".", **variables: str) -> Process:
        """The same for what stays: in a process group of its own, so that Ctrl-C reaches all of it."""
        process = Process(name, ["sh", "-c", text], self.temp / f"{name}.log", env=self.env | variables)
        process.cwd = self.checkout / at
        process.spawn()
        self.started.append(process)
        return process

    async def ctrl_c(self, process: Process, within_s: float = 60) -> int:
        """As a terminal does it: everybody of the group is told. The exit code, negative for a signal."""
        os.killpg(process.pid, signal.SIGINT)
        return await process.ended(within_s)

    def password(self, user: str) -> str:
        """As .env has it."""
        name = f"BROKER_{user.upper()}_PASSWORD="
        (line,) = [line for line in (self.checkout / ".env").read_text("utf-8").splitlines() if line.startswith(name)]
        return line.removeprefix(name)


@contextmanager
def machine(directory: Path) -> Iterator[Machine]:
    """As root; elsewhere there is no network of one's own, and no test."""
    need_tool("ip", "iproute2")
    # A Unix socket's path is short, and pytest's directories are not.
    with tempfile.TemporaryDirectory(prefix="hiroba-") as temp, _own_network():
        at = Machine(directory, Path(temp))
        try:
            yield at
        finally:
            for process in at.started:
                with suppress(ProcessLookupError):  # usually: nobody of its group is left
                    os.killpg(process.pid, signal.SIGTERM)
                    assert process.popen is not None
                    process.popen.wait(30)


@contextmanager
def _own_network() -> Iterator[None]:
    """For this thread and the processes that it starts: nothing but a loopback (unshare(2), setns(2))."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.unshare(CLONE_NEWNET):
            missing(f"a network of one's own is for root: {os.strerror(ctypes.get_errno())}")
        try:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            yield
        finally:
            if _libc.setns(before, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(before)
