"""Which history of a log a node has read, and where the log parted from it. Pure: the reader and the groups carry out.

`TABLE` is all there is to the states: what follows what. A test walks it, and docs/design.md prints it.
"""

from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from enum import Enum
from typing import NamedTuple

from gateway.core.bells import SERVER_DIGITS, Bells
from gateway.core.contiguity import Seam, ascends, contiguous, doubted, first_id, former, told
from gateway.core.contiguity import place as behind
from gateway.core.entry import START, Entry, EntryId, Gap, decode_bell, is_bell

# Seams and epochs remembered of one log. Who has more forgets the oldest.
SEAMS_MAX = 16
EPOCHS_MAX = 16
# Places looked at per step while searching for where two histories parted.
PART_PAGE = 256


class State(Enum):
    """How far the node may trust that its next read continues at its cursor."""

    DOUBTED = "the group must be put at the cursor, and the cursor be found in the log, before the next read"
    PROVEN = "the group stands at the cursor, and the log was just asked: what the next read brings is what there is"
    SHAKEN = "as doubted; but a read may be under way that was asked for when the log was just proven"
    FOLLOWING = "the group stands at the cursor: what the next read brings should continue it"

    # Enum's own is a function in Python, and TABLE is asked at each read.
    __hash__ = object.__hash__


class Event(Enum):
    """What happens to a log under a node's eyes."""

    DOUBT = "another server, a broken read, no group, a bell that no read bears out, a node taken for dead"
    NO_LOG = "asked: there is no such log"
    FOUND = "asked: the cursor's entry is in the log"
    PARTED = "asked: it is not, and the cursor was put back to the newest entry that both have"
    NEXT = "read: the next count, of the same epoch"
    OTHER = "read: anything else"
    NOTHING = "read: nothing new"

    __hash__ = object.__hash__


class Move(NamedTuple):
    """Where an event leads, and what is done."""

    to: State
    what: str


_ASK = "the log will be asked before the next read"
_READ_AGAIN = "not delivered: the log is asked, and this is read again"
TABLE = {
    **{
        move: step
        for state in (State.DOUBTED, State.SHAKEN)
        for move, step in {
            (state, Event.DOUBT): Move(state, "–"),
            (state, Event.NO_LOG): Move(State.DOUBTED, "nothing to read until a bell rings"),
            (state, Event.FOUND): Move(State.PROVEN, "read on"),
            (state, Event.PARTED): Move(State.PROVEN, "read on from there; what comes next crosses a seam"),
        }.items()
    },
    (State.PROVEN, Event.DOUBT): Move(State.SHAKEN, _ASK),
    (State.FOLLOWING, Event.DOUBT): Move(State.DOUBTED, _ASK),
    (State.SHAKEN, Event.NEXT): Move(State.DOUBTED, "delivered"),
    (State.SHAKEN, Event.OTHER): Move(State.DOUBTED, "what is missing is told, the rest delivered"),
    (State.SHAKEN, Event.NOTHING): Move(State.DOUBTED, "–"),
    (State.DOUBTED, Event.NEXT): Move(State.DOUBTED, "delivered: this read was under way when the doubt came"),
    (State.DOUBTED, Event.OTHER): Move(State.DOUBTED, _READ_AGAIN),
    (State.DOUBTED, Event.NOTHING): Move(State.DOUBTED, "–"),
    (State.PROVEN, Event.NEXT): Move(State.FOLLOWING, "delivered"),
    (State.PROVEN, Event.OTHER): Move(State.FOLLOWING, "what is missing is told, the rest delivered"),
    (State.PROVEN, Event.NOTHING): Move(State.FOLLOWING, "–"),
    (State.FOLLOWING, Event.NEXT): Move(State.FOLLOWING, "delivered"),
    (State.FOLLOWING, Event.OTHER): Move(State.DOUBTED, _READ_AGAIN),
    (State.FOLLOWING, Event.NOTHING): Move(State.FOLLOWING, "–"),
}


