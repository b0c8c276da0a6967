"""A node's history of a log against a model: servers that go back, empty ones, trimming, flushes, clocks that jump.

The table of states is walked; and whatever happens, a live session is told everything once, in order, or how many of
it are missing, in their place.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.broker.feed import Feed, Follower
from gateway.broker.lane import Lane
from gateway.broker.reads import Raw, Reads
from gateway.core.entry import START, Entry, EntryId, Gap
from gateway.core.history import TABLE, Event, History, Place, Question, State
from gateway.telemetry.metrics import Metrics


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_each_event_leads_where_the_table_says_or_changes_nothing(state: State, event: Event) -> None:
    history = History()
    history.state = state
    if (state, event) in TABLE:
        assert history.on(event) is TABLE[state, event].to is history.state
    else:
        assert state not in DOUBTS and event in (Event.NO_LOG, Event.FOUND, Event.PARTED), "answers to no question"
        with pytest.raises(KeyError):
            history.on(event)
        assert history.state is state


def test_from_each_state_each_can_be_reached_and_only_the_log_itself_ends_a_doubt() -> None:
    for state in State:
        reached = {state}
        for _ in State:
            reached |= {move.to for (of, _), move in TABLE.items() if of in reached}
        assert reached == set(State)
    ends = {event for (of, event), move in TABLE.items() if of in DOUBTS and move.to not in DOUBTS}
    assert ends == {Event.FOUND, Event.PARTED}


DOUBTS = (State.DOUBTED, State.SHAKEN)


class Stored:
    """An entry as the model's server has it."""

    def __init__(self, id: EntryId, epoch: bytes, number: int) -> None:
        self.id = id
        self.epoch = epoch
        # Of all that was ever appended.
        self.number = number


class World:
    """One log on servers that come and go, a node that follows it, and a live session on that node."""

    def __init__(self) -> None:
        self.log: list[Stored] = []
        self.clock = 1_000_000
        self._names = count(1)
        self._births = count(1)
        self.server = self._name()
        self._appended = count(1)
        self.ever: list[Stored] = []
        self.node = History()
        # Where the node's group stands; None: it has none.
        self.group: EntryId | None = None
        # What the session was told.
        self.heard: list[Stored | Gap] = []
        self.broken = True

    @classmethod
    def after(cls, story: list[tuple[str, *tuple[int, ...]]]) -> "World":
        """One to which all this happened, and whose node has caught up with the entry that was said last."""
        world = cls()
        world.append(3, 1)
        world.catch_up()
        for step, *arguments in story:
            getattr(world, step)(*arguments)
        world.append(1, 1)
        world.catch_up()
        return world

    def _name(self) -> bytes:
        return b"%010d" % next(self._names)

    # ---- what befalls the log ----

    def append(self, entries: int, every_ms: int) -> None:
        """One call of publish.lua, and its bell."""
        newest = self.log[-1] if self.log else None
        ms, n = (newest.id.ms, newest.id.n) if newest else (0, 0)
        epoch = newest.epoch if newest else b""
        self.clock += every_ms
        if epoch[:10] != self.server:
            if epoch and ms >= self.clock:
                ms += 1 + self.clock % 1000
            epoch = self.server + b"%06d" % next(self._births)
        ms = max(ms, self.clock)
        while any(entry.id.ms == ms and entry.id.n > n for entry in self.ever):
            ms += 1  # no model of ids that are the same by chance
        for _ in range(entries):
            n += 1
            entry = Stored(EntryId(ms, n), epoch, next(self._appended))
            self.log.append(entry)
            self.ever.append(entry)
        self.node.hear(f"{'' if newest else '!'}{self.log[-1].id}".encode(), self.server)

    def trim(self, entries: int) -> None:
        del self.log[: min(entries, len(self.log) - 1)]

    def flush(self) -> None:
        self.log.clear()
        self.group = None

    def go_back(self, entries: int, behind_ms: int) -> None:
        """A server that lacks the last entries: a failover, or this one took another's history."""
        if entries:
            del self.log[-entries:]
        self.group = self.log[-1].id if self.log and self.group is not None else None
        self._other(behind_ms)

    def replace(self, behind_ms: int) -> None:
        """An empty server at the same address."""
        self.flush()
        self._other(behind_ms)

    def _other(self, behind_ms: int) -> None:
        self.clock -= behind_ms
        self.server = self._name()
        self.node.sure = False
        self.node.on(Event.DOUBT)

    # ---- the node ----

    def answer(self, question: Question) -> list[Place]:
        low = _bound(question.low, START)
        high = _bound(question.high, EntryId(2**63, 0))
        found = [Place(entry.id, entry.epoch) for entry in self.log if low <= entry.id <= high]
        if question.high.startswith("("):
            found = [place for place in found if place.id < high]
        return found[: -question.most] if question.most < 0 else found[::-1][: question.most]

    def prove(self) -> None:
        """As gateway/broker/groups.py."""
        there = {id: any(entry.id == id for entry in self.log) for id in self.node.bells.announced()}
        if not self.log:
            self.node.on(Event.NO_LOG)
            return
        own = [entry for entry in self.log if entry.id == self.node.cursor]
        if self.node.cursor == START or any(entry.epoch == self.node.epoch for entry in own):
            self.node.found(there)
        else:
            search = self.node.part(there, (), self.server)
            question = next(search)
            while True:
                try:
                    question = search.send(self.answer(question))
                except StopIteration:
                    break
        if self.node.puzzled:
            assert not self.node.disbelieve(there, self.server, self.log[0].id, self.log[-1].id), "nobody lies here"
        self.group = self.node.cursor

    def read(self, most: int) -> bool:
        """As gateway/broker/reader.py. Whether there is more to do."""
        if self.node.state is not State.DOUBTED and self.group is None:
            self.node.on(Event.DOUBT)
        if self.node.state is State.DOUBTED:
            self.prove()
            if self.node.state is State.DOUBTED:
                return False
        assert self.group is not None
        raw = [entry for entry in self.log if entry.id > self.group][:most]
        if not raw:
            doubt = self.node.bells.fulfil(self.node.cursor) and self.node.state is State.FOLLOWING
            self.node.on(Event.DOUBT if doubt else Event.NOTHING)
            self.node.sure = True
            return False
        self.group = raw[-1].id
        stretch: list[Entry | Gap] = [_Numbered(entry) for entry in raw]
        epochs: Callable[[], list[bytes]] = lambda: [entry.epoch for entry in raw]  # noqa: E731
        pieces = self.node.take(stretch, raw[0].epoch, raw[-1].epoch, epochs, str(raw[-1].id).encode())
        for piece in pieces or ():
            if isinstance(piece, Gap):
                self.heard.append(piece)
            else:
                self.heard += [entry.stored for entry in piece]  # type: ignore[attr-defined]
        return True

    def catch_up(self) -> None:
        for _ in range(100):
            if not self.read(100):
                break
        else:
            raise AssertionError("it never comes to an end")
        self.read(100)  # a bell that nothing bore out: the log was asked


