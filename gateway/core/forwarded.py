"""What proxies write about whom they forward for. Only its form is read here; whose word counts is the edge's."""

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address

Address = IPv4Address | IPv6Address

# `192.0.2.1:4711`, `[2001:db8::1]`, `[2001:db8::1]:4711`: an address with brackets or a port is an address.
_WITH_PORT = re.compile(r"(?:\[(?P<v6>[^]]*)\]|(?P<v4>[\d.]+))(?::[\w.-]+)?\Z")


def as_address(text: str) -> Address | None:
    """The address that a node of X-Forwarded-For or of `for=` (RFC 7239 §6) names, its port left out.

    An IPv4 address on a dual-stack socket (`::ffff:192.0.2.1`, RFC 4291 §2.5.5.2) is an IPv4 address. None: `unknown`,
    a name that hides one (`_proxy1`), or no address at all.
    """
    text = text.strip().strip('"')
    found = _WITH_PORT.match(text)
    try:
        address = ip_address((found["v6"] or found["v4"]) if found else text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def listed(lines: Iterable[str]) -> list[str]:
    """The members of a field that may come in several lines: they are one list (RFC 9110 §5.3, §5.6.1)."""
    return [part.strip() for line in lines for part in line.split(",") if part.strip()]
