"""`hiroba broker …`: makes a server what hiroba wants, says where it is not, makes its passwords.

Exit codes: 0 done, nothing differs; 1 not reached, or it would not tell; 2 the command line is wrong; 3 it differs.
No line holds a password.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

import redis

from broker_config import server, users
from broker_config.prefix import DEFAULT, check_key_prefix
from broker_config.urls import check_server_url

DONE, FAILED, USAGE, DRIFT = 0, 1, 2, 3

PASSWORDS_FILE = Path(".env")
ACL_FILE = Path("secrets/users.acl")
TIMEOUT_S = 5.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    options = _parser().parse_args(argv)
    prefixes = options.key_prefix or [DEFAULT]
    try:
        if options.command == "secrets":
            return _secrets(options.file, options.acl, prefixes)
        return _broker(options.command, options.url, options.secrets, prefixes)
    except (users.NoPasswords, OSError) as exc:
        return _fail(str(exc))


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, and no password with it."""

    def error(self, message: str) -> NoReturn:
        text = re.sub("//[^@ ]*@", "//***@", message)
        sys.exit(_fail(f"{text}; `{self.prog} --help` lists what there is", USAGE))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="hiroba broker", description="The broker's configuration.", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in (
        ("apply", "make a server so: eviction, persistence, users, scripts"),
        ("check", "say where a server is not so; exit code 3 when it is not"),
    ):
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False)
        command.add_argument(
            "url", metavar="URL", help="redis://operator@HOST:6379, rediss://…, unix://…; the password as in --secrets"
        )
        command.add_argument(
            "--secrets", metavar="FILE", type=Path, default=PASSWORDS_FILE,
            help="the users' passwords, where the environment has none (%(default)s)",
        )  # fmt: skip
        _add_prefix(command)
    command = commands.add_parser("secrets", help="make passwords where there are none, and users.acl of them")
    command.add_argument("--file", metavar="FILE", type=Path, default=PASSWORDS_FILE, help="passwords (%(default)s)")
    command.add_argument("--acl", metavar="FILE", type=Path, default=ACL_FILE, help="their hashes (%(default)s)")
    _add_prefix(command)
    return parser


def _add_prefix(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--key-prefix", metavar="PREFIX", action="append", type=_prefix,
        help=f"what nodes' keys begin with: their setting key_prefix; one for each that shares the server ({DEFAULT})",
    )  # fmt: skip


def _prefix(text: str) -> str:
    try:
        return check_key_prefix(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"'{text}' {exc}") from None


def _secrets(file: Path, acl: Path, prefixes: Sequence[str]) -> int:
    added = users.make_passwords(file)
    acl.parent.mkdir(parents=True, exist_ok=True)
    acl.write_text(users.acl_file(users.passwords(file), prefixes), "utf-8")
    # Whatever the umask: a container's server reads it as another user, and hashes of 256 bits tell nothing.
    acl.chmod(0o644)
    print(f"{file}: " + (f"made {', '.join(added)}" if added else "kept as it is") + f"; {acl}: the users of it")
    return DONE


def _broker(command: str, url: str, secrets: Path, prefixes: Sequence[str]) -> int:
    if "+" in url.partition("://")[0]:
        return _fail(
            f"{command} speaks to one server, and neither configuration nor users are replicated: "
            "name each in turn, the master and its replicas, as redis://operator@HOST:6379",
            USAGE,
        )
    try:
        check_server_url(url)
    except ValueError as exc:
        return _fail(f"URL {exc}", USAGE)
    try:
        passwords = users.passwords(secrets)
    except users.NoPasswords:
        if command == "apply":
            raise
        passwords = {}
    try:
        with server.client(url, passwords, TIMEOUT_S) as broker:
            run = _apply if command == "apply" else _check
            return run(broker, url, passwords, prefixes)
    except redis.AuthenticationError as exc:
        return _fail(f"{_place(url)} refused user {_user(url)}: {str(exc).partition(',')[0]}")
    except redis.ResponseError as exc:
        return _fail(f"{_place(url)} refused what user {_user(url)} asked: {exc}")
    except redis.RedisError as exc:
        return _fail(f"no broker at {_place(url)}: {exc}")


def _apply(broker: "redis.Redis", url: str, passwords: dict[str, str], prefixes: Sequence[str]) -> int:
    before = [drift for drift in server.drifts(broker, passwords, prefixes) if not drift.by_hand]
    refused = list(server.apply(broker, passwords, prefixes))
    guarded = server.guarded(broker)
    with server.client(url, passwords, TIMEOUT_S, user=None if guarded else "operator") as operator:
        try:
            refused += server.close(operator, passwords)
            asked = operator
        except redis.AuthenticationError:  # a server that lets nobody make users: then nobody is shut out, either
            asked = broker
        left = {drift.text for drift in server.drifts(asked, passwords, prefixes)}
        version = server.version(asked)
    for drift in before:
        if drift.text not in left:
            print(f"mended: {drift.text}")
    for text in [*(drift.text for drift in refused), *sorted(left)]:
        print(f"still:  {text}")
    if not left:
        login = "; users are for servers that listen on a port" if guarded else "; log in as operator from now on"
        print(f"{_place(url)} ({version}) is as hiroba wants it{login}")
    return DRIFT if left else DONE


def _check(broker: "redis.Redis", url: str, passwords: dict[str, str], prefixes: Sequence[str]) -> int:
    told = list(server.drifts(broker, passwords, prefixes))
    found = [drift for drift in told if not (drift.refused or drift.passing)]
    refused = [drift.refused for drift in told if drift.refused]
    for drift in told:
        if drift.passing:
            print(f"note: {drift.text}; a node does it when it needs it")
        else:
            print(f"{'unknown' if drift.refused else 'drift'}: {drift.text}")
    if any(isinstance(exc, redis.exceptions.NoPermissionError) for exc in refused):
        print(f"user {_user(url)} may not ask all: name the operator, redis://operator@…")
    if not passwords:
        print("the users' passwords were not compared: there are none here to compare with")
    if found:
        mend = "`hiroba broker apply` mends it" if not any(drift.by_hand for drift in found) else "not all by `apply`"
        print(f"{_place(url)} ({server.version(broker)}) differs in {len(found)}; {mend}")
        return DRIFT
    print(f"{_place(url)} ({server.version(broker)}) is as hiroba wants it{', as far as it tells' if refused else ''}")
    return FAILED if refused else DONE


def _place(url: str) -> str:
    """Where, without who and with what."""
    parts = urlsplit(url)
    return parts.path if parts.scheme == "unix" else parts.netloc.rpartition("@")[2]


def _user(url: str) -> str:
    return urlsplit(url).username or "default"


def _fail(text: str, code: int = FAILED) -> int:
    print(f"hiroba broker: {text}", file=sys.stderr)
    return code