class _Numbered(Entry):
    __slots__ = ("stored",)

    def __init__(self, stored: Stored) -> None:
        super().__init__(stored.id, "s", "", b"1")
        self.stored = stored


def _bound(text: str, open_: EntryId) -> EntryId:
    if text in "-+":
        return open_
    ms, _, n = text.lstrip("(").partition("-")
    return EntryId(int(ms), int(n))


def check(heard: list[Stored | Gap], ever: list[Stored], after: int, unknown: bool) -> None:
    """Each entry once, in order; where some are missing, a gap; where a gap has a number, the right one."""
    at, gaps = after, list[Gap]()
    for item in [*heard, None]:
        if isinstance(item, Gap):
            gaps.append(item)
            continue
        number = item.number if item is not None else at + 1
        assert number > at, "twice, or out of order"
        missing = number - at - 1
        if missing:
            assert gaps, f"{missing} are missing before {number}, and no gap is told"
        if all(gap.lost is not None for gap in gaps):
            assert sum(gap.lost or 0 for gap in gaps) == missing, f"{gaps} for {missing} before {number}"
        elif not missing:
            assert unknown, f"{gaps} before {number}, where nothing is missing"
        at, gaps = number, []


steps = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 4), st.integers(0, 3)),
    st.tuples(st.just("read"), st.integers(1, 6)),
    st.tuples(st.just("catch_up")),
    st.tuples(st.just("trim"), st.integers(1, 6)),
    st.tuples(st.just("flush")),
    st.tuples(st.just("go_back"), st.integers(0, 6), st.sampled_from((0, 5, -5, 100_000))),
    st.tuples(st.just("replace"), st.sampled_from((0, 5, -5, 100_000))),
)


@settings(max_examples=1500)
@given(st.lists(steps, max_size=25))
def test_a_live_session_hears_everything_once_or_how_much_is_missing_and_where(
    story: list[tuple[str, *tuple[int, ...]]],
) -> None:
    world = World()
    world.append(3, 1)
    world.catch_up()
    began = world.ever[-1].number
    world.heard.clear()
    for step, *arguments in story:
        getattr(world, step)(*arguments)
    world.append(1, 1)  # the end is told before what follows it
    world.catch_up()
    check(world.heard, world.ever, began, unknown=True)


