"""What all walks of a node share: the bytes that they wrote last, and the turns of the loop. Knows no room.

A walk holds nothing between its steps. What it needs next lies in the room's tail, or here, where another walk of the
same way put it, or is read from the log.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from gateway.core.entry import Entry, EntryId
from gateway.core.wires import Wire

# The messages of one step of a walk: 0.2 ms to encode, 1 ms to compress. One message that is longer goes alone.
WALK_BYTES = 32_768
# Python's own share of a chunk in memory, beside its frames.
CHUNK_MEMORY_BYTES = 600

# Whose log, on which wire, from which cursor.
Place = tuple[object, Wire, EntryId]


class Chunk(NamedTuple):
    """A stretch of a log as one wire's sockets get it, and where a session stands that got it."""

    frames: bytes
    reached: EntryId
    entries: int


def chunk_of(wire: Wire, room: bytes, entries: list[Entry]) -> Chunk:
    """The first of these entries of a room, as many as make a step."""
    frames: list[bytes] = []
    size = 0
    for entry in entries:
        size += len(entry.user) + len(entry.message)
        if frames and size > WALK_BYTES:
            break
        frames.append(wire.message(room, entry))
    return Chunk(b"".join(frames), entries[len(frames) - 1].id, len(frames))


class Walks:
    """Chunks, the least recently used forgotten first; and one step of one walk at a time."""

    def __init__(self, chunks_bytes_max: int) -> None:
        self._bytes_max = chunks_bytes_max
        self.bytes = 0
        self._chunks: OrderedDict[Place, Chunk] = OrderedDict()
        # Log -> its places, so that a room that closes leaves nothing.
        self._places: dict[object, set[Place]] = {}
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A walk's turn to work, in the order of asking; then everybody else's, whether its socket is fast or slow."""
        async with self._turn:
            yield
            await asyncio.sleep(0)

    def __contains__(self, place: Place) -> bool:
        return place in self._chunks

    def chunk(self, place: Place) -> Chunk | None:
        """What another walk wrote from there."""
        chunk = self._chunks.get(place)
        if chunk is not None:
            self._chunks.move_to_end(place)
        return chunk

    def share(self, place: Place, chunk: Chunk) -> None:
        """For those who come the same way."""
        self._chunks[place] = chunk
        self._places.setdefault(place[0], set()).add(place)
        self.bytes += _size(chunk)
        while self.bytes > self._bytes_max:
            self.drop(next(iter(self._chunks)))

    def forget(self, log: object) -> None:
        """This log is another now, or nobody's."""
        for place in list(self._places.get(log, ())):
            self.drop(place)

    def drop(self, place: Place) -> None:
        """Nobody comes this way any more."""
        self.bytes -= _size(self._chunks.pop(place))
        places = self._places[place[0]]
        places.discard(place)
        if not places:
            del self._places[place[0]]


def _size(chunk: Chunk) -> int:
    return CHUNK_MEMORY_BYTES + len(chunk.frames)
