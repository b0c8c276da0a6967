"""URLs as settings have them: the broker's, checked; origins, checked; any, with its password masked."""

import re
from urllib.parse import urlsplit

_NOT_YET = ("redis+sentinel", "redis+cluster")
_USERINFO = re.compile(r"://(?:(?!://)\S)*@")
_QUERY_PASSWORD = re.compile(r"([?&]password=)[^&#\s]*", re.IGNORECASE)


def masked(text: str) -> str:
    """`text` with the password of every URL in it as `***`; text without a URL comes back as it is.

    The user's name stays (`redis://app:***@host`); a userinfo without a colon may be a password and goes
    whole. Costs one scan: a userinfo ends at white space or at the next `://` (`check_broker_url` refuses
    both inside one), so no input makes it quadratic.
    """
    if "://" not in text:
        return text
    return _QUERY_PASSWORD.sub(r"\1***", _USERINFO.sub(_hide, text))


def _hide(found: re.Match[str]) -> str:
    user, colon, _ = found[0].removeprefix("://").partition(":")
    return f"://{user}:***@" if colon else "://***@"


def check_broker_url(url: str) -> str:
    """`url` unchanged, or ValueError in words that hold nothing of it."""
    scheme, sep, rest = url.partition("://")
    scheme = scheme.lower()
    if scheme in _NOT_YET:
        raise ValueError(f"this version can't speak {scheme}://; name one server with redis://, rediss:// or unix://")
    if scheme not in ("redis", "rediss", "unix") or not sep:
        raise ValueError("must begin with redis://, rediss:// or unix://")
    if any(char.isspace() for char in url):
        raise ValueError("holds white space: write it as %20")
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    if scheme != "unix" and "@" in rest.removeprefix(authority):
        raise ValueError("has a '/', '?' or '#' in its user or password: write it as %2F, %3F or %23")
    try:
        parts = urlsplit(url)
        host, path, _ = parts.hostname, parts.path, parts.port
    except ValueError:  # its text may quote the password
        raise ValueError("is not a URL: look at the host, the port and the brackets of an IPv6 address") from None
    if scheme == "unix":
        if not path.startswith("/") or parts.netloc.rpartition("@")[2]:
            raise ValueError("must name an absolute path: unix:///run/valkey.sock")
    elif not host:
        raise ValueError(f"must name a host: {scheme}://host:6379/0")
    return url


def check_origin(origin: str) -> str:
    """`origin` in lower case: `https://host[:port]`, or `host[:port]` for any scheme. Else ValueError."""
    parts = urlsplit(origin if "://" in origin else f"//{origin}")
    if not parts.hostname or parts.path or parts.query or parts.fragment or "@" in origin or "*" in origin:
        raise ValueError("is not an origin: write https://chat.example.org or chat.example.org:8443")
    return origin.lower()
