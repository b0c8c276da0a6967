"""Ports that `hiroba up` needs: free, or the sentence that says which is not and what flag moves it."""

import errno
import socket
from collections.abc import Sequence

Address = tuple[str, int] | tuple[str, int, int, int]
# One, or several.
Hosts = str | Sequence[str]

# Handshakes that wait in the kernel while the loop is busy (listen(2)), which cuts it to net.core.somaxconn.
BACKLOG = 4096


class PortTaken(RuntimeError):
    """Nobody can listen there. `args[0]` names the port and the flag."""


def bound(hosts: Hosts, port: int, flag: str, *, shared: bool = False) -> list[socket.socket]:
    """Sockets on `port` (0: any free one, the same for all) of every address, for one process to listen on.

    `shared`: with others of the same user, by SO_REUSEPORT. Raises PortTaken.
    """
    # SO_REUSEADDR: connections of a former run that linger in TIME_WAIT are no reason to refuse.
    return _on_all(hosts, port, flag, socket.SO_REUSEADDR, *([socket.SO_REUSEPORT] if shared else []))


def hold(hosts: Hosts, port: int, flag: str) -> list[socket.socket]:
    """Sockets bound to `port` (0: any free one, the same for all) on every address of `hosts`.

    They take no connection, for they don't listen; but nobody else can have the port while our nodes are down,
    and whoever binds with SO_REUSEPORT as the same user, our nodes, joins them (socket(7)). Raises PortTaken.
    """
    check(hosts, port, flag)
    try:
        # Without SO_REUSEADDR: two sockets that have it, and don't listen, may share a port with anybody.
        return _on_all(hosts, port, flag, socket.SO_REUSEPORT)
    except PortTaken:
        # Free, as was checked, but for another program's connections in TIME_WAIT: held a little less well.
        return _on_all(hosts, port, flag, socket.SO_REUSEPORT, socket.SO_REUSEADDR)


def listen(hosts: Hosts, port: int, flag: str, backlog: int) -> list[socket.socket]:
    """Listening sockets on every address of `hosts`, for several processes. Raises PortTaken."""
    listeners = bound(hosts, port, flag)
    for listener in listeners:
        listener.listen(backlog)
    return listeners


def free(hosts: Hosts, flag: str) -> int:
    """A port that nobody has at this moment on any address of `hosts`. Raises PortTaken."""
    socks = _on_all(hosts, 0, flag)
    port = int(socks[0].getsockname()[1])
    for sock in socks:
        sock.close()
    return port


def check(hosts: Hosts, port: int, flag: str) -> None:
    """Raises PortTaken unless one could listen on all of `hosts`, alone, without SO_REUSEPORT."""
    for sock in bound(hosts, port, flag):
        sock.close()


def _on_all(hosts: Hosts, port: int, flag: str, *options: int) -> list[socket.socket]:
    socks: list[socket.socket] = []
    try:
        for family, address in _addresses(hosts, port, flag):
            socks.append(_bound(family, _with_port(address, port), flag, *options))
            port = socks[0].getsockname()[1]
    except PortTaken:
        for sock in socks:
            sock.close()
        raise
    return socks


def _addresses(hosts: Hosts, port: int, flag: str) -> list[tuple[int, Address]]:
    """Each once. `::` means all there are, of IPv4 too: a socket for each, so that no IPv4 address looks like IPv6."""
    named = [hosts] if isinstance(hosts, str) else hosts
    found: list[tuple[int, Address]] = []
    for host in (*named, *(["0.0.0.0"] if "::" in named else [])):
        try:
            # Blocking, but before anything runs; the loop's own way would leave a thread behind, and we fork.
            infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except OSError as exc:
            raise PortTaken(f"cannot listen on {host}: {exc.strerror or exc}; {_choose(flag, host=True)}") from exc
        found += [(int(family), address) for family, _, _, _, address in infos]  # type: ignore[misc]
    return list(dict.fromkeys(found))


def shown(address: Address) -> str:
    """As a URL has it: `127.0.0.1:8000`, `[::1]:8000`."""
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


def _choose(flag: str, host: bool) -> str:
    return f"choose another with {flag.replace('port', 'host') if host else flag}"


def _with_port(address: Address, port: int) -> Address:
    return (address[0], port) if len(address) == 2 else (address[0], port, address[2], address[3])


def _bound(family: int, address: Address, flag: str, *options: int) -> socket.socket:
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as exc:  # no IPv6 here
        raise PortTaken(f"cannot listen on {address[0]}: {exc.strerror}; {_choose(flag, host=True)}") from exc
    for option in options:
        sock.setsockopt(socket.SOL_SOCKET, option, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        sock.bind(address)
    except OSError as exc:
        sock.close()
        elsewhere = _choose(flag, host=exc.errno == errno.EADDRNOTAVAIL)
        raise PortTaken(f"cannot listen on {shown(address)}: {exc.strerror or exc}; {elsewhere}") from exc
    return sock
