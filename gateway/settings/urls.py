"""URLs as settings have them: the broker's, checked; origins, checked; any, with its password masked."""

import re
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from broker_config.urls import SCHEMES, check_server_url, check_spelling
from gateway.core.origins import OPAQUE, parse_origin

_SENTINEL = "redis+sentinel"
_SENTINEL_PORT = 26379
_SCHEMES = "redis://, rediss://, unix:// or redis+sentinel://"
_NOT_YET = {
    "redis+cluster": f"this version can't speak redis+cluster://; name one server or its sentinels: {_SCHEMES}",
    "rediss+sentinel": "this version can't speak rediss+sentinel://; where TLS is a must, "
    "name an address that follows the master with rediss://",
}
# What an Origin never begins with: a page's scheme is http or https, whatever it opens.
_NO_PAGES = {"ws", "wss", "file", "ftp"}
_USERINFO = re.compile(r"://(?:(?!://)\S)*@")
_QUERY_PASSWORD = re.compile(r"([?&](?:sentinel_|ssl_)?password=)[^&#\s]*", re.IGNORECASE)

# A JWT as libraries make it (it begins with `{"` in base64url), a secret as `token_keys` has it, and a key of the API
# behind its id.
_SECRET = re.compile(r"(eyJ)[\w-]+\.[\w.-]*|(HS256:)(?!@)[^,\s'\"\]]+|(hiroba_[0-9a-f]{8}_)[\w-]+")
# One that begins in another way, with a space say: three parts, of which HS256 has the shortest signature.
_SIGNED = re.compile(r"(?<![\w-])[\w-]{12,}+\.[\w-]{12,}+\.[\w-]{43,}", re.ASCII)
_SIGNED_CHARS_MIN = 12 + 1 + 12 + 1 + 43


def masked(text: str) -> str:
    """`text` with the password of every URL in it as `***`, every JWT and every secret of `token_keys`.

    The user's name stays (`redis://app:***@host`); a userinfo without a colon may be a password and goes
    whole. Costs one scan: a userinfo ends at white space or at the next `://` (`check_broker_url` refuses
    both inside one), so no input makes it quadratic.
    """
    if len(text) >= _SIGNED_CHARS_MIN and "." in text:
        text = _SIGNED.sub("***", text)
    if "eyJ" in text or "HS256:" in text or "hiroba_" in text:
        text = _SECRET.sub(lambda found: f"{found[1] or found[2] or found[3]}***", text)
    if "://" not in text:
        return text
    return _QUERY_PASSWORD.sub(r"\1***", _USERINFO.sub(_hide, text))


def _hide(found: re.Match[str]) -> str:
    user, colon, _ = found[0].removeprefix("://").partition(":")
    return f"://{user}:***@" if colon else "://***@"


def check_broker_url(url: str) -> str:
    """`url` unchanged, or ValueError in words that hold no password of it."""
    scheme, sep, _ = url.partition("://")
    scheme = scheme.lower()
    if scheme in _NOT_YET:
        raise ValueError(_NOT_YET[scheme])
    if scheme not in (*SCHEMES, _SENTINEL) or not sep:
        raise ValueError(f"must begin with {_SCHEMES}")
    if scheme != _SENTINEL:
        return check_server_url(url)
    check_spelling(url)
    check_server_url(sentinel_url(url).broker_url, ("sentinel_username", "sentinel_password"))
    return url


class SentinelUrl(NamedTuple):
    """What `redis+sentinel://[user:password@]host:port,…/service[/db][?…]` says."""

    sentinels: tuple[tuple[str, int], ...]
    service: str
    # How to come into whichever server is the master, as a redis:// URL; its host means nothing.
    broker_url: str
    # `?sentinel_username=…&sentinel_password=…`: at the sentinels. None: they ask nobody.
    sentinel_username: str | None
    sentinel_password: str | None


def is_sentinel_url(url: str) -> bool:
    return url.partition("://")[0].lower() == _SENTINEL


