"""Whispers between nodes: heard by whoever listens now, and kept by nobody. Who types in a room goes this way.

They have a channel beside the room's doorbell, so that a node which only watches the room, or is of a former version,
hears nothing of them. They go over the connection that publishes: what was whispered before a message arrives before
its bell. What the broker can't be told at once is dropped.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from gateway.broker import refusals
from gateway.broker.doorbell import Doorbell
from gateway.broker.errors import BrokerGone, BrokerRefused
from gateway.broker.keys import Keys
from gateway.broker.lane import Lane
from gateway.core.names import RoomName
from gateway.core.user import GUEST, BadUser, User
from gateway.settings.model import Settings
from gateway.telemetry.metrics import Metrics

# Characters of a session's id, with some to spare: a stranger's is cut off here.
SESSION_CHARS_MAX = 64


class _Who(msgspec.Struct):
    id: str
    name: str


class _Whisper(msgspec.Struct):
    """As a channel has it, in JSON: a later version may add to it."""

    session: str
    user: _Who | None


_decode = msgspec.json.Decoder(_Whisper).decode


class Whispers:
    """The node's one road to them."""

    def __init__(self, keys: Keys, doorbell: Doorbell, lane: Lane, settings: Settings, metrics: Metrics) -> None:
        self._keys = keys
        self._doorbell = doorbell
        self._lane = lane
        self._settings = settings
        self._metrics = metrics
        metrics.known("nonsense", ("whisper",))
        metrics.known("typing_dropped", ("broker",))
        self._listening: dict[RoomName, bytes] = {}
        self._rooms: dict[bytes, RoomName] = {}
        # To be listened to by the end of this turn: who comes back joins many rooms in one.
        self._new: list[RoomName] = []
        # Told to the broker and not answered yet.
        self._under_way = 0
        # Told the room, who types there, and that as entries have it, empty of who has no name.
        self.on_typing: Callable[[RoomName, str, bytes], None] = lambda room, who, user: None

    def listen(self, room: RoomName) -> None:
        """Hear from now on, or soon, who types in a room. Idempotent; the caller owes it `ignore`."""
        if room not in self._listening and self._settings.typing_users_max:
            self._listening[room] = key = self._keys.typing(room)
            self._rooms[key] = room
            if not self._new:
                asyncio.get_running_loop().call_soon(self._subscribe)
            self._new.append(room)

    def ignore(self, room: RoomName) -> None:
        """Hear it no more. Idempotent."""
        key = self._listening.pop(room, None)
        if key is not None:
            del self._rooms[key]
            self._doorbell.unsubscribe((self._keys.channel(key),))

    def say_typing(self, room: RoomName, session: str, user: bytes) -> bool:
        """Whisper that somebody types, once: no try is made again. False: it is dropped.

        `user`: as entries have it; empty: who has no name, and is told apart by the session.
        """
        if self._under_way >= self._settings.whispers_max:
            return False
        channel = self._keys.channel(self._keys.typing(room))
        told = b'{"session":%b,"user":%b}' % (msgspec.json.encode(session), user or b"null")
        try:
            said = self._lane.ask("SPUBLISH", channel, told)
        except BrokerGone:
            return False
        self._under_way += 1
        said.add_done_callback(self._said)
        return True

    def ring(self, key: bytes, told: bytes) -> None:
        """Somebody types, or a stranger says so."""
        room = self._rooms.get(key)
        if room is None:
            return
        try:
            whisper = _decode(told)
            who, user = _who(whisper)
        except (msgspec.MsgspecError, BadUser):
            self._metrics.nonsense["whisper"] += 1
            refusals.puzzle("whisper", key, told)
            return
        self.on_typing(room, who, user)

    def _subscribe(self) -> None:
        new, self._new = self._new, []
        self._doorbell.listen([self._keys.channel(self._listening[room]) for room in new if room in self._listening])

    def _said(self, said: "asyncio.Future[Any]") -> None:
        self._under_way -= 1
        failed = said.exception()
        if failed is not None:
            self._metrics.typing_dropped["broker"] += 1
        if isinstance(failed, BrokerRefused):
            refusals.tell(str(failed))


def _who(whisper: _Whisper) -> tuple[str, bytes]:
    """By what somebody is known, and the user as entries have it. Raises BadUser."""
    if whisper.user is None:
        if not 0 < len(whisper.session) <= SESSION_CHARS_MAX:
            raise BadUser("no session has such an id")
        return whisper.session, b""
    user = User(whisper.user.id, whisper.user.name, guest=whisper.user.id.startswith(GUEST))
    return user.id, user.json
