"""A server's URL, checked before anybody connects: what it may say. Errors are in words that hold no password of it."""

import re
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from urllib.parse import parse_qsl, urlsplit

SCHEMES = ("redis", "rediss", "unix")

# Whether a value is right, and what is said of one that is not.
_Rule = tuple[Callable[[str], bool], str]


def _one_of(*words: str) -> _Rule:
    return words.__contains__, f"must be {', '.join(words[:-1])} or {words[-1]}"


_ANY: _Rule = (bool, "is empty")
_NUMBER: _Rule = (lambda value: value.isascii() and value.isdigit(), "must be a number")

# What may follow the '?', as redis-py takes it.
_LOGIN = {"db": _NUMBER, "username": _ANY, "password": _ANY}
_TLS = {
    "ssl_ca_certs": _ANY,
    "ssl_ca_path": _ANY,
    "ssl_ca_data": _ANY,
    "ssl_certfile": _ANY,
    "ssl_keyfile": _ANY,
    "ssl_password": _ANY,
    "ssl_cert_reqs": _one_of("none", "optional", "required"),
    "ssl_check_hostname": _one_of("true", "false"),
    # As OpenSSL numbers them: TLS 1.2 and 1.3.
    "ssl_min_version": _one_of("771", "772"),
    "ssl_ciphers": _ANY,
}


def check_server_url(url: str, beside: tuple[str, ...] = ()) -> str:
    """`url` of one server, unchanged; or ValueError, which tells all that is wrong behind its '?'.

    `beside`: options that somebody took out of it before.
    """
    scheme, sep, _ = url.partition("://")
    scheme = scheme.lower()
    if scheme not in SCHEMES or not sep:
        raise ValueError("must begin with redis://, rediss:// or unix://")
    check_spelling(url)
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
    elif not re.fullmatch("/?[0-9]*", path):
        raise ValueError(f"must name a database by its number: {scheme}://host:6379/0")
    wrong = "; ".join(_wrong_options(scheme, parts.query, beside))
    if wrong:
        raise ValueError(wrong)
    return url


def check_spelling(url: str) -> None:
    """Raises ValueError for characters that must be written as %… where they stand."""
    scheme, _, rest = url.partition("://")
    if any(char.isspace() for char in url):
        raise ValueError("holds white space: write it as %20")
    if scheme.lower() != "unix" and "@" in rest.removeprefix(re.split("[/?#]", rest, maxsplit=1)[0]):
        raise ValueError("has a '/', '?' or '#' in its user or password: write it as %2F, %3F or %23")
    if "#" in rest:
        raise ValueError("has a '#': write it as %23")


def _wrong_options(scheme: str, query: str, beside: tuple[str, ...]) -> Iterator[str]:
    try:
        options = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        yield "is not a URL: look at what follows the '?'"
        return
    known = _LOGIN | (_TLS if scheme == "rediss" else {})
    for number, (name, value) in enumerate(options):
        if name not in known:
            # What is no name may be the end of a password with a '&' in it.
            secret = any(before.endswith("password") for before, _ in options[:number])
            yield _unknown(scheme, "something" if secret else name, [*known, *beside])
        elif not known[name][0](value):
            yield f"{name} {known[name][1]}"
        elif name in dict(options[:number]):
            yield f"says {name} twice"


def _unknown(scheme: str, name: str, known: list[str]) -> str:
    if name in _TLS or name in ("ssl", "tls"):
        return f"says {name}, which belongs to rediss://"
    nearest = get_close_matches(name, known, n=1)
    words = f"the nearest is {nearest[0]}" if nearest else f"there are {', '.join(known)}"
    return f"says {name[:40]}, which is no option of {scheme}://: {words}"
