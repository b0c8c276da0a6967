"""One room on this node: its tail, its live and its behind sessions. Opened and closed by the hub.

Live sessions get each batch together, encoded once per wire. Behind sessions (a slow reader, history on joining,
a resume) are walked by a task of their own until they reach the top; nobody waits for them.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Iterable
from enum import Enum, auto
from typing import Any

from gateway.broker.broker import Broker
from gateway.broker.errors import BrokerGone, BrokerRefused
from gateway.broker.feed import Feed
from gateway.core.closes import Close
from gateway.core.entry import Entry, EntryId, Gap
from gateway.core.names import RoomName
from gateway.core.wires import Wire
from gateway.metrics import Metrics
from gateway.rooms.session import Session
from gateway.rooms.tail import Tail

# What a walk writes before it looks at the socket again.
WALK_BYTES = 32_768
WALK_ENTRIES = 100
# Stretches kept for walks that come the same way; forgotten at the next batch.
CHUNKS_MAX = 64
# A walk that could not read its page tries again after this long.
PAGE_RETRY_S = 0.5


class State(Enum):
    """A room's life on this node."""

    OPENING = auto()  # the cursor and the doorbell are not there yet; joiners wait
    OPEN = auto()
    LINGERING = auto()  # empty; stays a while for those who come back
    CLOSED = auto()


class Live:
    """The live sessions of one wire, and how much each of them has got since the room opened."""

    __slots__ = ("bytes", "entries", "sessions", "wire")

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.sessions: set[Session] = set()
        self.entries = 0
        self.bytes = 0

    def add(self, session: Session) -> None:
        self.sessions.add(session)
        session.sent_entries -= self.entries
        session.sent_bytes -= self.bytes

    def remove(self, session: Session) -> None:
        if session in self.sessions:
            self.sessions.remove(session)
            session.sent_entries += self.entries
            session.sent_bytes += self.bytes


