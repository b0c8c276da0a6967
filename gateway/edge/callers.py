"""Who is asking: the client's address behind trusted proxies, and whether a page may open a WebSocket here."""

from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network

from aiohttp import web

from gateway.core.forwarded import as_address, listed
from gateway.core.origins import OPAQUE, ORIGIN_CHARS_MAX, Origin, parse_origin
from gateway.settings.model import Settings

# Addresses and pages whose judgement is remembered: proxies and sites are few, unless somebody plays with us.
REMEMBERED_MAX = 1024


class NoOrigin(ValueError):
    """A header that should name an origin or a host names none. `args[0]` says which."""


class Callers:
    """Judges requests by `trusted_proxies`, `forwarded_only` and `allowed_origins`."""

    def __init__(self, settings: Settings) -> None:
        self._proxies = settings.trusted_proxies
        self._forwarded_only = settings.forwarded_only
        self._origins = frozenset(map(parse_origin, settings.allowed_origins))
        self._is_proxy = lru_cache(REMEMBERED_MAX)(self._judge_address)
        self._is_welcome = lru_cache(REMEMBERED_MAX)(self._judge_page)

    # ---- pages ----

    def may_come(self, request: web.Request) -> bool:
        """Whether the Origin is this host, listed, or no browser at all (RFC 6455 §10.2). Raises NoOrigin."""
        origin, host = request.headers.get("Origin"), request.host
        if origin is None:
            return True
        for header, value in (("Origin", origin), ("Host", host)):
            if len(value) > ORIGIN_CHARS_MAX:
                raise NoOrigin(f"{header} is too long")
        return self._is_welcome(origin, host, self.by_https(request))

    def _judge_page(self, origin: str, host: str, by_https: bool) -> bool:
        page = _parsed("Origin", origin)
        if page is OPAQUE:
            return False
        if not self._origins.isdisjoint((page, page.bare(), page._replace(scheme=""))):
            return True
        # A page that came by http may be anybody's on the way: it must not speak to who came by https. That a page of
        # https speaks to who came by http means only that TLS ends further out than the proxy which told us.
        return page.is_at(_parsed("Host", host)) and (page.scheme == "https" or not by_https)

    def by_https(self, request: web.Request) -> bool:
        """Whether a trusted proxy says that the client came so. False: it did not, or nobody says."""
        if self._proxy(request) is None:
            return False
        if self._writes_forwarded(request):
            schemes = [hop.get("proto", "") for hop in request.forwarded]
        else:
            schemes = listed(request.headers.getall("X-Forwarded-Proto", ()))
        return bool(schemes) and schemes[0].lower() == "https"

    # ---- addresses ----

    def peer(self, request: web.Request) -> str:
        """`address:port` of the client, `[address]:port` for IPv6; its address alone where a trusted proxy says so."""
        proxy = self._proxy(request)
        if proxy is not None:
            return self._client_behind(proxy, request)
        return shown(request.transport.get_extra_info("peername") if request.transport is not None else None)

    def address(self, request: web.Request) -> str:
        """Of the client, without a port; empty where it has none (a Unix socket)."""
        proxy = self._proxy(request)
        if proxy is not None:
            return self._client_behind(proxy, request)
        name = request.transport.get_extra_info("peername") if request.transport is not None else None
        return str(as_address(name[0])) if isinstance(name, tuple) else ""

    def customer(self, request: web.Request) -> str:
        """The client's address; of IPv6 the /64 that one customer has. "-": it has none."""
        address = as_address(self.address(request))
        if isinstance(address, IPv6Address):
            return str(IPv6Network((address, 64), strict=False))
        return str(address or "-")

    def _client_behind(self, proxy: str, request: web.Request) -> str:
        """From the right: what a trusted proxy saw is believed, what it was told is not.

        Where one of them hides its peer, or wrote nothing, it is the last that is known.
        """
        if self._writes_forwarded(request):
            hops = [hop.get("for", "") for hop in request.forwarded]
        else:
            hops = listed(request.headers.getall("X-Forwarded-For", ()))
        last = str(as_address(proxy))
        for hop in reversed(hops):
            address = as_address(hop)
            if address is None:
                break
            last = str(address)
            if not self._is_proxy(last):
                break
        return last

    def _proxy(self, request: web.Request) -> str | None:
        """The address of the trusted proxy at the other end; None: somebody else is there."""
        if not self._proxies or request.transport is None:
            return None
        name = request.transport.get_extra_info("peername")
        return name[0] if name and self._is_proxy(name[0]) else None

    def _writes_forwarded(self, request: web.Request) -> bool:
        """Which of the two headers the proxies write; the other one, if it is there, may be the client's invention."""
        return self._forwarded_only or ("Forwarded" in request.headers and "X-Forwarded-For" not in request.headers)

    def _judge_address(self, text: str) -> bool:
        address = as_address(text)
        return address is not None and any(address in network for network in self._proxies)


def shown(peername: object) -> str:
    """A socket's other end as log lines have it; "-" where it has no address (a Unix socket, or gone)."""
    if not isinstance(peername, tuple):
        return "-"
    host, port = peername[:2]
    if ":" in host:
        address = str(as_address(host))  # an IPv4 address on a dual-stack socket is one
        host = f"[{address}]" if ":" in address else address
    return f"{host}:{port}"


def _parsed(header: str, value: str) -> Origin:
    try:
        return parse_origin(value)
    except ValueError:
        raise NoOrigin(f"{header} names no {'origin' if header == 'Origin' else 'host'}") from None
