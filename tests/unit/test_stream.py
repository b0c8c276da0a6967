"""An event stream's socket: who acknowledges nothing is found by the kernel, for nobody answers a comment."""

import socket
from types import SimpleNamespace
from typing import Any, cast

from gateway.core.wires import SSE
from gateway.edge.stream import USER_TIMEOUT, EventStream
from tests.support.grants import OPEN


class Transport:
    """One that has a socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def get_extra_info(self, name: str) -> socket.socket:
        return self.sock


def stream(sock: socket.socket) -> EventStream:
    return EventStream(cast(Any, SimpleNamespace()), cast(Any, Transport(sock)), "/", "-", SSE, None, OPEN)


def test_the_kernel_gives_up_a_peer_that_acknowledges_nothing() -> None:
    """Else a browser that lost its network holds a place for the quarter of an hour that TCP tries (tcp(7))."""
    with socket.socket() as sock:
        stream(sock).notice_death(30.5)
        assert USER_TIMEOUT is None or sock.getsockopt(socket.IPPROTO_TCP, USER_TIMEOUT) == 30_500


def test_a_unix_socket_has_no_such_limit() -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        stream(sock).notice_death(30)
