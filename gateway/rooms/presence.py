"""Who is in rooms, for the connections of this node: kept while somebody asks, on whatever node, and told at most once
a second.

A room in which nobody asks has nothing of this but an empty attribute. A user has left when all his sessions have, for
`presence_grace_s`: who is back by then, here or on another node, was never gone.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from gateway.broker.members import Members
from gateway.broker.roll import Roll
from gateway.core.names import RoomName
from gateway.core.wires import Ref, v1
from gateway.rooms.here import Change, Here, Known, Shared, lists
from gateway.rooms.hub import Hub, Keep
from gateway.rooms.session import Session
from gateway.settings.model import Settings
from gateway.telemetry.clock import Clock
from gateway.telemetry.metrics import Metrics

# At most one frame a room in so many seconds, of what gathered; looked at so often. In a crowd a second for each 1,000
# who are told, at most so many: to write to 2,000 sockets takes 20 ms, and nobody in such a crowd misses the second.
TOLD_EVERY_S = 1.0
TOLD_EVERY_MAX_S = 3.0
ASKERS_PER_S = 1_000
LOOK_S = 0.1
# Nodes call out again and again that somebody asks; where so many in a row are not heard, nobody does.
CALLS_MISSED = 4
# In a room in which nobody asked before, all nodes have said who is there after so long.
SETTLED_S = 0.5


class Presence:
    """The rooms of this node in which somebody asks."""

    def __init__(
        self, hub: Hub, members: Members, clock: Clock, settings: Settings, metrics: Metrics, keep: Keep
    ) -> None:
        self._hub = hub
        self._members = members
        self._clock = clock
        self._settings = settings
        self._metrics = metrics
        self._keep = keep
        members.on_asked, members.on_changed = self._asked, self._changed
        # To be told anew.
        self._due: dict[Here, None] = {}
        # Who is to be given up, in the order of when.
        self._leaving: deque[tuple[float, Here, str]] = deque()
        self._known = asyncio.Event()

    def __len__(self) -> int:
        return len(self._hub.here)

    # ---- who is there ----

    def entered(self, here: Here, session: Session) -> None:
        """A session is in a room in which somebody asks. Idempotent."""
        if here.enter(session):
            self._members.say(here.roll)
            self._changed(here.roll)

    def left(self, here: Here, session: Session) -> None:
        """It is there no more. Idempotent."""
        user = here.leave(session)
        if user:
            until = here.leaving[user] = self._clock.now() + self._settings.presence_grace_s
            self._leaving.append((until, here, user))

    # ---- who asks ----

    def ask(self, session: Session) -> v1.Here:
        """A session that is in its room hears from now on who is there. The caller tells it in this turn who is now."""
        here = self._open(session.room.name)
        self.entered(here, session)
        if not here.askers:
            here.look(self._settings.presence_members_max)
        here.askers.add(session)
        if here.told is not None and len(here.frames_of(here.told)) > 1:
            self._list(here, session, here.told)
            return v1.Here(None, here.count, follow=True)
        known, count = here.with_own(session)
        return v1.Here(None if known is None else known.values(), count)

    def forbid(self, session: Session) -> None:
        """It may not hear any more who is there."""
        if session.room.here is not None:
            session.room.here.askers.discard(session)
            session.room.here.listed.discard(session)

    @asynccontextmanager
    async def looking(self, rooms: Iterable[RoomName], settled: bool = False) -> AsyncIterator[list[Here]]:
        """Who is in these, as far as the broker has said within `broker_timeout_s`. `settled`: all nodes too."""
        heres = [self._open(room) for room in rooms]
        for here in heres:
            here.looking += 1
        try:
            if heres:
                await self._until_known(heres)
                if settled:
                    fresh_s = max(here.opened_at for here in heres) + SETTLED_S - self._clock.now()
                    await asyncio.sleep(max(0.0, fresh_s))
            yield heres
        finally:
            for here in heres:
                here.looking -= 1
                self._keep_a_while(here)

    async def _until_known(self, heres: list[Here]) -> None:
        try:
            async with asyncio.timeout(self._settings.broker_timeout_s):
                while not all(here.roll.known for here in heres):
                    await self._known.wait()
        except TimeoutError:
            pass  # what is not known comes later

    def _open(self, room: RoomName) -> Here:
        """The room's, as somebody here asks."""
        here = self._here(room)
        self._keep_a_while(here)
        self._members.follow(here.roll)
        return here

    def _here(self, name: RoomName) -> Here:
        here = self._hub.here.get(name)
        if here is None:
            here = self._hub.here[name] = Here(name, self._members.open(name), self._clock.now())
            room = self._hub.rooms.get(name)
            if room is not None:
                room.here = here
                for session in room.sessions():
                    here.enter(session)
                self._members.say(here.roll)
        return here

    def _keep_a_while(self, here: Here) -> None:
        here.kept_until = self._clock.now() + self._members.called_s * CALLS_MISSED

    # ---- what the broker says ----

    def _asked(self, room: RoomName) -> None:
        """Somebody asks, on some node. Where nobody is here there is nothing to say."""
        if room in self._hub.here or room in self._hub.rooms:
            self._keep_a_while(self._here(room))

    def _changed(self, roll: Roll) -> None:
        here = self._hub.here.get(roll.room)
        if here is not None:
            self._due[here] = None
        self._known.set()
        self._known = asyncio.Event()

    # ---- telling ----

    async def run(self) -> None:
        """Tell what is to be told, give up who is gone, forget where nobody asks; until cancelled."""
        looked_at = self._clock.now()
        while True:
            await asyncio.sleep(LOOK_S)
            now = self._clock.now()
            self._give_up(now)
            for here in list(self._due):
                if now - here.told_at >= _told_every_s(here):
                    del self._due[here]
                    self._tell(here, now)
                    await asyncio.sleep(0)
            if now - looked_at >= TOLD_EVERY_S:
                looked_at = now
                self._forget(now)

    def _give_up(self, now: float) -> None:
        while self._leaving and self._leaving[0][0] <= now:
            until, here, user = self._leaving.popleft()
            if here.leaving.get(user) == until:
                del here.leaving[user]
                here.roll.unsay(user)
                self._members.say(here.roll)
                self._changed(here.roll)

    def _forget(self, now: float) -> None:
        for here in list(self._hub.here.values()):
            if here.askers or here.looking:
                continue
            self._members.ignore(here.roll)
            if now >= here.kept_until:
                self._members.release(here.roll)
                self._due.pop(here, None)
                del self._hub.here[here.room]
                room = self._hub.rooms.get(here.room)
                if room is not None:
                    room.here = None

    def _tell(self, here: Here, now: float) -> None:
        if not here.askers:
            return
        former = here.told
        news = here.news(self._settings.presence_members_max)
        if former is None and here.told is not None:
            here.told_at = now
            for session in here.askers - here.listed:
                self._list(here, session, here.told)
        elif news is not None:
            here.told_at = now
            self._tell_all(here, Shared(news))
            if here.owes:
                self._due[here] = None

    def _tell_all(self, here: Here, news: Shared) -> None:
        space_bytes = self._settings.outgoing_bytes_max
        for session in here.askers - here.listed:
            if session.transport.get_write_buffer_size() > space_bytes:
                self._metrics.members_put_off += 1
                self._list(here, session)
            else:
                self._write(session, news)

    def _write(self, session: Session, news: Shared) -> None:
        session.connection.write(news.frame(session.connection.wire.deflates))
        self._metrics.members_told += 1

    # ---- lists, at the pace of a socket ----

    async def tell_list(self, session: Session, here: Here, ref: Ref) -> None:
        """Who is there, as far as this node knows; and whether they are too many."""
        members, count = here.roll.here(self._settings.presence_members_max)
        frames, sessions = lists(here.room, members, count, ref), session.connection.sessions
        await self._write_all(session, frames, lambda: sessions.get(here.room) is session)

    def _list(self, here: Here, session: Session, known: Known | None = None) -> None:
        """Tell an asker a list, what the others know if it is to know no other; until then it hears nothing else. One
        that is under way goes on."""
        if session not in here.listed:
            here.listed.add(session)
            self._keep(f"members {session.connection.id}", self._list_to(here, session, known))

    async def _list_to(self, here: Here, session: Session, known: Known | None) -> None:
        await session.connection.drained()
        known = here.told if known is None else known
        frames = lists(here.room, None, here.count) if known is None else here.frames_of(known)
        await self._write_all(session, frames, lambda: session in here.listed)
        if session not in here.listed:
            return
        here.listed.discard(session)
        # What the others were told meanwhile, without an await between.
        if here.told is None:
            self._write(session, Shared(v1.count_payload(here.room, here.count)))
            return
        change = None if known is None else Change(known, here.told)
        if change is None or change.told is not here.told:
            self._list(here, session)
        elif (news := change.payload(here.room, here.count)) is not None:
            self._write(session, Shared(news))

    async def _write_all(self, session: Session, frames: Iterable[bytes], wanted: Callable[[], bool]) -> None:
        """The frames of a list, as its socket takes them; while they are wanted."""
        self._metrics.lists_told += 1
        for frame in frames:
            await session.connection.drained()
            if not wanted():
                return
            session.connection.write(frame)


def _told_every_s(here: Here) -> float:
    return min(max(TOLD_EVERY_S, len(here.askers) / ASKERS_PER_S), TOLD_EVERY_MAX_S)
