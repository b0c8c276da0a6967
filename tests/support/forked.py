"""Nodes forked from a Python that has imported everything once: to import it anew costs half a second of CPU for each.

The parent (`python -m tests.support.forked`, one for each process that tests) has no threads, no loop and no settings;
what it forks is a process like any other, in a session and an environment of its own. Only its command line is its
parent's. Requests and answers are JSON datagrams: {"fork": …} → pid, {"wait": pid} → exit code, {"poll": pid} → exit
code or null.
"""

import atexit
import ctypes
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1
DATAGRAM_BYTES = 1 << 18


class Forked:
    """A process that the parent forked; like subprocess.Popen, as far as tests want."""

    def __init__(self, argv: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
        """`argv`: of `hiroba`, without its name. Raises OSError when the parent is gone."""
        self._parent = _parent()
        self.pid = int(self._parent.ask({"fork": {"argv": argv, "log": str(log), "env": dict(env)}}) or 0)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._parent.ask({"poll": self.pid})
        return self.returncode

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = self._parent.ask({"wait": self.pid})
        assert self.returncode is not None
        return self.returncode

    def kill(self) -> None:
        # As long as nobody has its exit code, its pid is nobody else's.
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


class Parent:
    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._asking = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.forked", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )
        atexit.register(self.close)

    def ask(self, request: dict[str, object]) -> int | None:
        with self._asking:
            self._socket.send(json.dumps(request).encode())
            answer = self._socket.recv(DATAGRAM_BYTES)
        if not answer:
            raise ConnectionError("who forks nodes has ended")
        code: int | None = json.loads(answer)
        return code

    def close(self) -> None:
        self._socket.close()
        self._process.wait()


_parents: list[Parent] = []


def _parent() -> Parent:
    if not _parents:
        _parents.append(Parent())
    return _parents[0]


def serve(requests: socket.socket) -> list[str]:
    """Answers until nobody asks any more. Returns in the children only: what they are to run."""
    gc.collect()
    gc.freeze()  # what was imported stays the children's and their parent's
    while request := requests.recv(DATAGRAM_BYTES):
        [(what, about)] = json.loads(request).items()
        if what == "fork":
            if not (pid := os.fork()):
                requests.close()
                return _begin(**about)
            answer: int | None = pid
        else:
            pid, status = os.waitpid(about, os.WNOHANG if what == "poll" else 0)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        requests.send(json.dumps(answer).encode())
    sys.exit()


def _begin(argv: list[str], log: str, env: dict[str, str]) -> list[str]:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setsid()
    with Path(log).open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.clear()
    os.environ.update(env)
    return argv


if __name__ == "__main__":
    from gateway import cli, node  # noqa: F401 - what a child wants is there
    from tests.support.watched import watching

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    sys.argv[1:] = serve(socket.socket(fileno=int(sys.argv[1])))
    with watching():
        sys.exit(cli.main())
