"""Tokens as a site makes them, and keys that nobody else has."""

import base64
import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

SECRET = "the-secret-of-a-site-that-is-only-in-these-tests"
# Made once: an RSA key takes a while.
PRIVATE: dict[str, Any] = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
KEYS: dict[str, Any] = {"HS256": SECRET, **PRIVATE}


def public_pem(algorithm: str) -> str:
    encoding, format = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    pem: bytes = PRIVATE[algorithm].public_key().public_bytes(encoding, format)
    return pem.decode()


def public_jwk(key: Any, algorithm: str, id: str) -> dict[str, Any]:
    maker: Any = get_default_algorithms()[algorithm]
    return {**maker.to_jwk(key.public_key(), as_dict=True), "kid": id, "use": "sig"}


def token(algorithm: str = "HS256", *, key: Any = None, kid: str | None = None, **claims: Any) -> str:
    """For an hour, of user 7, unless `claims` say otherwise; a claim that is None is left out."""
    told = {"sub": "7", "exp": time.time() + 3600, **claims}
    headers = {} if kid is None else {"kid": kid}
    used = KEYS[algorithm] if key is None else key
    return jwt.encode({name: value for name, value in told.items() if value is not None}, used, algorithm, headers)


def forged(head: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    """One that no library would make."""
    parts = (json.dumps(head).encode(), json.dumps(claims).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def by(user: str, **claims: Any) -> dict[str, str]:
    """The headers with which this user comes to a node whose `token_keys` has `HS256:SECRET`."""
    return {"Authorization": f"Bearer {token(sub=user, **claims)}"}
