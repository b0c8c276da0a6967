"""`hiroba token`: make one, or say what one is and whether a node with these settings lets its bearer in."""

import argparse
import asyncio
import base64
import json
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from jwt.exceptions import PyJWTError

from gateway.auth.auth import Auth, Credentials
from gateway.auth.denied import Denied
from gateway.auth.keys import ALGORITHMS, BadKey, keys_of
from gateway.core.rights import BadRights, Rights
from gateway.core.user import BadUser, User
from gateway.settings.model import Settings, SettingsError
from gateway.telemetry.metrics import Metrics

Load = Callable[[str | None], Settings]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message}; `{self.prog} --help` lists what there is")


def main(argv: list[str], load: Load) -> int:
    """Exit code; 1: a token that is refused. `load`: the settings, by the file that was named. Raises SettingsError."""
    options = _parser().parse_args(argv)
    settings = load(options.config)
    try:
        return _make(settings, options) if options.command == "make" else _look(settings, options.token)
    except (BadKey, BadUser, BadRights) as exc:
        raise SettingsError(str(exc)) from None


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="hiroba token", description="Make a token, or look into one.", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    make = commands.add_parser("make", help="print a token of a user", allow_abbrev=False)
    make.add_argument("user", metavar="ID", help="the user's id: sub")
    make.add_argument("--name", help="what others see (the id)")
    make.add_argument("--rooms", metavar="PATTERN=LETTERS,…", help="rights: team-*=rw,news=r (user_rights)")
    make.add_argument("--info", metavar="JSON", help="whatever pages may know of the user")
    make.add_argument("--for-s", metavar="S", type=float, default=3600.0, help="how long it is good (3600)")
    make.add_argument("--key", metavar="FILE", help="private key in PEM (the first secret of token_keys)")
    make.add_argument("--kid", help="the key's id, for who has several")
    look = commands.add_parser("look", help="say what a token is, and whether it is good", allow_abbrev=False)
    look.add_argument("token", nargs="?", default="-", help="- or none: from standard input, where nobody else sees it")
    for command in (make, look):
        command.add_argument("--config", metavar="FILE", help="the TOML file (else HIROBA_CONFIG, else ./hiroba.toml)")
    return parser


# ---- make ----


def _make(settings: Settings, options: argparse.Namespace) -> int:
    now = int(time.time())
    claims: dict[str, Any] = {"sub": options.user, "iat": now, "exp": int(now + options.for_s), "jti": uuid.uuid4().hex}
    if options.name is not None:
        claims["name"] = options.name
    if options.rooms is not None:
        texts = [text for text in options.rooms.split(",") if text]
        Rights.parse(texts)
        claims["rooms"] = dict(text.split("=", 1) for text in texts)
    if options.info is not None:
        try:
            claims["info"] = json.loads(options.info)
        except ValueError:
            raise SettingsError("--info is no JSON") from None
    User(options.user, options.name or None, json.dumps(claims.get("info")).encode())
    if settings.token_audience is not None:
        claims["aud"] = settings.token_audience
    if settings.token_issuer is not None:
        claims["iss"] = settings.token_issuer
    algorithm, key = _signing(settings, options.key)
    print(jwt.encode(claims, key, algorithm, {"kid": options.kid} if options.kid else None))
    return 0


def _signing(settings: Settings, file: str | None) -> tuple[str, Any]:
    if file is None:
        secrets = [key for key in keys_of(settings.token_keys) if key.algorithm == "HS256"]
        if not secrets:
            raise SettingsError("token_keys holds no secret (HS256:…): name a private key, --key FILE")
        return "HS256", secrets[0].jwk.key
    try:
        private: Any = serialization.load_pem_private_key(Path(file).read_bytes(), None)
    except OSError as exc:
        raise SettingsError(f"{file} can't be read: {exc.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise SettingsError(f"{file} is no private key in PEM without a password") from None
    for algorithm in ALGORITHMS[1:]:
        try:
            jwt.encode({}, private, algorithm)
        except (PyJWTError, TypeError, ValueError, AttributeError):
            continue
        return algorithm, private
    raise SettingsError(f"{file} is neither RSA, nor P-256, nor Ed25519")


# ---- look ----


def _look(settings: Settings, token: str) -> int:
    said = (sys.stdin.read() if token == "-" else token).strip()
    for part, name in zip(said.split("."), ("head", "claims"), strict=False):
        found = _decoded(part)
        print(f"{name}: {'not readable' if found is None else json.dumps(found, ensure_ascii=False)}")
        if isinstance(found, Mapping):
            _explain_times(found)
    return asyncio.run(_judge(settings, said))


def _decoded(part: str) -> Any:
    try:
        return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, RecursionError):
        return None


def _explain_times(claims: Mapping[str, Any]) -> None:
    for name in ("iat", "nbf", "exp"):
        at = claims.get(name)
        if isinstance(at, int | float) and 0 <= at < 2**40:
            away_s = at - time.time()
            when = f"in {away_s:.0f} s" if away_s >= 0 else f"{-away_s:.0f} s ago"
            print(f"  {name}: {datetime.fromtimestamp(min(at, 2**37), UTC):%Y-%m-%d %H:%M:%S} UTC, {when}")


async def _judge(settings: Settings, token: str) -> int:
    """As a node with these settings would."""
    auth = Auth(settings, Metrics())
    try:
        if not auth.takes_tokens:
            print("refused: these settings have no key (token_keys, token_jwks_url)")
            return 1
        grant = await auth.grant(Credentials(token))
    except Denied as denied:
        print(f"refused, {denied.reason}: {denied}")
        return 1
    finally:
        await auth.close()
    print(f"good: user {grant.user.id!r}, called {grant.user.name!r}")
    return 0