def sentinel_url(url: str) -> SentinelUrl:
    """The parts of a redis+sentinel:// URL, or ValueError in words that hold nothing of it."""
    try:
        parts = urlsplit(url)
        userinfo, at, hosts = parts.netloc.rpartition("@")
        sentinels = tuple(_host_port(host) for host in hosts.split(",") if host)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:  # its text may quote the password
        raise ValueError("is not a URL: look at the hosts, their ports and what follows the '?'") from None
    service, _, db = parts.path.removeprefix("/").partition("/")
    if not sentinels or not service or (db and not (db.isascii() and db.isdigit())):
        raise ValueError("must name sentinels and a service: redis+sentinel://host:26379,host:26379/SERVICE[/DB]")
    username, password = options.pop("sentinel_username", None), options.pop("sentinel_password", None)
    broker_url = f"redis://{userinfo}{at}master/{db or 0}?{urlencode(options)}"
    return SentinelUrl(sentinels, unquote(service), broker_url, username, password)


def _host_port(host: str) -> tuple[str, int]:
    parts = urlsplit(f"//{host}")
    if not parts.hostname:
        raise ValueError("no host")
    return parts.hostname, parts.port or _SENTINEL_PORT


# What a node serves at its root: a prefix that begins like one of these could not be told from it.
_OWN_PATHS = ("chat", "guest", "healthz", "me", "sse", "static", "streams", "ws")


def check_login_url(url: str) -> str:
    """`url` unchanged, or ValueError: where a page of ours sends its reader, on this host or another one."""
    on_this_host = url.startswith("/") and not url.startswith(("//", "/\\"))
    if not on_this_host:
        return check_http_url(url)
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("must be a path or URL, with what is no ASCII percent-encoded")
    return url


def check_http_url(url: str) -> str:
    """`url` unchanged, or ValueError: another server that this one asks."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("must be a URL that begins with http:// or https://")
    if "@" in parts.netloc:
        raise ValueError("must hold neither user nor password")
    return url


def check_token_key(text: str) -> str:
    """`text` unchanged, or ValueError in words that hold nothing of it. What is in files is looked at later."""
    algorithm, colon, secret = text.partition(":")
    if colon and algorithm == "HS256" and (secret.startswith("@") or len(secret.encode()) >= 32):
        return text
    if colon and algorithm == "HS256":
        raise ValueError("has a secret of less than 32 bytes: openssl rand -hex 32")
    if text.startswith("@") or "BEGIN PUBLIC KEY" in text:
        return text
    raise ValueError(
        "must be HS256:SECRET, HS256:@FILE, @FILE (public key in PEM, JWK or JWK set) or a public key in PEM"
    )


def check_base_path(path: str) -> str:
    """`path` as `/talk`, without its last slash; `/` is empty. Else ValueError."""
    parts = path.strip("/").split("/")
    if parts == [""]:
        return ""
    if not all(re.fullmatch(r"[\w.~-]+", part, re.ASCII) and part.strip(".") for part in parts):
        raise ValueError("must be a path of letters, digits and -._~ only: /talk")
    if parts[0] in _OWN_PATHS:
        raise ValueError(f"begins with /{parts[0]}, an address that hiroba has already: take another, such as /talk")
    return "/" + "/".join(parts)


def check_origin(text: str) -> str:
    """`text` in lower case: `https://host[:port]`, or `host[:port]` for any scheme. ValueError: no page has it."""
    origin = text.lower()
    try:
        parsed = parse_origin(origin)
    except ValueError:
        parsed = OPAQUE
    if parsed.scheme in _NO_PAGES:
        raise ValueError(f"can match no page: write https:// for {parsed.scheme}://, as browsers do")
    if origin == "null":
        raise ValueError("can't be told from any other: every sandboxed page and every file has the origin null")
    if not origin.isascii():
        raise ValueError("can match no page: browsers send its host in ASCII, as xn--…")
    if parsed is OPAQUE or parsed.port == 0:
        raise ValueError("is not an origin: write https://chat.example.org or chat.example.org:8443")
    return origin
