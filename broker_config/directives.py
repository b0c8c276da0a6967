"""valkey.conf read as data, so that a running server can be compared with it and made so. Talks to no server."""

import re
from importlib.resources import files

# Where and as what the server runs: the operator's business, and mostly fixed at its start.
SITE = {"bind", "protected-mode", "port", "unixsocketperm", "tcp-backlog", "databases", "loglevel", "logfile"}
SITE |= {"maxmemory", "maxclients", "disable-thp"}
# Values that do as well as the file's own. appendfsync: docs/decisions/0002-appendfsync.md.
ALSO_GOOD = {"appendfsync": ("no",)}
# What goes wrong otherwise, in a few words.
DANGERS = {
    "maxmemory-policy": "the log of a room in which people talk may be evicted",
    "appendonly": "a restart of the broker empties every room",
    "appendfsync": "kill -9 may lose entries that were acknowledged",
    "no-appendfsync-on-rewrite": "kill -9 during a rewrite may lose entries that were acknowledged",
    "timeout": "the doorbell of quiet rooms is cut off",
    "save": "a failing snapshot stops all writes",
    "stream-node-max-bytes": "retention is coarser or appending slower than measured",
}

_UNITS = {"k": 1000, "kb": 1024, "m": 1000**2, "mb": 1024**2, "g": 1000**3, "gb": 1024**3}
_SIZE = re.compile(r"^(\d+)(k|kb|m|mb|g|gb)$", re.IGNORECASE)


def wanted() -> dict[str, str]:
    """What valkey.conf says, as CONFIG SET takes it; without SITE."""
    return {name: value for name, value in _all().items() if name not in SITE}


def site(name: str) -> str:
    """What valkey.conf says for one of SITE."""
    return _all()[name]


def normal(value: str) -> str:
    """A value as it can be compared: CONFIG GET answers in bytes, and calls a replica `slave`."""
    return " ".join(_plain(word) for word in value.replace('"', "").split())


def same(name: str, found: str) -> bool:
    """Whether a server's value is what hiroba wants."""
    if name == "client-output-buffer-limit":
        return _classes(normal(_all()[name])) == _classes(normal(found))
    return normal(found) in {normal(value) for value in (_all()[name], *ALSO_GOOD.get(name, ()))}


def _all() -> dict[str, str]:
    directives: dict[str, str] = {}
    for line in files(__package__).joinpath("valkey.conf").read_text("utf-8").splitlines():
        name, _, value = line.strip().partition(" ")
        if name and not name.startswith("#"):
            # A name that comes again (one line per class of clients) is one value to CONFIG SET.
            directives[name] = f"{directives[name]} {value}" if name in directives else value
    return {name: value.replace('"', "") for name, value in directives.items()}


def _plain(word: str) -> str:
    size = _SIZE.match(word)
    if size:
        return str(int(size[1]) * _UNITS[size[2].lower()])
    return "replica" if word == "slave" else word.lower()


def _classes(value: str) -> frozenset[tuple[str, ...]]:
    """`<class> <hard> <soft> <seconds>` in any order of classes."""
    words = value.split()
    return frozenset(tuple(words[at : at + 4]) for at in range(0, len(words), 4))
