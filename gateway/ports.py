"""Ports that `hiroba up` needs: free, or the sentence that says which is not and what flag moves it."""

import socket

Address = tuple[str, int] | tuple[str, int, int, int]

# Handshakes that wait in the kernel while the loop is busy (listen(2)), which cuts it to net.core.somaxconn.
BACKLOG = 4096


class PortTaken(RuntimeError):
    """Nobody can listen there. `args[0]` names the port and the flag."""


def hold(host: str, port: int, flag: str) -> list[socket.socket]:
    """Sockets bound to `port` (0: any free one, the same for all) on every address of `host`.

    They take no connection, for they don't listen; but nobody else can have the port while our nodes are down,
    and whoever binds with SO_REUSEPORT as the same user, our nodes, joins them (socket(7)). Raises PortTaken.
    """
    check(host, port, flag)
    held: list[socket.socket] = []
    for family, found in _addresses(host, port, flag):
        address = _with_port(found, port)
        try:
            # Without SO_REUSEADDR: two sockets that have it, and don't listen, may share a port with anybody.
            sock = _bound(family, address, flag, socket.SO_REUSEPORT)
        except PortTaken:
            # Free, as was checked, but for another program's connections in TIME_WAIT: held a little less well.
            sock = _bound(family, address, flag, socket.SO_REUSEPORT, socket.SO_REUSEADDR)
        held.append(sock)
        port = held[0].getsockname()[1]
    return held


def listen(host: str, port: int, flag: str, backlog: int) -> list[socket.socket]:
    """One listening socket, on the first address of `host`, for several processes. Raises PortTaken."""
    family, address = _addresses(host, port, flag)[0]
    # SO_REUSEADDR: connections of a former run that linger in TIME_WAIT are no reason to refuse.
    listener = _bound(family, address, flag, socket.SO_REUSEADDR)
    listener.listen(backlog)
    return [listener]


def free(host: str, flag: str) -> int:
    """A port of `host` that nobody has at this moment. Raises PortTaken."""
    family, address = _addresses(host, 0, flag)[0]
    with _bound(family, address, flag) as sock:
        return int(sock.getsockname()[1])


def check(host: str, port: int, flag: str) -> None:
    """Raises PortTaken unless one could listen on all of `host`, alone, without SO_REUSEPORT."""
    for family, address in _addresses(host, port, flag):
        _bound(family, address, flag, socket.SO_REUSEADDR).close()


def _addresses(host: str, port: int, flag: str) -> list[tuple[int, Address]]:
    try:
        # Blocking, but before anything runs; the loop's own way would leave a thread behind, and we fork.
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as exc:
        where = flag.replace("port", "host")
        raise PortTaken(f"cannot listen on {host}: {exc.strerror or exc}; choose another with {where}") from exc
    return list(dict.fromkeys((int(family), address) for family, _, _, _, address in found))  # type: ignore[misc]


def _with_port(address: Address, port: int) -> Address:
    return (address[0], port) if len(address) == 2 else (address[0], port, address[2], address[3])


def _bound(family: int, address: Address, flag: str, *options: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    for option in options:
        sock.setsockopt(socket.SOL_SOCKET, option, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        sock.bind(address)
    except OSError as exc:
        sock.close()
        where, why = f"{address[0]}:{address[1]}", exc.strerror or exc
        raise PortTaken(f"cannot listen on {where}: {why}; choose another with {flag}") from exc
    return sock
