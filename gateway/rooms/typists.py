"""Who types in which rooms, as the connections of this node are told. Nothing of it is kept, and nobody is owed it.

What a client says is whispered to all nodes, its own too, and each tells it as it hears it: of a room at most once a
second, to all who are there the same bytes. Somebody types until they say something, or have not said so for
`typing_s`. A room in which nobody types costs nothing.
"""

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from gateway.broker.whispers import Whispers
from gateway.core import frames
from gateway.core.entry import Entry
from gateway.core.names import RoomName
from gateway.core.wires import named, v1
from gateway.rooms.session import Connection, Session
from gateway.settings.model import Settings
from gateway.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from gateway.rooms.room import Room

# A room is told at most once in so many seconds.
TOLD_EVERY_S = 1.0
# Of one user and room two are passed on in `typing_s`, and so many in a row: two tabs, a network that held one up.
BURST = 2


class Typing:
    """The rooms of a node in which somebody types."""

    def __init__(
        self, whispers: Whispers, rooms: "Mapping[RoomName, Room]", settings: Settings, metrics: Metrics
    ) -> None:
        self._whispers = whispers
        self._rooms = rooms
        self._settings = settings
        self._metrics = metrics
        metrics.known("typing_dropped", ("often", "crowd", "slow"))
        self._typists: dict[Room, Typists] = {}
        whispers.on_typing = self._heard

    def __len__(self) -> int:
        return len(self._typists)

    def say(self, session: Session) -> None:
        """Whoever has this session types, and may: it is whispered, or dropped."""
        connection = session.connection
        why = self._of(session.room).refuse(_known_as(connection))
        if why is None and not self._whispers.say_typing(session.room.name, connection.id, connection.user.json):
            why = "broker"
        if why is None:
            self._metrics.typing_said += 1
        else:
            self._metrics.typing_dropped[why] += 1

    def _heard(self, name: RoomName, who: str, user: bytes) -> None:
        room = self._rooms.get(name)
        if room is not None and not self._of(room).add(who, user):
            self._metrics.typing_dropped["crowd"] += 1

    def _of(self, room: "Room") -> "Typists":
        typists = self._typists.get(room)
        if typists is None:
            typists = self._typists[room] = room.typists = Typists(room, self._settings, self._metrics, self._over)
        return typists

    def _over(self, room: "Room") -> None:
        del self._typists[room]
        room.typists = None


class Typists:
    """Who types in one room."""

    __slots__ = (
        "_full_at", "_looks_at", "_loop", "_metrics", "_named", "_news", "_now", "_over", "_room", "_settings",
        "_timer", "_told", "_told_at",
    )  # fmt: skip

    def __init__(self, room: "Room", settings: Settings, metrics: Metrics, over: "Callable[[Room], None]") -> None:
        self._room = room
        self._named = named(room.name)
        self._settings = settings
        self._metrics = metrics
        # Told when nobody types any more, and there is nothing to remember of who did.
        self._over = over
        self._loop = asyncio.get_running_loop()
        # By what they are known as: until when (the loop's clock), and what others are told of them. In their order.
        self._now: dict[str, tuple[float, bytes]] = {}
        # Of who said so on this node, a bucket: when it will be full again.
        self._full_at: dict[str, float] = {}
        # Whether the room has to be told; of whom it was, and when.
        self._news = False
        self._told: frozenset[str] = frozenset()
        self._told_at = -TOLD_EVERY_S
        # When who types is looked at next.
        self._looks_at = self._loop.time() + settings.typing_s
        self._timer = self._loop.call_at(self._looks_at, self._look)

    # ---- what is said and heard ----

    def refuse(self, who: str) -> str | None:
        """Why what somebody here says is not passed on, a label of `typing_dropped`; None: it may be."""
        if self._is_crowd(who):
            return "crowd"
        now, every_s = self._loop.time(), self._settings.typing_s / 2
        full_at = max(self._full_at.get(who, now), now)
        if full_at - now > every_s * (BURST - 1):
            return "often"
        self._full_at[who] = full_at + every_s
        return None

    def add(self, who: str, user: bytes) -> bool:
        """Somebody types, or goes on to. False: so many do that nobody need know who else does."""
        if self._is_crowd(who):
            return False
        self._now[who] = self._loop.time() + self._settings.typing_s, user
        self._news = True
        self._plan()
        return True

    def spoke(self, entries: Iterable[Entry]) -> None:
        """What they typed is there."""
        if not self._now:
            return
        for entry in entries:
            if self._now.pop(_author(entry), None) is not None:
                self._news = True
        if self._news:
            self._plan()

    def _is_crowd(self, who: str) -> bool:
        return who not in self._now and len(self._now) >= self._settings.typing_users_max

    # ---- telling ----

    def _plan(self) -> None:
        """Look again when the room may be told, or else when somebody may have ended."""
        if self._news:
            at = self._told_at + TOLD_EVERY_S
        else:
            ends = (until for until, _ in self._now.values())
            at = min(ends, default=self._loop.time() + self._settings.typing_s)
        if at < self._looks_at:
            self._timer.cancel()
            self._looks_at = at
            self._timer = self._loop.call_at(at, self._look)

    def _look(self) -> None:
        now, self._looks_at = self._loop.time(), math.inf
        for who in [who for who, (until, _) in self._now.items() if until <= now]:
            del self._now[who]
            self._news = True
        self._full_at = {who: at for who, at in self._full_at.items() if at > now}
        if self._news and now >= self._told_at + TOLD_EVERY_S:
            self._told_at = now
            self._tell()
        if self._now or self._news or self._full_at:
            self._plan()
        else:
            self._over(self._room)

    def _tell(self) -> None:
        """Who types, to all but themselves; nobody hears of it who is the only one."""
        self._news = False
        concerned = self._told | self._now.keys()
        self._told = frozenset(self._now)
        space_bytes = self._settings.outgoing_bytes_max
        # By wire, and by who is left out.
        made: dict[tuple[bool, str], bytes] = {}
        for session in self._room.answering():
            who = _known_as(session.connection)
            if who in concerned and len(concerned) == 1:
                continue
            if session.transport.get_write_buffer_size() > space_bytes:
                self._metrics.typing_dropped["slow"] += 1
                continue
            kind = session.wire.deflates, who if who in self._now else ""
            frame = made.get(kind)
            if frame is None:
                frame = made[kind] = self._frame(*kind)
            session.connection.write(frame)
            self._metrics.typing_told += 1

    def _frame(self, deflates: bool, without: str) -> bytes:
        users = [user or b"null" for who, (_, user) in self._now.items() if who != without]
        told = v1.typing(self._named, users, self._settings.typing_s)
        return frames.deflated(told) if deflates else frames.text(told)


def _known_as(connection: Connection) -> str:
    """A user on all his connections; who has no name on each one by itself."""
    return connection.user.id or connection.id


class _User(msgspec.Struct):
    id: str


_decode_user = msgspec.json.Decoder(_User).decode


def _author(entry: Entry) -> str:
    """As what the one who said it is known."""
    if entry.user:
        try:
            return _decode_user(entry.user).id
        except msgspec.MsgspecError:  # a stranger's entry, and ours only by its looks
            pass
    return entry.sender
