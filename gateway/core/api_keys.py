"""Keys of the HTTP API: how one is made, what is kept of it, and what it opens. Pure.

A key is 256 random bits, so that its SHA-256 tells nobody what it was: a slow hash is for what people choose, and would
cost each request milliseconds.
"""

import re
from collections.abc import Collection
from enum import StrEnum
from hashlib import sha256
from hmac import compare_digest

import msgspec

NAME_CHARS_MAX = 64
# `hiroba_`, the id, which is no secret, and 32 random bytes in base64url.
_KEY = re.compile(r"hiroba_([0-9a-f]{8})_[\w-]{43}\Z", re.ASCII)


class Scope(StrEnum):
    """What a key opens."""

    PUBLISH = "publish"
    READ = "read"
    MODERATE = "moderate"
    # All of it.
    ADMIN = "admin"


class BadKey(ValueError):
    """No such key can be made. `args[0]` says why."""


class ApiKey(msgspec.Struct, frozen=True):
    """What the broker keeps of a key."""

    id: str
    name: str
    scopes: tuple[Scope, ...]
    # SHA-256 of the key, in hexadecimal digits.
    digest: str
    # Unix seconds, and who made it.
    made_at: int
    made_by: str

    def opens(self, scope: Scope) -> bool:
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def fits(self, key: str) -> bool:
        """Takes as long whatever is wrong with it."""
        return compare_digest(self.digest, digest_of(key))


def digest_of(key: str) -> str:
    return sha256(key.encode()).hexdigest()


def id_in(key: str) -> str | None:
    """Of what looks like a key; None: it looks like none."""
    found = _KEY.match(key)
    return found[1] if found else None


def key_of(id: bytes, secret: str) -> str:
    """`id`: 4 bytes, `secret`: 32 in base64url."""
    return f"hiroba_{id.hex()}_{secret}"


def scopes_of(names: Collection[str]) -> tuple[Scope, ...]:
    """Raises BadKey."""
    try:
        scopes = tuple(dict.fromkeys(map(Scope, names)))
    except ValueError:
        raise BadKey(f"scopes are {', '.join(Scope)}") from None
    if not scopes:
        raise BadKey(f"a key without a scope opens nothing: {', '.join(Scope)}")
    return scopes


def check_name(name: str) -> str:
    """Raises BadKey."""
    if not 0 < len(name) <= NAME_CHARS_MAX or not name.isprintable():
        raise BadKey(f"a key's name has 1 to {NAME_CHARS_MAX} characters that can be printed")
    return name
