"""What can go wrong with the broker, by reply code. Driver errors stop here."""

import re
from enum import Enum, auto

import broker_config


class BrokerGone(Exception):
    """No answer can come any more over this connection. What was asked may or may not have happened."""


class Demoted(BrokerGone):
    """The server is a replica now. Whatever else leads to it must be given up too."""


# What an operator has to know beyond the broker's own words.
_MEANINGS = {
    "WRONGPASS": " (look at user and password in broker_url)",
    "NOAUTH": " (broker_url names no password)",
}


class BrokerRefused(Exception):
    """The broker answered with an error. `code` is its first word, e.g. NOGROUP.

    NOPERM for whatever an ACL denied: inside a script the broker calls that a plain ERR.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text + _MEANINGS.get(text.partition(" ")[0], ""))
        self.code = "NOPERM" if missing_rule(text) else text.partition(" ")[0]


def closed_meanwhile(exc: RuntimeError) -> bool:
    """Whether uvloop says that a transport broke before it was written to; redis-py lets that through."""
    return "the handler is closed" in str(exc)


class Fault(Enum):
    """What an error reply means to us."""

    GONE = auto()  # not a server that can serve: give the connection up, look the address up again
    DEMOTED = auto()  # a replica: give up every connection there is
    LOAD = auto()  # the script cache is empty: load, ask again
    NO_GROUP = auto()  # log or group vanished: put the group back at the cursor
    FORGOTTEN = auto()  # publish.lua cannot know whether this call ran before
    REFUSED = auto()  # this entry can't be taken now: say so to whoever sent it
    DENIED = auto()  # by the operator's ACL
    BUG = auto()  # ours: log it


_FAULTS = {
    **dict.fromkeys(("LOADING", "CLUSTERDOWN", "MOVED", "ASK", "TRYAGAIN"), Fault.GONE),
    **dict.fromkeys(("READONLY", "MASTERDOWN"), Fault.DEMOTED),
    **dict.fromkeys(("NOAUTH", "WRONGPASS"), Fault.GONE),
    "NOSCRIPT": Fault.LOAD,
    "NOGROUP": Fault.NO_GROUP,
    "NOPERM": Fault.DENIED,
    "FORGOTTEN": Fault.FORGOTTEN,
    **dict.fromkeys(("OOM", "MISCONF", "NOREPLICAS", "BUSY"), Fault.REFUSED),
}


def fault_of(code: str) -> Fault:
    """The meaning of an error reply's first word."""
    return _FAULTS.get(code, Fault.BUG)


_COMMAND = re.compile(r"run the '([\w|]+)' command")
_KEY = re.compile(r"access (?:a key|(?:at least )?one of the keys)")
# The last: a script of Redis 7.0.
_CHANNEL = re.compile(r"access (?:a channel|(?:at least )?one of the channels)|publish to the channel")
# Redis 7.0 does not say which.
_IN_SCRIPT = re.compile(r"executing the script can't run this command")


def _rules_of_scripts() -> str:
    sources = (broker_config.script(name) for name in broker_config.SCRIPTS)
    called = {name.lower() for source in sources for name in re.findall(r"redis\.p?call\('(\w+)'", source)}
    return " ".join(f"+{command}" for command in sorted(called))


# Read here: when they are told, the loop runs, and a read would hold it up.
_SCRIPT_RULES = _rules_of_scripts()


def missing_rule(text: str) -> str | None:
    """The ACL rule without which the broker answered so; None: that was not its reason."""
    command = _COMMAND.search(text)
    if command:
        return f"+{command[1]}"
    if _KEY.search(text):
        return "~hiroba:* (if key_prefix is hiroba)"
    if _CHANNEL.search(text):
        return "&hiroba:* (if key_prefix is hiroba)"
    return f"one of {_SCRIPT_RULES}" if _IN_SCRIPT.search(text) else None
