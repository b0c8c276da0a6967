"""Who is in one room, for the connections of this node that ask: what they were told, and what is to be told next.
Writes to sockets and asks nobody."""

from collections.abc import Iterator, Mapping, Sequence

from gateway.broker.roll import Roll
from gateway.core import frames
from gateway.core.names import RoomName
from gateway.core.wires import Ref, v1
from gateway.rooms.session import Session

# Members, and bytes of them, in one page of a list; what does not fit comes in the next.
PAGE_MEMBERS = 200
PAGE_BYTES = 32_768
# Bytes of who came and went in one frame: some 1,000 members without `info`, so that a node that dies is told at once.
CHANGE_BYTES = 65_536

# Member, as JSON, by the user's id.
Known = Mapping[str, bytes]


class Here:
    """One room's. Made when somebody asks, on whatever node; kept while somebody does."""

    def __init__(self, room: RoomName, roll: Roll, opened_at: float) -> None:
        self.room = room
        self.roll = roll
        self.opened_at = opened_at
        # Sessions of each user who is on this node.
        self._sessions: dict[str, set[Session]] = {}
        # Users whose last session here has ended, and when they are to be given up.
        self.leaving: dict[str, float] = {}
        # Who hears who comes and goes; of these who was not told all yet, and is told a list at the pace of its socket.
        self.askers: set[Session] = set()
        self.listed: set[Session] = set()
        # How many look at it at present, and until when it is kept though nobody asks.
        self.looking = 0
        self.kept_until = 0.0
        # What all askers know; None: they are too many. Never changed, only replaced.
        self.told: Known | None = {}
        self.count = 0
        self.told_at = float("-inf")
        # Whether what there was to tell did not all go into one frame.
        self.owes = False
        # The last list that was made of `told`, for all who are told it.
        self._frames: tuple[Known, list[bytes]] | None = None

    # ---- who is on this node ----

    def enter(self, session: Session) -> bool:
        """It is in the room now. Whether that is news. Idempotent."""
        user = session.connection.user
        if not user.id:
            return False
        self._sessions.setdefault(user.id, set()).add(session)
        self.leaving.pop(user.id, None)
        return self.roll.say(user.id, user.member())

    def leave(self, session: Session) -> str:
        """It is there no more. The user who is gone by that; empty: nobody is. Idempotent."""
        self.askers.discard(session)
        self.listed.discard(session)
        user = session.connection.user.id
        sessions = self._sessions.get(user)
        if sessions is None:
            return ""
        sessions.discard(session)
        if sessions:
            return ""
        del self._sessions[user]
        return user

    # ---- what is told ----

    def look(self, members_max: int) -> None:
        """Before anybody is told: what is known counts as told."""
        self.told, self.count = self.roll.here(members_max)

    def with_own(self, session: Session) -> tuple[Known | None, int]:
        """What the others know, and that this one is here."""
        user = session.connection.user
        if self.told is None or not user.id or user.id in self.told:
            return self.told, self.count
        return {**self.told, user.id: user.member()}, self.count + 1

    def frames_of(self, known: Known) -> list[bytes]:
        """What is, or was, told as a list: frames, made once for all."""
        if self._frames is None or self._frames[0] is not known:
            self._frames = known, lists(self.room, known, self.count)
        return self._frames[1]

    def news(self, members_max: int) -> bytes | None:
        """What there is to tell since it was last told, as the payload of a frame; None: nothing. It counts as told."""
        here, count = self.roll.here(members_max)
        former, known, self.owes = self.told, self.count, False
        if here is None:
            self.told, self.count = None, count
            return None if former is None and count == known else v1.count_payload(self.room, count)
        if former is None:  # who hears it knows nobody: the list comes
            self.told, self.count = here, count
            return None
        change = Change(former, here)
        news = change.payload(self.room, count)
        if news is not None:
            self.told, self.count, self.owes = change.told, count, change.told is not here
        return news


class Change:
    """From what was told to what is so; or as far on the way as one frame goes."""

    def __init__(self, former: Known, here: Known) -> None:
        self.left: list[bytes] = []
        self.joined: list[bytes] = []
        # Who is known once it is told: `here` itself where all went in.
        self.told: Known = here
        put_off: set[str] = set()
        space = CHANGE_BYTES
        for into, users, members in (
            (self.left, [user for user in former if user not in here], former),
            (self.joined, [user for user in here if former.get(user) != here[user]], here),
        ):
            for user in users:
                space -= len(members[user])
                if space < 0 and (self.left or self.joined):
                    put_off.add(user)
                else:
                    into.append(members[user])
        if put_off:
            told = {user: member for user, member in here.items() if user not in put_off}
            self.told = told | {user: former[user] for user in put_off if user in former}

    def payload(self, room: RoomName, count: int) -> bytes | None:
        """None: there is nothing to tell."""
        if not self.joined and not self.left:
            return None
        return v1.members_payload(room, self.joined, self.left, count)


def lists(room: RoomName, members: Known | None, count: int, ref: Ref = None) -> list[bytes]:
    """All of them, a page a frame; None: they are too many."""
    if members is None:
        return [v1.presence(room, None, count, False, ref)]
    parts = list(_pages(members))
    return [v1.presence(room, page, count, at < len(parts), ref) for at, page in enumerate(parts, 1)]


def _pages(members: Known) -> Iterator[Sequence[bytes]]:
    """At least one."""
    page: list[bytes] = []
    size = 0
    for member in members.values():
        if page and (len(page) == PAGE_MEMBERS or size + len(member) > PAGE_BYTES):
            yield page
            page, size = [], 0
        page.append(member)
        size += len(member)
    yield page


class Shared:
    """A payload as all wires of v1 have it, made once for each."""

    __slots__ = ("_deflated", "_payload", "_text")

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._text: bytes | None = None
        self._deflated: bytes | None = None

    def frame(self, deflates: bool) -> bytes:
        if deflates:
            if self._deflated is None:
                self._deflated = frames.deflated(self._payload)
            return self._deflated
        if self._text is None:
            self._text = frames.text(self._payload)
        return self._text
