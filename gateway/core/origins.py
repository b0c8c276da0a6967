"""Web origins (RFC 6454): who a page is, as (scheme, host, port). Which of them may come is the edge's."""

import re
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

# 253 for a host (RFC 1035), with scheme and port to spare: no browser sends more.
ORIGIN_CHARS_MAX = 300

_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9._-]+\Z")


class Origin(NamedTuple):
    """`https://h` and `https://h:443` are one: the port is the scheme's where none is written.

    `scheme` is "" where only `host[:port]` was written, and `port` None where neither says it.
    """

    scheme: str
    host: str
    port: int | None

    def bare(self) -> "Origin":
        """As `host[:port]` names it, whatever its scheme."""
        default = self.port == _DEFAULT_PORTS.get(self.scheme)
        return Origin("", self.host, None if default else self.port)

    def is_at(self, host: "Origin") -> bool:
        """Whether this is the page's own: `host` is the Host that the request was sent to, without a scheme."""
        default = _DEFAULT_PORTS.get(self.scheme)
        return default is not None and (self.host, self.port) == (host.host, host.port or default)


# A URL, but no page's origin: `null` (a sandboxed page, a file), one with a path, a user, a port that is no number.
OPAQUE = Origin("null", "", None)


def parse_origin(text: str) -> Origin:
    """What `scheme://host[:port]` or `host[:port]` names; OPAQUE for another URL. ValueError: it is none at all."""
    if len(text) > ORIGIN_CHARS_MAX:
        raise ValueError("longer than any origin")
    parts = urlsplit(text if "://" in text else f"//{text}")
    host = parts.hostname
    if not host or parts.path or parts.query or parts.fragment or "@" in text or text == "null":
        return OPAQUE
    try:
        port = parts.port
    except ValueError:
        return OPAQUE
    return Origin(parts.scheme, _host(host), _DEFAULT_PORTS.get(parts.scheme) if port is None else port)


def _host(host: str) -> str:
    """An IPv6 address in its one short form (RFC 5952), as browsers write it; a name in ASCII, as they send it."""
    if ":" in host:
        return str(ip_address(host))
    if not _HOST.match(host):
        raise ValueError("holds what no host has")
    return host
