"""Ports of `hiroba up`: held without listening, shared with our nodes only, refused in one sentence."""

import socket

import pytest

from gateway.process import ports
from tests.support.ports import free_port


def test_a_held_port_takes_no_connection_and_nobody_else_gets_it() -> None:
    (held,) = ports.hold("127.0.0.1", 0, "--port")
    port = held.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("127.0.0.1", port)).close()
    # A node's way: it listens, and gets what comes.
    with socket.create_server(("127.0.0.1", port), reuse_port=True) as node:  # noqa: SIM117 - one closes first
        with socket.create_connection(("127.0.0.1", port)) as client:
            taken, address = node.accept()
            assert address == client.getsockname()
            taken.close()
    # Its connection lingers in TIME_WAIT, and the next run gets the port all the same.
    held.close()
    for sock in ports.hold("127.0.0.1", port, "--port"):
        sock.close()


def test_a_shared_port_of_somebody_else_is_taken() -> None:
    with socket.create_server(("127.0.0.1", free_port()), reuse_port=True) as other:
        port = other.getsockname()[1]
        with pytest.raises(ports.PortTaken, match=f"127.0.0.1:{port}: Address already in use.*--port"):
            ports.hold("127.0.0.1", port, "--port")


def test_a_name_stands_for_all_its_addresses_on_one_port() -> None:
    held = ports.hold("localhost", 0, "--port")
    assert len({sock.getsockname()[1] for sock in held}) == 1
    assert len({sock.family for sock in held}) == len(held)
    for sock in held:
        sock.close()


@pytest.mark.parametrize("hosts", [["::"], ["::", "0.0.0.0"], ["127.0.0.1", "::1"]], ids=str)
def test_several_addresses_have_one_port(hosts: list[str]) -> None:
    """`::` takes IPv4 too, by a socket of its own: an address of IPv4 never looks like one of IPv6."""
    for held in (ports.hold(hosts, 0, "--port"), ports.listen(hosts, 0, "--port", 16)):
        assert sorted(sock.family for sock in held) == [socket.AF_INET, socket.AF_INET6]
        assert len({sock.getsockname()[1] for sock in held}) == 1
        for sock in held:
            sock.close()


def test_one_address_that_is_taken_gives_the_others_back() -> None:
    with socket.create_server(("127.0.0.1", free_port())) as other:
        port = other.getsockname()[1]
        with pytest.raises(ports.PortTaken, match=f"127.0.0.1:{port}: Address already in use.*--port"):
            ports.bound(["::1", "127.0.0.1"], port, "--port")
        for sock in ports.bound(["::1"], port, "--port"):
            sock.close()


def test_a_host_that_is_not_ours_names_its_flag() -> None:
    with pytest.raises(ports.PortTaken, match=r"no\.such\.host\.invalid.*--ops-host"):
        ports.check("no.such.host.invalid", 0, "--ops-port")
    with pytest.raises(ports.PortTaken, match=r"192\.0\.2\.1.*--host"):
        ports.check("192.0.2.1", 0, "--port")


def test_an_inherited_socket_listens_before_any_node_runs() -> None:
    (listener,) = ports.listen("127.0.0.1", 0, "--port", 16)
    with socket.create_connection(listener.getsockname()):
        pass
    listener.close()
