"""Who is in one room: what this node says of it, and what all nodes say, as far as it is known here. No I/O."""

from collections.abc import Mapping, Sequence
from itertools import count, islice

from gateway.core.entry import START, EntryId, entry_id
from gateway.core.names import RoomName

# Of the broker's set, in which no user has it: its stamp.
UNNAMED = b""
# What a member takes here beside its JSON.
MEMBER_BYTES = 300


class BadRoll(ValueError):
    """Bytes of the broker's that are none of members.lua's."""


class Roll:
    """One room's. A user is here while any node claims it; what a node claims ends with its claim's name."""

    __slots__ = (
        "_held", "_held_count", "_held_until", "_node", "_numbers", "bytes", "claim", "claims", "count", "heard",
        "keys", "known", "lost", "member_bytes", "members", "new", "room", "stamp", "unsaid",
    )  # fmt: skip

    def __init__(self, room: RoomName, claim: str, keys: tuple[bytes, bytes, bytes]) -> None:
        """`claim`: as no other roll's, of any node."""
        self.room = room
        # The set, its claims, the log of who came and went.
        self.keys = keys
        # ---- what this node says: user -> member, JSON ----
        self.claims: dict[str, bytes] = {}
        # Of these what the broker was not told yet; None: he is not here any more.
        self.unsaid: dict[str, bytes | None] = {}
        self._node = claim
        self._numbers = count(1)
        self.begin_anew()
        # ---- what all say ----
        # Up to where the log was read; 0-0: nothing was yet. Its `ms` tells which set it is: when that began.
        self.stamp = START
        # The newest stamp that was heard of.
        self.heard = START
        # None: only how many there are.
        self.members: dict[str, bytes] | None = None
        self.count = 0
        # Of `members`; and of one of them, as they were when all were last read.
        self.bytes = 0
        self.member_bytes: float = MEMBER_BYTES
        # Whether the log does not continue what was read: the set has to be.
        self.lost = True
        # Whether what there was when this node began to follow was read, or can't be.
        self.known = False
        # Of a set that is gone: who has not been heard of since, and until when they count as here.
        self._held: dict[str, bytes] = {}
        self._held_count = 0
        self._held_until = 0.0

    # ---- what this node says ----

    def begin_anew(self) -> None:
        """Say all again, under another name: what was said before ends by itself."""
        self.claim = f"{self._node}-{next(self._numbers)}"
        self.new = True
        self.unsaid = dict(self.claims)

    def say(self, user: str, member: bytes) -> bool:
        """He is here. Whether that is news."""
        if self.claims.get(user) == member:
            return False
        self.claims[user] = self.unsaid[user] = member
        return True

    def unsay(self, user: str) -> None:
        """He is here no more."""
        if self.claims.pop(user, None) is not None:
            self.unsaid[user] = None

    def take_unsaid(self, users_max: int) -> dict[str, bytes | None]:
        """What to tell the broker next. The caller owes it to `said` or `put_back`."""
        taken = dict(islice(self.unsaid.items(), users_max))
        for user in taken:
            del self.unsaid[user]
        return taken

    def put_back(self, taken: dict[str, bytes | None]) -> None:
        """It could not be told. What was said since counts."""
        self.unsaid = taken | self.unsaid

    # ---- what all say ----

    @property
    def counts(self) -> bool:
        """Whether it knows how many are here, and no more."""
        return self.known and self.members is None

    @property
    def behind(self) -> bool:
        """Whether more was heard of than was read."""
        return self.heard.ms != self.stamp.ms or self.heard.n > self.stamp.n

    def hear(self, stamp: EntryId) -> bool:
        """All is as this stamp says, or was. Whether there is anything to read."""
        if stamp.ms != self.heard.ms or stamp.n > self.heard.n:
            self.heard = stamp
            self.lost |= stamp.ms != self.stamp.ms
        return self.behind

    def take_count(self, stamp: EntryId, count: int, hold_until: float) -> None:
        """There are too many to know more than how many. `hold_until`: as of `load`."""
        self._part(stamp, hold_until)
        self.members, self.bytes = None, 0
        self.count, self.known, self.lost = count, True, True

    def load(self, fields: Mapping[bytes, bytes], hold_until: float) -> None:
        """The whole set, as HGETALL has it. If it is another one than before, who was here by that one counts as here
        until then: a set that begins anew lacks whomever no node has claimed yet. Raises BadRoll."""
        stamp = _stamp(fields.get(UNNAMED, b"0-0").partition(b" ")[0])
        members = {_text(user): claimed.partition(b" ")[2] for user, claimed in fields.items() if user != UNNAMED}
        self._part(stamp, hold_until)
        self.members, self.count = members, len(members)
        self.bytes = sum(map(_bytes, members.values()))
        self.member_bytes = self.bytes / len(members) if members else MEMBER_BYTES
        self.known, self.lost = True, False

    def read(self, entries: Sequence[tuple[bytes, Sequence[bytes]]]) -> None:
        """What the log has behind the stamp; it is `lost` where it does not continue there. Raises BadRoll."""
        for id, fields in entries:
            stamp = _stamp(id)
            if stamp != EntryId(self.stamp.ms, self.stamp.n + 1):
                self.lost = True
                return
            self.stamp = stamp
            self.hear(stamp)
            for what, member in zip(fields[2::2], fields[3::2], strict=True):
                self._take(what[:1], _text(what[1:]), member)

    def _take(self, sign: bytes, user: str, member: bytes) -> None:
        assert self.members is not None, "only then the log is read"
        self._held.pop(user, None)
        former = self.members.pop(user, None)
        if former is not None:
            self.bytes -= _bytes(former)
        if sign == b"+":
            self.members[user] = member
            self.bytes += _bytes(member)
        self.count = len(self.members)

    def forget(self) -> None:
        """Nobody here asks any more."""
        self.members, self.bytes, self.count = None, 0, 0
        self.stamp = self.heard = START
        self.known, self.lost = False, True
        self._held, self._held_count, self._held_until = {}, 0, 0.0

    def _part(self, stamp: EntryId, hold_until: float) -> None:
        if self.stamp.ms not in (START.ms, stamp.ms):
            self._held = {**self._held, **(self.members or {})}
            self._held_count = max(self._held_count, self.count)
            self._held_until = hold_until
        self.stamp = self.heard = stamp

    # ---- what is told ----

    def let_go(self, now: float) -> bool:
        """Whoever is still not heard of is gone. Whether that time has come with this call."""
        if not 0 < self._held_until <= now:
            return False
        self._held, self._held_count, self._held_until = {}, 0, 0.0
        return True

    def here(self, members_max: int) -> tuple[dict[str, bytes] | None, int]:
        """Who is here, a copy, and how many; None: more than so many."""
        if self.members is None or self._held_count > members_max:
            return None, max(self.count, self._held_count, len(self.claims))
        here = {**self._held, **self.members, **self.claims}
        return here if len(here) <= members_max else None, len(here)


def _bytes(member: bytes) -> int:
    return len(member) + MEMBER_BYTES


def _stamp(raw: bytes) -> EntryId:
    try:
        return entry_id(raw)
    except ValueError:
        raise BadRoll(f"no stamp: {raw[:50]!r}") from None


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")
