"""Free TCP ports on 127.0.0.1, below the range from which the kernel takes ports for outgoing connections.

A port is given out once: never again in this test run, and not in another one beside it on this machine.
"""

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

# Linux hands out 32768 and up by itself; a port from below can only be taken by somebody who asks for it.
LOWEST, HIGHEST = 12_000, 32_000
# Handed out by this process: whoever has one may not have bound it yet. 20,000 are far more than a run takes.
_given: set[int] = set()

# Byte n of this file is locked by who has port n; the kernel lets go when that process ends (fcntl(2)).
_claims = os.open(Path(tempfile.gettempdir()) / f"hiroba-test-ports-{os.getuid()}", os.O_RDWR | os.O_CREAT, 0o600)


def free_port() -> int:
    """A port nobody listens on."""
    return free_ports(1)


def free_ports(count: int) -> int:
    """The first of `count` free ports in a row, as `ops_port` + n needs them."""
    for _ in range(200):
        # Not seeded: test runs side by side must not go through the same ports in the same order.
        first = random.SystemRandom().randrange(LOWEST, HIGHEST - count)
        ports = range(first, first + count)
        if _given.isdisjoint(ports) and all(_claim(port) and is_free(port) for port in ports):
            _given.update(ports)
            return first
    raise AssertionError(f"no {count} free ports in a row between {LOWEST} and {HIGHEST}")


def _claim(port: int) -> bool:
    try:
        fcntl.lockf(_claims, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
