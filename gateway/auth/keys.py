"""The keys that tokens are held against: from settings, files and JWK sets. A key has one algorithm, and no token
can choose another for it (RFC 8725 §3.1)."""

import base64
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from jwt import PyJWK
from jwt.algorithms import get_default_algorithms
from jwt.exceptions import PyJWTError

# By what its key is: a shared secret, RSA, P-256, Ed25519.
ALGORITHMS = ("HS256", "RS256", "ES256", "EdDSA")
# RFC 7518 §3.2: at least as long as the hash.
SECRET_BYTES_MIN = 32
# A token is held against each that may fit.
KEYS_MAX = 32


class BadKey(ValueError):
    """No key that we take: `args[0]` says why, and holds nothing of it."""


class Key(NamedTuple):
    """`id`: its `kid`; None: it may be any token's."""

    id: str | None
    jwk: PyJWK

    @property
    def algorithm(self) -> str:
        return self.jwk.algorithm_name

    def __repr__(self) -> str:
        return f"Key({self.id!r}, {self.algorithm})"


def keys_of(settings: Iterable[str]) -> list[Key]:
    """As `token_keys` has them, files read. Raises BadKey."""
    keys = [key for text in settings for key in _keys_of(text)]
    if len(keys) > KEYS_MAX:
        raise BadKey(f"there are more than {KEYS_MAX} keys")
    return keys


def _keys_of(text: str) -> list[Key]:
    algorithm, colon, secret = text.partition(":")
    if colon and algorithm == "HS256":
        return [secret_key(_read(secret[1:]).strip() if secret.startswith("@") else secret.encode())]
    if not text.startswith("@"):
        return [_pem_key(text.replace("\\n", "\n").encode())]
    body = _read(text[1:]).strip()
    try:
        if body.startswith(b"{"):
            return keys_in(json.loads(body))
        return [_pem_key(body)]
    except ValueError as exc:
        raise BadKey(f"{text[1:]}: {exc.args[0] if isinstance(exc, BadKey) else 'it is no JSON'}") from None


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as exc:
        raise BadKey(f"{path} can't be read: {exc.strerror}") from None


def secret_key(secret: bytes) -> Key:
    """Of HS256. Raises BadKey."""
    if len(secret) < SECRET_BYTES_MIN:
        raise BadKey(f"a secret of HS256 has at least {SECRET_BYTES_MIN} bytes: openssl rand -hex 32")
    return Key(None, PyJWK({"kty": "oct", "k": base64.urlsafe_b64encode(secret).decode().rstrip("=")}, "HS256"))


def _pem_key(pem: bytes) -> Key:
    """Of RS256, ES256 or EdDSA, by what it is. Never a secret of HS256, whatever it looks like."""
    if b"PRIVATE KEY" in pem:
        raise BadKey("a private key has no business on a node: give it the public one")
    try:
        public = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise BadKey("it is no public key in PEM (-----BEGIN PUBLIC KEY-----)") from None
    for name in ALGORITHMS[1:]:
        algorithm: Any = get_default_algorithms()[name]
        try:
            return _checked(algorithm.to_jwk(algorithm.prepare_key(public), as_dict=True), name)
        except (PyJWTError, TypeError, ValueError, AttributeError):
            continue
    raise BadKey("it is neither RSA of 2,048 bits, nor P-256, nor Ed25519")


def keys_in(document: Any, *, secrets: bool = True) -> list[Key]:
    """Those of a JWK set, or the one of a JWK, that can sign what we take (RFC 7517). `secrets`: of HS256 too.

    Others in it are passed over, as the RFC asks (§5). Raises BadKey where there is none at all.
    """
    listed = document.get("keys", [document]) if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise BadKey("it is no JWK set")
    keys: list[Key] = []
    for one in listed[: 4 * KEYS_MAX]:
        if isinstance(one, dict) and one.get("use", "sig") == "sig" and (secrets or one.get("kty") != "oct"):
            try:
                keys.append(_checked(one, one.get("alg")))
            except (PyJWTError, TypeError, ValueError, AttributeError):
                continue
    if not keys:
        raise BadKey(
            "it has no key of HS256, RS256, ES256 or EdDSA" if secrets else "it has no public key that we take"
        )
    return keys[:KEYS_MAX]


def _checked(jwk: Mapping[str, Any], algorithm: str | None) -> Key:
    public = {name: value for name, value in jwk.items() if name != "d"}
    key, id = PyJWK(public, algorithm), jwk.get("kid")
    if key.algorithm_name not in ALGORITHMS or key.Algorithm.check_key_length(key.key):
        raise BadKey("not one of ours")
    if key.algorithm_name == "ES256" and key.key.curve.name != "secp256r1":
        raise BadKey("not one of ours")
    return Key(id if isinstance(id, str) else None, key)
