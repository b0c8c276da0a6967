"""What can go wrong with the broker, by reply code. Driver errors stop here."""

from enum import Enum, auto


class BrokerGone(Exception):
    """No answer can come any more over this connection. What was asked may or may not have happened."""


class BrokerRefused(Exception):
    """The broker answered with an error. `code` is its first word, e.g. NOGROUP."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = text.partition(" ")[0]


class Fault(Enum):
    """What an error reply means to us."""

    GONE = auto()  # not a server that can serve: leave the connection, look the address up again
    LOAD = auto()  # the script cache is empty: load, ask again
    NO_GROUP = auto()  # log or group vanished: put the group back at the cursor
    FORGOTTEN = auto()  # publish.lua cannot know whether this call ran before
    REFUSED = auto()  # this entry can't be taken now: say so to whoever sent it
    BUG = auto()  # ours, or the operator's ACL: log it


_FAULTS = {
    **dict.fromkeys(("READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "MOVED", "ASK", "TRYAGAIN"), Fault.GONE),
    **dict.fromkeys(("NOAUTH", "WRONGPASS"), Fault.GONE),
    "NOSCRIPT": Fault.LOAD,
    "NOGROUP": Fault.NO_GROUP,
    "FORGOTTEN": Fault.FORGOTTEN,
    **dict.fromkeys(("OOM", "MISCONF", "NOREPLICAS", "BUSY"), Fault.REFUSED),
}


def fault_of(code: str) -> Fault:
    """The meaning of an error reply's first word."""
    return _FAULTS.get(code, Fault.BUG)
