"""What waits to be published: senders take turns, byte for byte. Bounded by entries and bytes; no I/O here.

One sender's messages stay in order. Between senders it is self-clocked fair queueing (S. J. Golestani, INFOCOM 1994):
a message is due as far behind its sender's last one as it costs, and what is due first goes first. Who said nothing
lately has CREDIT, so that one word does not wait for a round of everybody's long letters. So whoever says much waits
behind himself and not before others.
"""

import asyncio
import heapq
from collections import OrderedDict, deque
from typing import Generic, Protocol, TypeVar

# What an entry costs the broker beside its bytes, in bytes: of two senders with equal bytes, the one with a thousand
# small messages keeps it busier.
ENTRY_COST_BYTES = 4_096
# One of the largest messages: so far before what is being sent now a sender is due who said nothing lately.
CREDIT = 65_536 + ENTRY_COST_BYTES
# One sender may hold so much of the space that is left: alone, a publish_window (32) of the largest messages; among
# a thousand, little, and for who comes next there is still space (dynamic thresholds: Choudhury and Hahne, 1998).
SHARE = 1 / 32


class Waiting(Protocol):
    """What can wait here."""

    sender: str
    message: bytes
    deadline: float


W = TypeVar("W", bound=Waiting)


class Line:
    """What one sender has in the queue."""

    __slots__ = ("bytes", "due", "entries")

    def __init__(self) -> None:
        self.entries = 0
        self.bytes = 0
        # When its last message is (or was) due, on the queue's clock.
        self.due = -CREDIT


class FairQueue(Generic[W]):
    """`full` names its bound; whoever puts must wait for `space` before."""

    def __init__(self, entries_max: int, bytes_max: int) -> None:
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        # What one sender may hold while nobody else holds anything: while all hold less, nobody has to wait.
        self._alone_entries = int(entries_max * SHARE / (1 + SHARE))
        self._alone_bytes = int(bytes_max * SHARE / (1 + SHARE))
        # What nobody ranked yet: while one call holds all that waits, it does not matter whose turn it is.
        self._unranked: list[W] = []
        # A heap of (when it is due, how many were put before, what waits).
        self._heap: list[tuple[int, int, W]] = []
        self._lines: dict[str, Line] = {}
        # Lines that became empty and when their last was due: remembered until it is worth no debt any more.
        self._spent: deque[tuple[int, str]] = deque()
        self._put = 0
        # The queue's clock, in bytes: when that was due which was taken. It begins anew whenever the queue is empty.
        self._clock = 0
        self.bytes = 0
        # Who waits for space, the longest first.
        self._spaces: OrderedDict[asyncio.Future[None], None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._heap) + len(self._unranked)

    def put(self, item: W) -> None:
        """Let it wait its turn. Never refuses: `full` is to be asked before."""
        self._unranked.append(item)
        self.bytes += len(item.message)

    def _rank(self) -> None:
        """Note when each is due that was put since. To be called before the clock moves."""
        for item in self._unranked:
            size = len(item.message)
            line = self._lines.get(item.sender)
            if line is None:
                line = self._lines[item.sender] = Line()
            line.due = max(line.due, self._clock - CREDIT) + size + ENTRY_COST_BYTES
            line.entries += 1
            line.bytes += size
            self._put += 1
            heapq.heappush(self._heap, (line.due, self._put, item))
        self._unranked.clear()

    def take(self, entries_max: int, bytes_max: int) -> list[W]:
        """Who is due next, at most so many and so much; one item at least, if any waits."""
        if len(self) <= entries_max and self.bytes <= bytes_max:
            return self._take_all()
        self._rank()
        taken: list[W] = []
        size = 0
        while self._heap and len(taken) < entries_max:
            size += len(self._heap[0][2].message)
            if taken and size > bytes_max:
                break
            due, _, item = heapq.heappop(self._heap)
            self._clock = max(self._clock, due)
            self._out(item)
            taken.append(item)
        self._forget()
        self._wake(len(taken))
        return taken

    def _take_all(self) -> list[W]:
        """The usual case: nobody has to wait for a second call."""
        taken = [item for _, _, item in sorted(self._heap)] + self._unranked
        self._heap.clear()
        self._unranked.clear()
        self.bytes = 0
        self._forget()
        self._wake(len(taken))
        return taken

    def withdraw(self, now: float) -> list[W]:
        """Take out those whose deadline is over, in the order they came."""
        self._rank()
        if not any(item.deadline <= now for _, _, item in self._heap):
            return []
        over = sorted((put, item) for _, put, item in self._heap if item.deadline <= now)
        self._heap = [place for place in self._heap if place[2].deadline > now]
        heapq.heapify(self._heap)
        for _, item in over:
            self._out(item)
        self._forget()
        self._wake(len(over))
        return [item for _, item in over]

    def _out(self, item: W) -> None:
        size = len(item.message)
        line = self._lines[item.sender]
        line.entries -= 1
        line.bytes -= size
        self.bytes -= size
        if not line.entries:
            self._spent.append((line.due, item.sender))

    def _forget(self) -> None:
        if not self._heap:
            self._lines.clear()
            self._spent.clear()
            self._clock = 0
        while self._spent and self._spent[0][0] <= self._clock - CREDIT:
            due, sender = self._spent.popleft()
            line = self._lines.get(sender)
            if line is not None and line.due == due and not line.entries:
                del self._lines[sender]

    def full(self, sender: str) -> bool:
        """Whether this sender has to wait for space."""
        if len(self) < self._alone_entries and self.bytes < self._alone_bytes:
            return False
        self._rank()
        entries, size = (self._entries_max - len(self)) * SHARE, (self._bytes_max - self.bytes) * SHARE
        line = self._lines.get(sender)
        if line is None or not line.entries:
            return entries <= 0 or size <= 0
        return line.entries >= entries or line.bytes >= size

    async def space(self, sender: str) -> None:
        """Wait until `full` is over. The caller puts in the same turn of the loop: others wait for that space too."""
        while self.full(sender):
            space = asyncio.get_running_loop().create_future()
            self._spaces[space] = None
            try:
                await space
            finally:
                self._spaces.pop(space, None)  # still there: who waited is gone

    def _wake(self, count: int) -> None:
        """So many went: as many may look whether there is space for them. Nobody waits at an empty queue."""
        while self._spaces and (count or not self._heap):
            space, _ = self._spaces.popitem(last=False)
            if not space.done():  # its task is being cancelled
                space.set_result(None)
                count -= 1
