"""All that a user said, in all rooms, is deleted: room by room in the background, with a note in the broker how far it
is, so that any node can say it.
"""

import time

import msgspec

from gateway.broker.connection import Arg
from gateway.broker.deletions import Deletions
from gateway.broker.errors import BrokerGone
from gateway.broker.keys import Keys
from gateway.broker.lane import Lane
from gateway.broker.rooms import START, Place, Rooms
from gateway.core.names import RoomName

# Rooms of the index in one page.
ROOMS_PER_PAGE = 50
# How long the note is kept; and of a running one that nobody renewed for so long the node is gone.
NOTE_S = 86_400
SILENT_S = 60.0


class Progress(msgspec.Struct):
    """How far one is. `state`: running, done, broken."""

    state: str
    rooms: int = 0
    deleted: int = 0
    # Unix seconds, by the clock of the node that carries it out.
    at: float = 0.0


_decode = msgspec.json.Decoder(Progress).decode


class Erasures:
    """Errors: BrokerRefused; of a lost connection it waits for the next: the caller brings a deadline, or none."""

    def __init__(self, keys: Keys, lane: Lane, rooms: Rooms, deletions: Deletions) -> None:
        self._keys = keys
        self._lane = lane
        self._rooms = rooms
        self._deletions = deletions

    async def progress(self, user: str) -> Progress | None:
        """None: nobody asked for it lately."""
        note = await self._ask("GET", self._keys.erasure(user))
        if note is None:
            return None
        progress = _decode(note)
        if progress.state == "running" and time.time() - progress.at > SILENT_S:
            progress.state = "broken"
        return progress

    async def run(self, user: str, by: str) -> Progress:
        """Delete what he said until now, in each room that there is. Done again from the start, it is the same."""
        progress, heard = Progress("running"), True
        goes_on: Place | None = START
        while goes_on is not None:
            await self._note(user, progress)
            logs, goes_on = await self._rooms.page(goes_on, ROOMS_PER_PAGE)
            for log in logs:
                deleted = await self._deletions.erase(RoomName(log.room), user, by)
                progress.rooms += 1
                progress.deleted += deleted.entries
                heard &= deleted.unsaid is None
                if time.time() - progress.at > SILENT_S / 4:
                    await self._note(user, progress)
        progress.state = "done" if heard else "broken"
        await self._note(user, progress)
        return progress

    async def _note(self, user: str, progress: Progress) -> None:
        progress.at = time.time()
        await self._ask("SET", self._keys.erasure(user), msgspec.json.encode(progress), "EX", NOTE_S)

    async def _ask(self, *command: Arg) -> bytes | None:
        while True:
            await self._lane.up()
            try:
                reply: bytes | None = await self._lane.ask(*command)
                return reply
            except BrokerGone:  # asked twice, it is the same
                continue
