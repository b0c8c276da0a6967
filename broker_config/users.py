"""The broker's users: their rules from the template, their passwords from the environment or an ignored file.

Nothing here talks to a server, and nothing here is a secret.
"""

import hashlib
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from broker_config import prefix

# Users with a password, and the variable that holds it. Not HIROBA_…: those are settings of the nodes.
PASSWORDS = {
    "gateway": "BROKER_GATEWAY_PASSWORD",
    "operator": "BROKER_OPERATOR_PASSWORD",
    "exporter": "BROKER_EXPORTER_PASSWORD",
}

# 256 bits: the hashes in users.acl may be read by anyone. Letters, digits, - and _: needs no quoting in a URL.
PASSWORD_BYTES = 32


class NoPasswords(Exception):
    """Passwords are missing. The text says which, and what to do."""


def rules(passwords: Mapping[str, str], prefixes: Sequence[str] = (prefix.DEFAULT,)) -> dict[str, list[str]]:
    """Each user's rules, in the order in which ACL SETUSER takes them. `passwords` by user; the keys' `prefixes`."""
    users: dict[str, list[str]] = {}
    for line in template().splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if not line[0].isspace():
            _, user, *words = words
            users[user] = []
        users[user] += [filled for word in words for filled in _filled(word, passwords, prefixes)]
    return users


def acl_file(passwords: Mapping[str, str], prefixes: Sequence[str] = (prefix.DEFAULT,)) -> str:
    """users.acl as a server's `aclfile` wants it: one line per user, no comments, hashes for passwords."""
    return "".join(f"user {user} {' '.join(words)}\n" for user, words in rules(passwords, prefixes).items())


def template() -> str:
    return files(__package__).joinpath("users.acl.template").read_text("utf-8")


def _filled(word: str, passwords: Mapping[str, str], prefixes: Sequence[str]) -> list[str]:
    if "<prefix>" in word:
        return [word.replace("<prefix>", one) for one in prefixes]
    if word.startswith("<"):
        return ["#" + hashlib.sha256(passwords[word.strip("<>")].encode()).hexdigest()]
    return [word]


# ---- the passwords ----


def passwords(file: Path) -> dict[str, str]:
    """By user: from the environment, else from `file`. Raises NoPasswords."""
    known = {**_read(file), **os.environ}
    missing = [variable for variable in PASSWORDS.values() if not known.get(variable)]
    if missing:
        raise NoPasswords(
            f"no {', '.join(missing)}: neither in the environment nor in {file} (`make secrets` makes it)"
        )
    return {user: known[variable] for user, variable in PASSWORDS.items()}


def make_passwords(file: Path) -> list[str]:
    """Writes what `file` lacks, random, and leaves what it has. The variables that were added.

    Raises OSError. The file is its owner's alone from its first byte on.
    """
    known = _read(file)
    added = [variable for variable in PASSWORDS.values() if not known.get(variable)]
    if added:
        file.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w") as out:
            if file.stat().st_size == 0:
                out.write(
                    "# Made by `make secrets`. Never committed; lost, it is made anew and the broker restarted.\n"
                )
            for variable in added:
                out.write(f"{variable}={secrets.token_urlsafe(PASSWORD_BYTES)}\n")
    return added


def _read(file: Path) -> dict[str, str]:
    """NAME=VALUE lines, quotes around a value dropped, as Compose and shells read them."""
    try:
        text = file.read_text("utf-8")
    except FileNotFoundError:
        return {}
    found = re.findall(r"^(?:export\s+)?(\w+)=(.*)$", text, re.MULTILINE)
    return {name: value.strip().strip("'\"") for name, value in found}
