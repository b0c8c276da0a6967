"""A token for each user, for a server that lets nobody else in: made here, with a key that it takes (RFC 7519)."""

from __future__ import annotations

import time
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from loadtest.spec import BadSpec

# Longer than any run.
LIFE_S = 7 * 86_400
# RFC 7518 section 3.2.
SECRET_BYTES_MIN = 32


class Tokens:
    """Of the users of one run: their ids are their numbers, behind the run's name."""

    def __init__(self, file: Path, claims: tuple[tuple[str, str], ...], run: str) -> None:
        """`file`: a secret of HS256, or a private key in PEM. `claims`: beside those of each user. Raises BadSpec."""
        self._algorithm, self._key = _key(file)
        self._claims = dict(claims)
        self._run = run

    def of(self, user: int | str) -> str:
        now = int(time.time())
        claims = {"sub": f"load-{self._run}-{user}", "name": f"Load {user}", "iat": now, "exp": now + LIFE_S}
        return jwt.encode(claims | self._claims, self._key, self._algorithm)


def _key(file: Path) -> tuple[str, bytes | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey]:
    try:
        text = file.read_bytes().strip()
    except OSError as exc:
        raise BadSpec(f"--token-key {file} can't be read: {exc.strerror}") from None
    if b"PRIVATE KEY" not in text:
        if len(text) < SECRET_BYTES_MIN:
            raise BadSpec(f"--token-key {file}: a secret of HS256 has at least {SECRET_BYTES_MIN} bytes")
        return "HS256", text
    try:
        key = load_pem_private_key(text, None)
    except (ValueError, TypeError):
        raise BadSpec(f"--token-key {file} is no private key in PEM without a password") from None
    if isinstance(key, rsa.RSAPrivateKey):
        return "RS256", key
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return "ES256", key
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "EdDSA", key
    raise BadSpec(f"--token-key {file} is neither RSA, nor P-256, nor Ed25519")
