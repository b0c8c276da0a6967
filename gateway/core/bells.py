"""What bells tell of a log above where it was read; also of logs that are gone since, where nothing else can. Pure."""

from collections.abc import Collection, Container, Iterable, Mapping
from itertools import takewhile
from typing import NamedTuple

from gateway.core.entry import Bell, EntryId

# Bells heard of a log and not yet read up to. Where more come, the last one stands for them.
BELLS_MAX = 16
# The head of an epoch: which server's history it is of, by its master_replid. The tail tells logs of one name apart.
SERVER_DIGITS = 10


class Run(NamedTuple):
    """Bells, one after the other, of one log that is gone: the present one has not got what they announced."""

    # The count of the bell before them that the present log bears out; 0: there was none.
    behind: int
    high: EntryId
    # When that log began, if it began with these bells: the ms of its first entry.
    began: int | None
    # The server by whose connection they came.
    rang: bytes
    # They are among the first so many of all bells.
    upto: int


class Bells:
    """Bells as they came. Which of them are of a log that is gone, `listen` finds out; a seam uses those up."""

    __slots__ = ("_begun", "_borne", "_heard", "_runs")

    def __init__(self) -> None:
        self._heard: list[tuple[Bell, bytes]] = []
        self._runs: list[Run] = []
        # Whether the log has the entry of a bell that said it began.
        self._borne = False
        # When the log that is read began, if that is known: the ms of its first entry.
        self._begun: int | None = None

    def __bool__(self) -> bool:
        return bool(self._heard)

    @property
    def begun(self) -> bool:
        """Whether the first of them says that its log began."""
        return bool(self._heard) and self._heard[0][0].begun

    def hear(self, bell: Bell, rang: bytes) -> None:
        """One more. `rang`: the server at the other end, as the heads of its epochs name it."""
        if len(self._heard) < BELLS_MAX or (bell.begun and len(self._heard) < 2 * BELLS_MAX):
            self._heard.append((bell, rang))
        elif not bell.begun and self._heard[-1][0].id < bell.id:
            self._heard[-1] = (Bell(bell.id, self._heard[-1][0].begun), rang)

    def begin(self, first: EntryId) -> None:
        """The log that is read begins with this entry."""
        self._begun = first.ms

    def fulfil(self, cursor: EntryId, ids: Container[EntryId] = ()) -> bool:
        """Forget those that the cursor has reached; `ids`: what was read, or is in the log. Whether any are left.

        One that a log began with is of this log only if its very entry is.
        """
        self._runs = []  # of what the log said a read ago
        while self._heard:
            bell, _ = self._heard[0]
            ours = not bell.begun or bell.id.ms == self._begun or bell.id in ids
            if bell.id.n > cursor.n or not ours:
                return True
            del self._heard[0]
        return False

    # ---- which of them are of logs that are gone ----

    def announced(self) -> list[EntryId]:
        """Ids to ask the log for."""
        return list(dict.fromkeys(bell.id for bell, _ in self._heard))

    def listen(self, there: Mapping[EntryId, bool]) -> bool:
        """Sort them by the log's answers. Whether any is of another log than the present one."""
        runs, behind, self._borne = list[Run](), 0, False
        for upto, (bell, rang) in enumerate(self._heard, 1):
            if bell.id not in there:
                break  # it rang meanwhile
            if there[bell.id]:
                behind = bell.id.n
                self._borne |= bell.begun
            elif runs and not bell.begun and runs[-1][0::3] == (behind, rang) and bell.id.n > runs[-1].high.n:
                runs[-1] = runs[-1]._replace(high=bell.id, upto=upto)
            else:
                runs.append(Run(behind, bell.id, bell.id.ms if bell.begun else None, rang, upto))
        self._runs = runs
        return bool(runs)

    def disbelieve(self, there: Mapping[EntryId, bool], server: bytes, oldest: EntryId) -> tuple[list[EntryId], bool]:
        """Forget what the present server announced and its log has not got. Returns the part of it that was not trimmed
        away since: that rang for another log; and whether others are left that the log has not got."""
        gone = [bell.id for bell, rang in self._heard if rang == server and there.get(bell.id) is False]
        self._heard = [(bell, rang) for bell, rang in self._heard if bell.id not in gone]
        return [id for id in gone if id > oldest], self.listen(there)

    def before(self, epoch: bytes, later: Iterable[bytes] = (), upto: int = 0) -> int:
        """How many runs are of a log that ended in `epoch`, or came and went behind it.

        Not of the log that goes on in `later` epochs; nor behind a bell above `upto` that it bears out.
        """
        server, others = epoch[:SERVER_DIGITS], {one[:SERVER_DIGITS] for one in later}
        ours = takewhile(lambda run: run.behind <= upto and (run.rang == server or run.rang not in others), self._runs)
        return len(list(ours))

    def before_anew(self, epoch: bytes, later: Collection[bytes]) -> int:
        """As `before`, where the log that goes on has nothing of the former; the next run may be of its own end."""
        if self._borne:
            return sum(run.behind == 0 for run in self._runs)
        server = next(iter(later), b"")[:SERVER_DIGITS]
        begun = [at for at, run in enumerate(self._runs) if run.began is not None and run.behind == 0 < len(server)]
        own = [at for at in begun if self._runs[at].rang == server]
        return own[-1] if own else self.before(epoch, later)

    def end(
        self, runs: int, kept: EntryId, read: EntryId, more: int | None, epoch: bytes
    ) -> tuple[EntryId, int | None]:
        """By the first so many runs: the end of a log that was read up to `read`, in `epoch`; and how many entries came
        and went behind it beside `more`, None: nobody knows."""
        high = read
        for at, run in enumerate(self._runs[:runs]):
            if run.began not in (None, self._begun):
                more = None if more is None else more + run.high.n
            elif at == 0 and run.rang in (epoch[:SERVER_DIGITS], b""):
                high = run.high if run.high.n > high.n else high
            elif run.high.n > kept.n:
                more = None  # of a log that parted from one that is gone: who knows where
        return high, more

    def use_up(self, runs: int, anew: bool = False) -> None:
        """A seam accounts for the first so many runs. `anew`: behind it a log begins, perhaps with the next run."""
        used = self._runs[runs - 1].upto if runs else 0
        if anew:
            self._begun = self._runs[runs].began if len(self._runs) > runs else None
        self._runs = [run._replace(upto=run.upto - used) for run in self._runs[runs:]]
        del self._heard[:used]