class Place(NamedTuple):
    """An entry of a log: which one, and of which history."""

    id: EntryId
    epoch: bytes


class Question(NamedTuple):
    """Which places of a log are asked for (places.lua): the `most` newest between two ids; below 0 the oldest."""

    low: str
    high: str
    most: int


# Before the first entry of a log.
NOWHERE = Place(START, b"")


def may_be_one(epoch: bytes, other: bytes) -> bool:
    """Whether two entries may be of one epoch: an older node's have none."""
    return epoch == other or not (epoch and other)


class History:
    """One log as one node knows it: the cursor, the epochs below it, bells above it, and the seams it crossed."""

    __slots__ = (
        "_bells", "_epochs", "_left", "_more", "_puzzled", "_ringer", "_since", "cursor", "epoch", "numbered",
        "parting", "rung", "seams", "state", "sure",
    )  # fmt: skip

    def __init__(self) -> None:
        self.state = State.DOUBTED
        # The id of the last entry delivered, and its epoch.
        self.cursor: EntryId = START
        self.epoch = b""
        # Epochs that ended below the cursor's, each with its last count; below `_since` nothing is known.
        self._epochs: list[tuple[bytes, int]] = []
        self._since: EntryId = START
        # What rang and was not read up to. `sure`: no bell was missed since the log was last read to its end.
        self._bells = Bells()
        self.sure = False
        # The newest bell over the present connection, as it rang; empty: none. Who rang it is known while nobody had
        # to understand it yet: what a read brings is nearly always just what it says.
        self.rung = b""
        self._ringer: bytes | None = None
        # Whether bells rang for what the log had not, when it was last asked.
        self._puzzled = False
        # Seams crossed; and the one before which the live sessions stand until the log has an entry behind it.
        self.seams: list[Seam] = []
        self.parting: Seam | None = None
        self._more: int | None = 0
        # The epoch of the log that it parted from.
        self._left = b""
        # Of the newest seam.
        self.numbered = 0

    def on(self, event: Event) -> State:
        """Move on by the table. KeyError, and nothing changed: this can't happen in this state."""
        self.state = TABLE[self.state, event].to
        return self.state

    def start(self, cursor: EntryId, epoch: bytes) -> None:
        """Begin to follow at the log's newest entry."""
        self.cursor = self._since = cursor
        self.epoch = epoch

    # ---- what rang ----

    def hear(self, raw: bytes, server: bytes = b"") -> bool:
        """A bell, if it is one. `server`: the one at the other end of its connection; empty: it is not known."""
        if not is_bell(raw):
            return False
        self._understand()
        self.rung, self._ringer = raw, server
        return True

    def unhear(self) -> None:
        """Bells may have been missed: what was heard says how far the log got once, not where it ends."""
        self._understand()
        self.sure = False
        self.rung = b""

    @property
    def bells(self) -> Bells:
        """What rang above the cursor and was not read up to."""
        self._understand()
        return self._bells

    def _understand(self) -> None:
        """To be called before the cursor moves: a bell for where it stands rang for what was read before."""
        if self._ringer is not None:
            bell, ringer, self._ringer = decode_bell(self.rung), self._ringer, None
            if bell is not None and bell.id != self.cursor:
                self._bells.hear(bell, ringer)

    # ---- where others stand ----

    @property
    def newest(self) -> EntryId:
        """The newest entry delivered: above the cursor while that was put back, and nothing came since."""
        return self.parting.read if self.parting is not None else self.cursor

    @property
    def lines(self) -> list[Seam]:
        """All seams known, the one that is not crossed yet among them."""
        return [*self.seams, self.parting] if self.parting is not None else self.seams

    @property
    def past(self) -> int:
        """The newest seam crossed: whoever has an entry of the log as it is has it, and all before it, behind him."""
        return self.seams[-1].number if self.seams else 0

    def astray(self, cursor: EntryId, past: int = 0) -> bool:
        """Whether the order of ids does not tell where this cursor stands: perhaps before a seam above `past`."""
        return any(
            seam.kept < cursor <= seam.high and seam.number > past and not ascends(self.seams, index)
            for index, seam in enumerate(self.seams)
        )

    def owes(self, cursor: EntryId, past: int = 0) -> bool:
        """Whether somebody with this cursor, `past` so many seams, lost something to one, for all this node knows."""
        lines = self.lines
        n, index = cursor.n, former(lines, cursor, past)
        if index is not None and doubted(lines, index, cursor, past):
            return True
        for at in range(index or 0, len(lines)):
            seam, first = lines[at], behind(lines, at)
            if index is None and first != START and first.before() <= cursor:
                continue
            if seam.lost(n) != 0:
                return True
            n = min(n, seam.kept.n)
        return False

    # ---- what the log said when it was asked ----

    @property
    def puzzled(self) -> bool:
        """Whether bells rang for what the log has not got, though it is the log that was read."""
        return self._puzzled and self.parting is None

    def found(self, there: Mapping[EntryId, bool]) -> None:
        """The cursor's entry is in the log. `there`: whether what bells announced is, too."""
        self.on(Event.FOUND)
        self._puzzled = self.bells.listen(there)
        if self.parting is not None:
            self._part(self.parting.kept, self.parting.read)
        elif not self._puzzled:
            self.bells.fulfil(self.cursor, [id for id, here in there.items() if here])

    def disbelieve(
        self, there: Mapping[EntryId, bool], server: bytes, oldest: EntryId, newest: EntryId
    ) -> list[EntryId]:
        """The log's ends, and whose history it is in: forget the bells that rang for another log, and return them.

        Where others remain and the log has nothing behind the cursor, it parted from theirs right there.
        """
        lies, more = self.bells.disbelieve(there, server, oldest)
        if more and newest == self.cursor != START:
            self.numbered += 1
            self._more, self._left = 0, self.epoch
            self._part(newest, newest)
        return lies

    def part(
        self, there: Mapping[EntryId, bool], recent: Collection[EntryId], server: bytes
    ) -> Generator[Question, list[Place], None]:
        """The cursor's entry is not in the log. Trimmed away, all below it is too; otherwise find where the two parted.

        What lies above that place is to be read anyway. Asks its questions of the log, one at a time; the cursor then
        stands where the group has to.
        """
        oldest = yield Question("-", "+", -1)
        if not oldest or (oldest[0].id.n > self.cursor.n and may_be_one(oldest[0].epoch, self.epoch)):
            return self.found(there)  # the counts tell
        if oldest[0].id.n > self.cursor.n or not self._had(oldest[0], recent, server):
            return self._parted(NOWHERE, there, known=oldest[0].id.n <= 1)
        high = "+"
        while page := (yield Question("-", high, PART_PAGE)):
            for place in page:
                if self._had(place, recent, server):
                    return self._parted(place, there, known=True)
            high = f"({page[-1].id}"
        return self._parted(NOWHERE, there, known=False)  # trimmed meanwhile

    def _parted(self, kept: Place, there: Mapping[EntryId, bool], known: bool) -> None:
        """`known`: False where what would tell was trimmed away."""
        self.on(Event.PARTED)
        if self.parting is None:
            self.numbered += 1
            self._more, self._left = 0, self.epoch
        if not known or (kept == NOWHERE and not self.sure):
            self._more = None
        self._puzzled = self.bells.listen(there)
        self._part(kept.id, self.newest)
        self.cursor, self.epoch = kept
        self._since = min(self._since, kept.id)
        self._epochs = [(epoch, last) for epoch, last in self._epochs if last < kept.id.n]

    def _had(self, place: Place, recent: Collection[EntryId], server: bytes) -> bool:
        """Whether an entry of the log was on the way to the cursor.

        What is older than all that is remembered was, if the present `server` did not write it; an older node's entries
        have no epoch, and are known by `recent`, ids lately delivered.
        """
        id, epoch = place
        if not (epoch and self.epoch):
            return id in recent or id < min(recent, default=self.cursor)
        if epoch == self.epoch:
            return id.n <= self.cursor.n
        if any(epoch == other and id.n <= last for other, last in self._epochs):
            return True
        return id < self._since and id.n < self._since.n and epoch[:SERVER_DIGITS] != server

    def _part(self, kept: EntryId, read: EntryId) -> None:
        """A first account; the last is given when the log has an entry behind the seam."""
        high, more = self.bells.end(self.bells.before(self._left), kept, read, self._more, self._left)
        self.parting = Seam(self.numbered, kept, high, read, more)

    # ---- what was read ----

    def take(
        self, stretch: list[Entry | Gap], first: bytes, last: bytes, epochs: Callable[[], list[bytes]], end: bytes = b""
    ) -> Iterable[list[Entry] | Gap] | None:
        """What a read brought, as the live sessions are told it; None: not before the log was asked, and read again.

        `first`, `last`: the epochs of its ends; `epochs`: of all of it, asked for only where they differ; `end`: the
        last id, as the broker wrote it. The cursor then stands there.
        """
        id, cursor = first_id(stretch[0]), self.newest
        sure = bool(first and self.epoch)
        continues = id.n == self.cursor.n + 1 and (first == self.epoch if sure else id > self.cursor)
        whole = continues and first == last and self.parting is None
        if whole or (continues and not self.bells):
            self.on(Event.NEXT)
        else:
            proven = self.state in (State.PROVEN, State.SHAKEN)
            self.on(Event.OTHER)
            if not proven:
                return None
        if whole and self._ringer is not None and self.rung == end and id.n > 1 and not self._bells:
            # The usual bell is the only one and says where this ends: nobody has to understand it.
            self._ringer = None
            self.cursor, self.epoch = first_id(stretch[-1]), last
            return contiguous(cursor, stretch)
        bells = self.bells
        if id.n == 1 and self.parting is None:
            bells.begin(id)
        if whole:
            pieces = contiguous(cursor, stretch)
        else:
            line, crossed = self._cross(stretch, epochs())
            pieces = told(crossed, cursor, stretch, line)
        self.cursor, self.epoch = first_id(stretch[-1]), last
        if bells and bells.fulfil(self.cursor) and bells.begun:
            bells.fulfil(self.cursor, [first_id(item) for item in stretch])
        return pieces

    def _cross(self, stretch: list[Entry | Gap], epochs: list[bytes]) -> tuple[int | None, list[Seam]]:
        """Note the seams on the way over a stretch; 0 where the live sessions stand before the first of them."""
        crossed, line = list[Seam](), None
        before, epoch = self.cursor, self.epoch
        if self.parting is not None:
            number, kept, _, read, _, _ = self.parting
            anew = kept == START
            runs = self.bells.before_anew(self._left, epochs) if anew else self.bells.before(self._left, epochs)
            high, more = self.bells.end(runs, kept, read, self._more, self._left)
            self.bells.use_up(runs, anew)
            first = first_id(stretch[0])
            if first.n == 1:
                self.bells.begin(first)
            crossed.append(Seam(number, kept, high, read, more, first))
            self.parting, line = None, 0
            self._end(epoch, before)
            epoch = epochs[0]
        for at, (item, following) in enumerate(zip(stretch, epochs, strict=True)):
            id = first_id(item)
            if epoch and following and epoch != following:
                runs = self.bells.before(epoch, epochs[at:], before.n)
                high, more = self.bells.end(runs, before, before, 0 if id.n == before.n + 1 else None, epoch)
                self.bells.use_up(runs)
                if high != before or more != 0:
                    self.numbered += 1
                    crossed.append(Seam(self.numbered, before, high, before, more, id))
            if epoch != following:
                self._end(epoch, before)
            before, epoch = id, following
        self.seams = [*self.seams, *crossed][-SEAMS_MAX:]
        return line, crossed

    def _end(self, epoch: bytes, last: EntryId) -> None:
        if epoch:
            self._epochs = [*self._epochs[1 - EPOCHS_MAX :], (epoch, last.n)]