class Careful(History):
    """Understands each bell as it rings."""

    def hear(self, raw: bytes, server: bytes = b"") -> bool:
        heard = super().hear(raw, server)
        self._understand()
        return heard


@settings(max_examples=500)
@given(st.lists(steps, max_size=25))
def test_a_bell_that_nobody_had_to_understand_changed_nothing(story: list[tuple[str, *tuple[int, ...]]]) -> None:
    """The usual read and bell take a short cut: whatever follows is as if they had not."""
    usual, careful = World(), World()
    careful.node = Careful()
    for step, *arguments in [("append", 3, 1), ("catch_up",), *story]:
        for world in (usual, careful):
            getattr(world, step)(*arguments)
        assert _told(usual) == _told(careful)
    assert _known(usual.node) == _known(careful.node)  # to look at its bells is to understand them


def _told(world: World) -> list[Gap | int]:
    return [item if isinstance(item, Gap) else item.number for item in world.heard]


def _known(node: History) -> tuple[object, ...]:
    bells = node.bells
    return node.state, node.cursor, node.epoch, node.lines, node.sure, bells._heard, bells._runs, bells._begun


class Server:
    """The model's log as pages are read of it."""

    def __init__(self, log: list[Stored]) -> None:
        self._log = log

    async def ask_master(self, command: str, key: bytes, start: str, end: str, *count: object) -> Raw:
        low, high = (start, end) if command == "XRANGE" else (end, start)
        bottom, top = _bound(low, START), _bound(high, EntryId(2**63, 0))
        found = [entry for entry in self._log if bottom <= entry.id <= top and f"({entry.id}" not in (low, high)]
        ours = b"v 1 b 1 f s u 0 m 1".split()
        most = cast(int, count[1])
        return [(str(entry.id).encode(), ours) for entry in (found if command == "XRANGE" else found[::-1])[:most]]


@settings(max_examples=500)
@given(st.lists(steps, max_size=16))
# Found in 100,000 stories: ids that agree with what is known of two logs, or of the log and of one that is gone.
@example([("replace", 5), ("append", 1, 1), ("catch_up",), ("append", 1, 1), ("append", 1, 3), ("flush",)])
@example([("flush",), ("go_back", 0, 5), ("append", 1, 2), ("append", 1, 3), ("go_back", 1, 0)])
@example([("flush",), ("go_back", 0, 5), ("append", 1, 2), ("append", 2, 3), ("go_back", 2, 0)])
@example(
    [("flush",), ("append", 1, 0), ("read", 1), ("replace", 5), ("append", 3, 0), ("catch_up",), ("go_back", 2, 0)]
)
@example([("go_back", 0, 5), ("catch_up",), ("flush",), ("append", 3, 0), ("catch_up",), ("trim", 2)])
def test_who_comes_back_with_what_the_node_had_read_is_told_what_was_lost_since(
    story: list[tuple[str, *tuple[int, ...]]],
) -> None:
    """From wherever: before one seam, before the next, or in the log as it is."""
    world = World.after(story)
    there = {entry.id: entry for entry in world.log}
    feed = Feed(b"log", cast(Follower, None), 1)
    feed.seams = world.node.seams
    reads = Reads(cast(Lane, Server(world.log)), 1, Metrics())
    times = Counter(entry.id for entry in world.ever)

    async def come_back(had: Stored) -> list[Stored | Gap]:
        told: list[Stored | Gap] = []
        for piece in await reads.after(feed, had.id, world.node.cursor, 1_000):
            told += [piece] if isinstance(piece, Gap) else [there[entry.id] for entry in piece]
        return told

    for had in (item for item in world.heard if isinstance(item, Stored)):
        # Ids are no proof where they are the same by chance, or stand as if they were right behind a seam.
        twice = times[had.id] > 1 or any(
            entry.id.before() == had.id and entry.epoch != had.epoch for entry in world.ever
        )
        as_if = any(seam.kept < had.id <= seam.high and seam.kept.n == had.id.n for seam in feed.seams)
        if not (twice or as_if):
            told = asyncio.run(come_back(had))
            check(told, world.ever, had.number, unknown=True)
            if had.id in there and world.node.owes(had.id, world.node.past):
                assert any(isinstance(item, Gap) for item in told), "the welcome says no more"
