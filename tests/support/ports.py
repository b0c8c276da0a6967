"""Free TCP ports on 127.0.0.1, below the range from which the kernel takes ports for outgoing connections."""

import random
import socket

# Linux hands out 32768 and up by itself; a port from below can only be taken by somebody who asks for it.
LOWEST, HIGHEST = 12_000, 32_000
# Handed out by this process: whoever has one may not have bound it yet. 20,000 are far more than a run takes.
_given: set[int] = set()


def free_port() -> int:
    """A port nobody listens on."""
    return free_ports(1)


def free_ports(count: int) -> int:
    """The first of `count` free ports in a row, as `ops_port` + n needs them."""
    for _ in range(200):
        # Not seeded: test runs side by side must not go through the same ports in the same order.
        first = random.SystemRandom().randrange(LOWEST, HIGHEST - count)
        ports = range(first, first + count)
        if _given.isdisjoint(ports) and all(map(is_free, ports)):
            _given.update(ports)
            return first
    raise AssertionError(f"no {count} free ports in a row between {LOWEST} and {HIGHEST}")


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
