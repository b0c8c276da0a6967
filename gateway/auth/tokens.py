"""A JWT (RFC 7519) becomes a grant, or a reason why not. The signature is PyJWT's business."""

import re
from base64 import urlsafe_b64decode
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import jwt
import msgspec
from jwt.exceptions import (
    ExpiredSignatureError,
    ImmatureSignatureError,
    InvalidAudienceError,
    InvalidIssuerError,
    InvalidSignatureError,
    MissingRequiredClaimError,
    PyJWTError,
)

from gateway.auth.denied import Denied
from gateway.auth.jwks import Jwks
from gateway.auth.keys import ALGORITHMS, Key
from gateway.core.rights import BadRights, Rights
from gateway.core.user import BadUser, Grant, User
from gateway.settings.model import Settings

# What of PyJWT's means which reason; the rest is claims that can't be.
_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (ExpiredSignatureError, "token_expired"),
    (ImmatureSignatureError, "token_early"),
    (InvalidAudienceError, "token_audience"),
    (InvalidIssuerError, "token_issuer"),
)
# Whatever a token is made of, it is refused in words: a number may be too large, JSON too deep.
_BROKEN = (PyJWTError, ValueError, TypeError, OverflowError, RecursionError)
# RFC 7515 §7.1, and the padding that some issuers leave: head, payload, signature.
_JWS = re.compile(r"([\w-]+)={0,2}\.[\w-]+={0,2}\.[\w-]*={0,2}", re.ASCII)
_OPTIONS: Any = {"require": ["exp", "sub"], "enforce_minimum_key_length": True}


class _Claims(msgspec.Struct):
    sub: str
    exp: float
    name: str | None = None
    info: Any = None
    rooms: dict[str, str] | None = None
    iat: float | None = None
    jti: str | None = None


class Tokens:
    """Held against the keys of the settings, and against those of a URL, if there is one."""

    def __init__(self, settings: Settings, keys: list[Key], jwks: Jwks | None) -> None:
        self._audience = settings.token_audience
        self._issuer = settings.token_issuer
        self._leeway_s = settings.token_leeway_s
        self._rights = Rights.parse(settings.user_rights)
        self._keys = keys
        self._jwks = jwks

    async def grant(self, token: str) -> Grant:
        """What its bearer was given. Raises Denied."""
        algorithm, id = _head(token)
        return self._grant(self._claims(token, await self._fitting(algorithm, id)))

    async def _fitting(self, algorithm: object, id: object) -> list[Key]:
        """Keys that may have signed it. A `kid` that nobody knows may be new at the URL."""
        found = list(_fit(self._keys, algorithm, id))
        if self._jwks is not None and not found:
            found = list(_fit(await self._jwks.keys(), algorithm, id))
            if not found and algorithm in ALGORITHMS:
                found = list(_fit(await self._jwks.keys(missing=True), algorithm, id))
        if not found:
            raise Denied("token_key", f"no key here for a token of alg {str(algorithm)[:20]!r}, kid {str(id)[:50]!r}")
        return found

    def _claims(self, token: str, keys: list[Key]) -> dict[str, Any]:
        for key in keys:
            try:
                return jwt.decode(
                    token,
                    key.jwk,
                    algorithms=[key.algorithm],
                    audience=self._audience,
                    issuer=self._issuer,
                    leeway=self._leeway_s,
                    options=_OPTIONS,
                )
            except InvalidSignatureError:
                continue
            except _BROKEN as exc:
                raise _denied(exc) from None
        raise Denied("token_signature", "the token's signature is not by a key of this node")

    def _grant(self, claims: dict[str, Any]) -> Grant:
        try:
            said = msgspec.convert(claims, _Claims, strict=True)
            user = User(said.sub, said.name, msgspec.json.encode(said.info))
            rights = self._rights if said.rooms is None else Rights(said.rooms)
        except (msgspec.MsgspecError, BadUser, BadRights, *_BROKEN) as exc:
            raise Denied("token_claims", f"the token's claims: {exc}") from None
        return Grant(user, rights, said.exp + self._leeway_s, said.iat, said.jti)


def _head(token: str) -> tuple[object, object]:
    """Its `alg` and `kid`, which nobody has vouched for yet.

    Not PyJWT's get_unverified_header(): it takes the whole token apart, as its decode() does right behind (55 of 146 µs
    of a handshake, 2026-11).
    """
    said = None
    if (found := _JWS.fullmatch(token)) is not None:
        with suppress(msgspec.MsgspecError, *_BROKEN):
            said = msgspec.json.decode(urlsafe_b64decode(found[1] + "=="))
    if not isinstance(said, dict):
        raise Denied("token_malformed", "the token is no signed JWT")
    return said.get("alg"), said.get("kid")


def _fit(keys: Iterable[Key], algorithm: object, id: object) -> Iterable[Key]:
    return (key for key in keys if key.algorithm == algorithm and (id is None or key.id is None or key.id == id))


def _denied(exc: Exception) -> Denied:
    for kind, reason in _REASONS:
        if isinstance(exc, kind):
            return Denied(reason, f"the token: {exc}")
    if isinstance(exc, MissingRequiredClaimError) and exc.claim in ("aud", "iss"):
        return Denied("token_audience" if exc.claim == "aud" else "token_issuer", f"the token: {exc}")
    return Denied("token_claims", f"the token's claims: {exc}")