class Room:
    """A log's followers on this node."""

    def __init__(
        self,
        name: RoomName,
        broker: Broker,
        tail: Tail,
        metrics: Metrics,
        outgoing_bytes_max: int,
        keep: Callable[[str, Coroutine[Any, Any, None]], "asyncio.Task[None]"],
    ) -> None:
        self.name = name
        self.state = State.OPENING
        self.tail = tail
        self.live: dict[Wire, Live] = {}
        self.behind: set[Session] = set()
        # Handshakes under way; the room does not close under them.
        self.joining = 0
        # How often it became empty.
        self.visits = 0
        self.feed: Feed
        self._broker = broker
        self._metrics = metrics
        self._outgoing_bytes_max = outgoing_bytes_max
        self._keep = keep
        # Walks that stand above the top (they came from a node that had read further) wait for it to move.
        self._moved: asyncio.Event | None = None
        # What walks wrote last: who walks the same stretch shares its bytes. (wire, cursor) -> bytes, next cursor.
        self._chunks: dict[tuple[Wire, EntryId], tuple[bytes, EntryId, int]] = {}

    @property
    def top(self) -> EntryId:
        """Where this node stands in the log."""
        return self.feed.cursor

    @property
    def newest(self) -> EntryId:
        """Where the live sessions stand: at the top, or above it, at the end that a failover tore off the log."""
        return self.feed.newest

    @property
    def newest_known(self) -> EntryId:
        """The newest entry that there was, for all this node knows: it may have heard of more than it read."""
        tear = self.feed.tear
        return max(self.newest, tear.high) if tear is not None else self.newest

    @property
    def empty(self) -> bool:
        return not (self.joining or self.behind or any(live.sessions for live in self.live.values()))

    def live_count(self) -> int:
        return sum(len(live.sessions) for live in self.live.values())

    def sessions(self) -> Iterable[Session]:
        for live in self.live.values():
            yield from live.sessions
        yield from self.behind

    # ---- joining and leaving ----

    def admit(self, session: Session) -> None:
        """Take a session in at its cursor. From here on it gets everything above it, once."""
        if session.cursor == self.newest:
            self._go_live(session)
        else:
            self._fall_behind(session)

    def leave(self, session: Session) -> None:
        """Forget a session. Idempotent; its walk ends at its next step."""
        live = self.live.get(session.wire)
        if live is not None:
            live.remove(session)
        if session in self.behind:
            self.behind.remove(session)
            self._wake_walks()  # its own may wait for a top that never moves

    def _go_live(self, session: Session) -> None:
        self.behind.discard(session)
        session.walk = None
        live = self.live.get(session.wire)
        if live is None:
            live = self.live[session.wire] = Live(session.wire)
        live.add(session)

    def _fall_behind(self, session: Session) -> None:
        self.behind.add(session)
        session.stuck_bytes = -1  # nobody looked yet: the first look begins the wait, by the clock of whoever looks
        self._metrics.walks += 1
        session.walk = self._keep(f"walk {session.id}", self._walk(session))
        session.walk.add_done_callback(lambda walk: self._walked(session, walk))

    # ---- live: what the reader brings ----

    def deliver(self, entries: list[Entry]) -> None:
        """Write a batch to every live session: joined once per wire, the same bytes to each socket."""
        self.tail.append(entries)
        self._chunks.clear()
        for live in self.live.values():
            if live.sessions:
                self._deliver_live(live, entries)
        self._wake_walks()
        offset_s = self._broker.clock_offset_s()
        written_at = time.time() + offset_s
        for entry in entries:
            self._metrics.delivery_latency.observe(max(0.0, written_at - entry.at / 1000))

    def _deliver_live(self, live: Live, entries: list[Entry]) -> None:
        batch = b"".join(map(live.wire.message, entries))
        size = len(batch)
        space_bytes = self._outgoing_bytes_max - size
        full: list[Session] = []
        broken: list[Session] = []
        for session in live.sessions:
            transport = session.transport
            try:
                if transport.get_write_buffer_size() > space_bytes:
                    full.append(session)
                else:
                    transport.write(batch)
            except Exception:  # uvloop: the transport was closed in this very turn
                broken.append(session)
        start = entries[0].id.before()
        for session in full:
            live.remove(session)
            session.cursor = start
            self._metrics.fell_behind += 1
            self._fall_behind(session)
        live.entries += len(entries)
        live.bytes += size
        written = len(live.sessions) - len(broken)
        for session in broken:
            session.end(Close.LOST)
        self._metrics.delivered += written * len(entries)
        self._metrics.delivered_bytes += written * size
        self._metrics.deliver_batch.observe(len(entries))

    def lose(self, gap: Gap) -> None:
        """The log lost entries before this node read them: every live session is told, on its wire's way."""
        self._metrics.gaps += 1
        self.tail.clear()
        for live in self.live.values():
            told = live.wire.gap(gap) if live.wire.gap is not None else None
            for session in [session for session in live.sessions if self._owed(session, gap)]:
                self._metrics.gaps_told += 1
                if told is None:
                    session.end(Close.GAP)
                else:
                    session.write(told)

    def _owed(self, session: Session, gap: Gap) -> bool:
        """Whether a loss is this session's too: not where a failover tore the log before it came."""
        tear = self.feed.tear
        return tear is None or gap.before.n != tear.kept.n + 1 or session.came_at < tear.high

    def recent(self) -> Collection[EntryId]:
        return self.tail.ids()

    # ---- behind: one walk each ----

    async def _walk(self, session: Session) -> None:
        while session in self.behind:
            await session.drained()
            if session not in self.behind:
                return
            if session.cursor == self.newest:
                self._go_live(session)  # no await between the check and the move
            elif session.cursor < self.top or self.tail.after(session.cursor, 1):
                await self._step(session)
            else:
                await self._top_moved()

    def _walked(self, session: Session, walk: "asyncio.Task[None]") -> None:
        """A walk that failed is a bug; its session would stay behind for ever and never know."""
        if not walk.cancelled() and walk.exception() is not None:
            session.end(Close.ERROR)

    def _wake_walks(self) -> None:
        if self._moved is not None:
            self._moved.set()
            self._moved = None

    async def _top_moved(self) -> None:
        if self._moved is None:
            self._moved = asyncio.Event()
        await self._moved.wait()

    async def _step(self, session: Session) -> None:
        """Bring a session one piece nearer to the top."""
        shared = self._chunks.get((session.wire, session.cursor))
        if shared is not None:
            self._write(session, *shared)
            await asyncio.sleep(0)
            return
        entries = self.tail.after(session.cursor, WALK_ENTRIES)
        if entries:
            self._write_chunk(session, entries)
            await asyncio.sleep(0)  # the others' turn
            return
        try:
            pieces = await self._broker.reads.after(self.feed, session.cursor, self.top)
        except (BrokerGone, BrokerRefused):
            await asyncio.sleep(PAGE_RETRY_S)
            return
        self._metrics.pages += 1
        for piece in pieces or [self._nothing_left(session.cursor)]:
            if isinstance(piece, Gap):
                self._tell(session, piece)
                continue
            written = 0
            while written < len(piece) and session in self.behind:
                written += self._write_chunk(session, piece[written:])
                await session.drained()

    def _nothing_left(self, cursor: EntryId) -> Gap:
        """The log holds nothing between this cursor and the top any more (flushed, expired)."""
        oldest = self.tail.oldest()
        following = oldest if oldest is not None else EntryId(self.top.ms, self.top.n + 1)
        lost = following.n - cursor.n - 1
        return Gap(cursor, following, lost if lost > 0 else None)

    def _tell(self, session: Session, gap: Gap) -> None:
        # A hole in the history is told to who can hear of it; it must not cost the others their connection, each time.
        a_hole_before_it_came = gap.before.before() <= session.came_at
        if not self._owed(session, gap) or (a_hole_before_it_came and session.wire.gap is None):
            session.cursor = gap.before.before()
            return
        self._metrics.gaps_told += 1
        if session.wire.gap is None:
            session.end(Close.GAP)
        else:
            session.write(session.wire.gap(gap))
            session.cursor = gap.before.before()

    def _write_chunk(self, session: Session, entries: list[Entry]) -> int:
        """Write the first of these entries, about WALK_BYTES of them. Returns how many."""
        frames: list[bytes] = []
        size = 0
        for entry in entries:
            frame = session.wire.message(entry)
            if frames and size + len(frame) > WALK_BYTES:
                break
            frames.append(frame)
            size += len(frame)
        chunk = b"".join(frames)
        reached = entries[len(frames) - 1].id
        if len(self.behind) > 1 and len(self._chunks) < CHUNKS_MAX:
            self._chunks[session.wire, session.cursor] = chunk, reached, len(frames)
        self._write(session, chunk, reached, len(frames))
        return len(frames)

    def _write(self, session: Session, chunk: bytes, reached: EntryId, count: int) -> None:
        session.write(chunk)
        session.cursor = reached
        session.sent_entries += count
        session.sent_bytes += len(chunk)
        self._metrics.delivered += count
        self._metrics.delivered_bytes += len(chunk)
