"""One room on this node: its tail, its live and its behind sessions. Opened and closed by the hub.

Live sessions get each batch together, encoded once per wire. Behind sessions (a slow reader, history on joining,
a resume) are walked by a task of their own until they reach the top; nobody waits for them.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from enum import Enum, auto
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Any

from gateway.broker.broker import Broker
from gateway.broker.errors import BrokerGone, BrokerRefused
from gateway.broker.feed import Feed
from gateway.broker.reads import PAGE_ENTRIES, Piece
from gateway.core.closes import Close
from gateway.core.deletions import News, masked
from gateway.core.entry import START, Entry, EntryId, Gap
from gateway.core.names import RoomName
from gateway.core.wires import Wire, named
from gateway.rooms.here import Here
from gateway.rooms.session import Session
from gateway.rooms.tail import Tail
from gateway.rooms.walks import WALK_BYTES, Place, Walks, chunk_of
from gateway.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from gateway.rooms.typists import Typists

# What is read first of a log whose messages may be of any size.
PAGE_ENTRIES_FIRST = 16
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
        walks: Walks,
        metrics: Metrics,
        outgoing_bytes_max: int,
        keep: Callable[[str, Coroutine[Any, Any, None]], "asyncio.Task[None]"],
    ) -> None:
        self.name = name
        self._named = named(name)
        self.state = State.OPENING
        self.tail = tail
        self.live: dict[Wire, Live] = {}
        self.behind: set[Session] = set()
        # Handshakes under way; the room does not close under them.
        self.joining = 0
        # How often it became empty.
        self.visits = 0
        # Who is there; None: nobody asks.
        self.here: Here | None = None
        self.feed: Feed
        # While somebody types.
        self.typists: Typists | None = None
        # A power of 2: so many of its entries make a step of a walk, as it looks. Pages end at its multiples, so that
        # walks that come near each other go the same steps from there.
        self._page_entries = PAGE_ENTRIES_FIRST
        self._broker = broker
        self._walks = walks
        self._metrics = metrics
        self._outgoing_bytes_max = outgoing_bytes_max
        self._keep = keep
        # Walks that stand above the top (they came from a node that had read further) wait for it to move.
        self._moved: asyncio.Event | None = None
        # Words about deletions that sessions behind are owed, for their sockets were full.
        self._untold: dict[Session, bytes] = {}
        # The last entry delivered; ids that do not ascend are another server's, whose clock is behind.
        self._delivered: EntryId = START

    @property
    def top(self) -> EntryId:
        """Where this node stands in the log."""
        return self.feed.cursor

    @property
    def newest(self) -> EntryId:
        """Where the live sessions stand: at the top, or where the log parted from, while it has nothing new."""
        return self.feed.newest

    @property
    def newest_known(self) -> EntryId:
        """The newest entry that there was, for all this node knows: it may have heard of more than it read."""
        return max([self.newest, *(seam.high for seam in self.feed.lines)])

    @property
    def empty(self) -> bool:
        return not (self.joining or self.behind or any(live.sessions for live in self.live.values()))

    def live_count(self) -> int:
        return sum(len(live.sessions) for live in self.live.values())

    def sessions(self) -> Iterable[Session]:
        for live in self.live.values():
            yield from live.sessions
        yield from self.behind

    def answering(self) -> list[Session]:
        """Those whose wire has more to say than messages. Not as they change: who is written to may end."""
        live = [session for live in self.live.values() if live.wire.answers for session in live.sessions]
        return live + [session for session in self.behind if session.wire.answers]

    # ---- joining and leaving ----

    def admit(self, session: Session) -> None:
        """Take a session in at its cursor. From here on it gets everything above it, once."""
        if session.wire.answers:
            self._broker.whispers.listen(self.name)
        if session.cursor == self.newest:
            self._go_live(session)
        else:
            self._fall_behind(session)
        if session.came_at == START:  # it had a part of the room, perhaps
            for news in self._lately():
                if news.at_ms >= session.cursor.ms:
                    self._tell_deleted(session, self._words(session.wire, news, session.cursor))

    def leave(self, session: Session) -> None:
        """Forget a session. Idempotent; its walk ends at its next step."""
        live = self.live.get(session.wire)
        if live is not None:
            live.remove(session)
        self._untold.pop(session, None)
        if session in self.behind:
            self._end_walk(session)
            self._wake_walks()  # its own may wait for a top that never moves

    def _end_walk(self, session: Session) -> None:
        self.behind.remove(session)
        session.connection.caught_up()
        if not self.behind:
            self._walks.forget(self)

    def _go_live(self, session: Session) -> None:
        live = self.live.get(session.wire)
        if live is None:
            live = self.live[session.wire] = Live(session.wire)
        live.add(session)

    def _fall_behind(self, session: Session) -> None:
        self.behind.add(session)
        session.connection.fell_behind()
        self._metrics.walks += 1
        walk = self._keep(f"walk {session.connection.id}", self._walk(session))
        walk.add_done_callback(lambda walk: self._walked(session, walk))

    # ---- live: what the reader brings ----

    def deliver(self, entries: list[Entry]) -> None:
        """Write a batch to every live session: joined once per wire, the same bytes to each socket."""
        if entries[0].id < self._delivered:
            self.forget()
        self._delivered = entries[-1].id
        # Made before the tail counts them: an entry keeps what was compressed.
        room = repeat(self._named)
        batches = [
            (live, b"".join(map(live.wire.shared, room, entries))) for live in self.live.values() if live.sessions
        ]
        self.tail.append(entries)
        for live, batch in batches:
            self._deliver_live(live, entries, batch)
        if self.typists is not None:
            self.typists.spoke(entries)
        self._wake_walks()
        offset_s = self._broker.clock_offset_s()
        written_at = time.time() + offset_s
        for entry in entries:
            self._metrics.delivery_latency.observe(max(0.0, written_at - entry.at / 1000))

    def _deliver_live(self, live: Live, entries: list[Entry], batch: bytes) -> None:
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
        for session in full:
            live.remove(session)
            session.cursor, session.past = entries[0].id.before(), self.feed.past
            self._metrics.fell_behind += 1
            self._fall_behind(session)
        live.entries += len(entries)
        live.bytes += size
        written = len(live.sessions) - len(broken)
        for session in broken:
            session.connection.end(Close.LOST)
        self._metrics.delivered += written * len(entries)
        self._metrics.delivered_bytes += written * size
        self._metrics.deliver_batch.observe(len(entries))

    def lose(self, gap: Gap) -> None:
        """The log lost entries before this node read them: every live session is told, on its wire's way."""
        self._metrics.gaps += 1
        self.forget()
        self._wake_walks()  # the top has moved, and perhaps nothing follows
        for live in self.live.values():
            told = live.wire.gap(self._named, gap) if live.wire.gap is not None else None
            for session in [session for session in live.sessions if self._owed(session, gap)]:
                self._metrics.gaps_told += 1
                if told is None:
                    session.connection.end(Close.GAP)
                else:
                    session.connection.write(told)

    def _owed(self, session: Session, gap: Gap) -> bool:
        """Whether a loss is this session's too: not what was gone already when it came."""
        return gap.seam == 0 or gap.seam > session.came_behind

    def forget(self) -> None:
        """Keep nothing of the log: what follows does not continue it."""
        self.tail.clear()
        self._walks.forget(self)

    def recent(self) -> Collection[EntryId]:
        return self.tail.ids()

    # ---- what is deleted ----

    def delete(self, news: News) -> None:
        """Have none of it any more, and tell who had it."""
        self.tail.delete(news.covers)
        self._walks.forget(self)
        if news.gone:
            for session in list(self.sessions()):
                session.connection.dismiss(session, Close.DELETED)
            return
        for live in list(self.live.values()):
            words = self._words(live.wire, news, self.newest)
            for session in list(live.sessions) if words else ():
                self._tell_deleted(session, words)
        for session in list(self.behind):
            self._tell_deleted(session, self._words(session.wire, news, session.cursor))

    def unsaid(self, entries: list[Entry]) -> list[Entry]:
        """What was read of the log a while ago, without what was deleted since."""
        return masked(entries, self._lately())

    def _lately(self) -> Sequence[News]:
        return self._broker.control.lately.of(self.name)

    def _words(self, wire: Wire, news: News, cursor: EntryId) -> bytes:
        """What a session is told that has come so far: what is above it meets as tombstones."""
        if wire.deleted is None or cursor == START:
            return b""
        up_to = min(news.up_to, cursor)
        words = [wire.deleted(self._named, up_to, True)] if up_to != START else []
        words += [wire.deleted(self._named, id, False) for id in sorted(news.ids) if up_to < id <= cursor]
        return b"".join(words)

    def _tell_deleted(self, session: Session, words: bytes) -> None:
        if not words or session.connection.closing is not None:
            return
        self._metrics.deleted_told += 1
        if session.transport.get_write_buffer_size() <= self._outgoing_bytes_max:
            session.connection.write(words)
            return
        self._untold[session] = words = self._untold.get(session, b"") + words
        if len(words) > self._outgoing_bytes_max:
            session.connection.end(Close.SLOW)
        elif session not in self.behind:
            self.live[session.wire].remove(session)
            session.cursor, session.past = self.newest, self.feed.past
            self._fall_behind(session)

    # ---- behind: one walk each ----

    async def _walk(self, session: Session) -> None:
        while session in self.behind:
            async with session.connection.turn:  # its rooms share its socket, and one step fills that
                await session.connection.drained()
                pause = await self._walk_on(session)
            if pause is not None:
                await pause()

    async def _walk_on(self, session: Session) -> "Callable[[], Awaitable[None]] | None":
        """One step, if there is one to go. What to wait for before the next one; None: nothing."""
        if session not in self.behind:
            return None
        if session in self._untold:
            session.connection.write(self._untold.pop(session))
        if session.cursor == self.newest:  # no await between the check and the move
            self._end_walk(session)
            self._go_live(session)
            return None
        if session.cursor < self.top or self.tail.after(session.cursor, 1) or self._astray(session):
            return await self._step(session)
        return self.top_moved

    def _walked(self, session: Session, walk: "asyncio.Task[None]") -> None:
        """A walk that failed is a bug; its session would stay behind for ever and never know."""
        if not walk.cancelled() and walk.exception() is not None:
            session.connection.dismiss(session, Close.ERROR)

    def _wake_walks(self) -> None:
        if self._moved is not None:
            self._moved.set()
            self._moved = None

    async def top_moved(self) -> None:
        """Wait until this node has read on in the log, or found it to be another."""
        if self._moved is None:
            self._moved = asyncio.Event()
        await self._moved.wait()

    async def _step(self, session: Session) -> "Callable[[], Awaitable[None]] | None":
        """Bring a session one piece nearer to the top."""
        if self._at_hand(session):
            async with self._walks.turn():
                self._write_on(session, self.tail.after(session.cursor, PAGE_ENTRIES) or [])
            return None
        try:
            async with self._broker.reads.pages:
                astray, past = self._astray(session), self.feed.past
                if self._at_hand(session) or (session.cursor >= self.top and not astray):
                    return None  # while it waited, another walk read it, or the log was rewound
                pieces = await self._broker.reads.after(
                    self.feed, session.cursor, self.top, self.page_entries(session.cursor), session.past
                )
                if pieces or not astray:
                    async with self._walks.turn():
                        self._write_page(session, pieces, past)
                    return None
        except (BrokerGone, BrokerRefused):
            return partial(asyncio.sleep, PAGE_RETRY_S)
        return self.top_moved  # it is ahead: another node had read further

    def _astray(self, session: Session) -> bool:
        return self.feed.astray(session.cursor, session.past)

    def _place(self, session: Session) -> Place:
        return self, session.wire, session.cursor

    def _at_hand(self, session: Session) -> bool:
        """Whether the next step needs nothing from the log."""
        return self._place(session) in self._walks or bool(self.tail.after(session.cursor, 1))

    def _write_page(self, session: Session, pieces: list[Piece], past: int) -> None:
        """Write the beginning. The rest is read again: a walk would keep it for as long as its socket takes.

        `past`: the newest seam that had been crossed when these were read.
        """
        for piece in pieces or [self.nothing_left(session.cursor)]:
            if session not in self.behind:
                return
            if isinstance(piece, Gap):
                self._tell(session, piece)
                continue
            self._judge_page(piece, self._write_on(session, piece))
            if piece[0].id <= session.cursor <= piece[-1].id:  # else others had written it, before a seam
                session.past = past
            return

    def page_entries(self, cursor: EntryId) -> int:
        """How many entries to read behind this cursor."""
        return self._page_entries - cursor.n % self._page_entries

    def _judge_page(self, page: list[Entry], written: int) -> None:
        size = sum(len(entry.user) + len(entry.message) for entry in page)
        if written < len(page):
            self._page_entries = max(1, self._page_entries // 2)
        elif len(page) == self._page_entries and size <= WALK_BYTES // 2:
            self._page_entries = min(PAGE_ENTRIES, self._page_entries * 2)

    def nothing_left(self, cursor: EntryId) -> Gap:
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
            session.connection.end(Close.GAP)
        else:
            session.connection.write(session.wire.gap(self._named, gap))
            session.cursor = gap.before.before()

    def _write_on(self, session: Session, entries: list[Entry]) -> int:
        """Write the chunk that follows the session's cursor, from these entries if nobody made it yet. How many."""
        place, began_at = self._place(session), session.cursor
        chunk = self._walks.chunk(place)
        if session not in self.behind or (chunk is None and not entries):
            return 0  # it left, or was forgotten, while this walk waited for its turn
        made = chunk is None
        if chunk is None:
            chunk = chunk_of(session.wire, self._named, self.unsaid(entries))
        session.connection.write(chunk.frames)
        session.cursor = chunk.reached
        others_come = any(other.cursor <= began_at for other in self.behind)
        if made and others_come:
            self._walks.share(place, chunk)
        elif not made and not others_come:
            self._walks.drop(place)
        session.sent_entries += chunk.entries
        session.sent_bytes += len(chunk.frames)
        self._metrics.delivered += chunk.entries
        self._metrics.delivered_bytes += len(chunk.frames)
        return chunk.entries
