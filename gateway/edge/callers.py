"""Who is asking: the client's address behind trusted proxies, and whether a page may open a WebSocket here."""

from ipaddress import ip_address
from urllib.parse import urlsplit

from aiohttp import web

from gateway.config import Settings


class Callers:
    """Judges requests by `trusted_proxies` and `allowed_origins`."""

    def __init__(self, settings: Settings) -> None:
        self._proxies = settings.trusted_proxies
        self._origins = frozenset(settings.allowed_origins)

    def may_come(self, request: web.Request) -> bool:
        """Whether the Origin is this host, listed, or no browser at all (RFC 6455 §10.2)."""
        origin = request.headers.get("Origin")
        if origin is None:
            return True
        origin = origin.lower()
        host = urlsplit(origin).netloc
        return bool(host) and (host == request.host.lower() or not self._origins.isdisjoint((origin, host)))

    def peer(self, request: web.Request) -> str:
        """`address:port` of the client; its address alone where a trusted proxy's X-Forwarded-For says so."""
        name = request.transport.get_extra_info("peername") if request.transport is not None else None
        if not name:
            return "-"
        if self._proxies and self._trusted(name[0]):
            forwarded = [part.strip() for part in request.headers.get("X-Forwarded-For", "").split(",")]
            # From the right: what a trusted proxy saw is believed, what a client wrote left of it is not.
            return next((address for address in reversed(forwarded) if address and not self._trusted(address)), name[0])
        return f"{name[0]}:{name[1]}"

    def _trusted(self, address: str) -> bool:
        try:
            ip = ip_address(address)
        except ValueError:
            return False
        return any(ip in network for network in self._proxies)
