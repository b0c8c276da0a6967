"""What a log holds: entries, their ids, and the arithmetic that shows a gap. Knows no Redis command."""

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

# Written into every entry: 2 where somebody with a name said it, else 1, as ever; 3 where a message was deleted. A node
# that meets a format it does not know cannot read the entry and tells a gap: old and new nodes can run side by side.
FORMAT = b"1"
FORMAT_USER = b"2"
FORMAT_DELETED = b"3"
_FORMATS = (FORMAT, FORMAT_USER, FORMAT_DELETED)

# ms has 13 digits until the year 2286; the bound keeps a forged id below Redis' 64-bit limit.
_ID = re.compile(r"(\d{1,18})-(\d{1,18})\Z", re.ASCII)
_PART_MAX = 10**18 - 1


class EntryId(NamedTuple):
    """`<ms>-<n>`: the broker's clock in Unix ms, and the room's dense count 1, 2, 3 … Ordered as Redis orders."""

    ms: int
    n: int

    def __str__(self) -> str:
        return f"{self.ms}-{self.n}"

    def before(self) -> "EntryId":
        """A cursor from which the next entry is this one."""
        if self.n:
            return EntryId(self.ms, self.n - 1)
        return EntryId(self.ms - 1, _PART_MAX)  # `XADD log *` by a stranger counts from 0


START = EntryId(0, 0)
# Above all that parse_id makes.
_NOWHERE = EntryId(2**62, 0)


def parse_id(text: str) -> EntryId:
    """The id that a client or an operator wrote; ValueError if it is none."""
    match = _ID.match(text)
    if match is None:
        raise ValueError(f"not an entry id (<ms>-<n>): {text[:50]!r}")
    return EntryId(int(match[1]), int(match[2]))


def cursor_of(text: str) -> EntryId:
    """Where a client asks to go on. Above every id where it names none: nothing can be recovered from there."""
    try:
        return parse_id(text)
    except ValueError:
        return _NOWHERE


def entry_id(raw: bytes) -> EntryId:
    """An id as the broker has it: two numbers of 64 bits, also where a stranger chose them. ValueError: it is none."""
    ms, _, n = raw.partition(b"-")
    return EntryId(int(ms), int(n))


class Entry:
    """One message of a room's log. Immutable by habit: every socket of the room is served from it."""

    __slots__ = ("at", "deflated", "id", "message", "sender", "user")

    def __init__(self, id: EntryId, sender: str, user: bytes, message: bytes) -> None:
        self.id = id
        # When it was appended, by the broker's clock in Unix ms: the id's, but where that clock went back.
        self.at = id.ms
        # The session that published it; empty when a stranger wrote to the log.
        self.sender = sender
        # Who that was: JSON, {"id", "name"}; empty: nobody with a name.
        self.user = user
        # The client's JSON, byte for byte; empty: it was deleted, and this is its tombstone.
        self.message = message
        # Its compressed frames by wire, as it was delivered: compressing costs more than all else together.
        self.deflated: dict[str, bytes] | None = None

    def __repr__(self) -> str:
        return f"Entry({self.id}, {self.message[:40]!r})"

    def tombstone(self) -> "Entry":
        """What is left of it when it is deleted: its place, and when it was appended."""
        left = Entry(self.id, "", b"", b"")
        left.at = self.at
        return left


class Gap(NamedTuple):
    """Entries above `after` and below `before` are gone. `lost` counts them; None: nobody can know."""

    after: EntryId
    before: EntryId
    lost: int | None
    # The seam that took them (core/contiguity.py); 0: none did, they were trimmed or can't be read.
    seam: int = 0


def gap_between(cursor: EntryId, following: EntryId) -> Gap | None:
    """What is missing between a cursor and the entry that follows it in the log.

    A following `n` that is not above the cursor's belongs to a log that was rewound (failover) or begun again
    (flushed, expired): when it starts at 1 nothing of it is missing; any other case the caller has to look up.
    A stranger's `XADD log *` counts 0, and the room's own count begins again behind it.
    """
    if following.n == cursor.n + 1 or following.n <= 1:
        return None
    lost = following.n - cursor.n - 1
    return Gap(cursor, following, lost if lost > 0 else None)


def epoch_of(fields: Sequence[bytes]) -> bytes:
    """Which history an entry belongs to, as `publish.lua` wrote it; empty: an older node's entry, or a stranger's.

    Two entries of one epoch were appended to one log by one server that never went back.
    """
    return epoch_in(fields[3]) if len(fields) >= 10 and fields[2] == b"b" else b""


def epoch_in(b: bytes) -> bytes:
    """The epoch in an entry's field `b`: `<running bytes>.<epoch>`."""
    return b.partition(b".")[2]


def server_of(info: bytes) -> bytes:
    """The head of the epochs that a server writes now, from its INFO replication; empty: it does not say.

    `master_replid` is new after each promotion, resync and restart, so that what one server wrote never went back.
    """
    replid = info.partition(b"master_replid:")[2][:8]
    return b"%010d" % int(replid, 16) if replid else b""


class Bell(NamedTuple):
    """How far a log grew; `begun`: with this call of publish.lua it began."""

    id: EntryId
    begun: bool


# `!` and an id as publish.lua rings them; its halves have 64 bits.
_BELL = re.compile(rb"(!?)(\d{1,20})-(\d{1,20})\Z")


def is_bell(raw: bytes) -> bool:
    """Whether `decode_bell` can read it."""
    return _BELL.match(raw) is not None


def decode_bell(raw: bytes) -> Bell | None:
    """A bell as `publish.lua` rings it; None: something else, for anybody may publish on a channel."""
    match = _BELL.match(raw)
    return Bell(EntryId(int(match[2]), int(match[3])), match[1] == b"!") if match else None


def decode(raw_id: bytes, fields: Sequence[bytes]) -> Entry | Gap:
    """An entry as `publish.lua` or `delete.lua` wrote it: v (format), b (running bytes, epoch), f (sender), u (the user
    in JSON, in format 2), m (message), and t (the broker's clock, ms) where that is behind the id.

    What this node cannot read (another format version, a stranger's XADD) becomes the gap that it is to its readers.
    """
    id = entry_id(raw_id)
    if len(fields) == 10 and fields[0] == b"v" and fields[8] == b"m" and fields[1] in _FORMATS:
        try:  # Not suppress(): a microsecond per entry.
            fields[7].decode()  # goes into frames as it is
            return Entry(id, fields[5].decode(), fields[7] if fields[1] == FORMAT_USER else b"", fields[9])
        except UnicodeDecodeError:
            pass  # ours only by its looks
    if len(fields) == 12 and fields[10] == b"t":
        with suppress(ValueError):
            at, entry = int(fields[11]), decode(raw_id, fields[:10])
            if isinstance(entry, Entry):
                entry.at = at
            return entry
    return Gap(id.before(), EntryId(id.ms, id.n + 1), 1)
