"""The publisher's queue: whoever says much waits behind himself and not before others, and nobody is forgotten."""

import asyncio
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from gateway.broker.fair_queue import SHARE, FairQueue

LONG = b"x" * 65_536


@dataclass(eq=False)
class Said:
    sender: str
    message: bytes
    deadline: float = 10.0


def queue(entries_max: int = 20_000, bytes_max: int = 64 * 1024 * 1024) -> FairQueue[Said]:
    return FairQueue(entries_max, bytes_max)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 4), st.integers(0, 70_000), st.integers(0, 20)),
        st.tuples(st.just("take"), st.integers(1, 5), st.integers(0, 200_000), st.just(0)),
        st.tuples(st.just("withdraw"), st.integers(0, 20), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@given(steps)
def test_everything_comes_out_once_and_each_sender_in_order(work: list[tuple[str, int, int, int]]) -> None:
    waiting = queue()
    put: list[Said] = []
    taken: list[Said] = []
    withdrawn: list[Said] = []
    for step, a, b, c in work:
        if step == "put":
            waiting.put(said := Said(str(a), b"x" * b, float(c)))
            put.append(said)
        elif step == "take":
            batch = waiting.take(a, b)
            assert len(batch) <= a and (len(batch) <= 1 or sum(len(said.message) for said in batch) <= b)
            assert batch or not len(waiting)
            taken += batch
        else:
            over = waiting.withdraw(float(a))
            assert all(said.deadline <= a for said in over)
            withdrawn += over
        assert len(waiting) == len(put) - len(taken) - len(withdrawn)
        assert waiting.bytes == sum(len(said.message) for said in set(put) - set(taken) - set(withdrawn))
    while len(waiting):
        taken += waiting.take(1_000, 10**9)
    assert len(taken) + len(withdrawn) == len(put) == len({*taken, *withdrawn})
    for sender in "01234":
        theirs = [said for said in taken if said.sender == sender]
        assert theirs == sorted(theirs, key=put.index)
    assert not waiting._lines and not waiting._spent, "who said something once is not remembered"


class Eager(FairQueue[Said]):
    """The queue without its short cuts: each is ranked as it comes, and taken by rank."""

    def __init__(self, entries_max: int, bytes_max: int) -> None:
        super().__init__(entries_max, bytes_max)
        self._alone_entries = 0

    def put(self, item: Said) -> None:
        super().put(item)
        self._rank()

    def _take_all(self) -> list[Said]:
        taken = [item for _, _, item in sorted(self._heap)]
        for item in taken:
            self._out(item)
        self._heap.clear()
        self._forget()
        return taken


@given(steps, st.sampled_from([(40, 1_000_000), (200, 300_000), (20_000, 100_000)]))
def test_short_cuts_change_nothing_that_a_sender_could_tell(
    work: list[tuple[str, int, int, int]], bounds: tuple[int, int]
) -> None:
    """The same calls hold the same; it is full for the same. In one call it does not matter who stands first."""
    short, eager = FairQueue[Said](*bounds), Eager(*bounds)
    for step, a, b, c in work:
        assert [short.full(sender) for sender in "01234"] == [eager.full(sender) for sender in "01234"]
        if step == "put":
            said = Said(str(a), b"x" * b, float(c))
            short.put(said)
            eager.put(said)
        elif step == "take":
            ours, theirs = short.take(a, b), eager.take(a, b)
            assert (set(ours) == set(theirs)) if not len(short) else (ours == theirs)
        else:
            assert short.withdraw(float(a)) == eager.withdraw(float(a))
        assert (len(short), short.bytes) == (len(eager), eager.bytes)


def test_one_word_does_not_wait_for_a_round_of_long_letters() -> None:
    """300 strangers with 65 KB each, 19 times a second: other rooms waited 5 s, with everybody at half a core."""
    waiting = queue()
    for n in range(900):
        waiting.put(Said(f"stranger {n % 300}", LONG))
    waiting.take(1_024, 1_048_576)
    waiting.put(Said("quiet", b"hello"))
    assert waiting.take(1_024, 1_048_576)[0].sender == "quiet"


def test_who_says_much_has_no_turn_more_for_being_answered_in_between() -> None:
    """A line that is empty for a moment is remembered: else a loud one would be new again with each message."""
    waiting = queue()
    for _ in range(20):
        waiting.put(Said("steady", LONG))
    came = []
    for _ in range(18):
        waiting.put(Said("eager", LONG))
        came += [said.sender for said in waiting.take(1, 10**9)]
        came += [said.sender for said in waiting.take(1, 10**9)]
    assert 9 <= came[:20].count("eager") <= 11


def test_many_small_and_few_large_get_the_same() -> None:
    """Byte for byte, an entry's own cost included: a thousand words do not wait for ever, nor does one letter."""
    waiting = queue()
    for _ in range(30):
        waiting.put(Said("letters", LONG))
    for _ in range(600):
        waiting.put(Said("words", b"x" * 20))
    first = waiting.take(200, 10**9)
    letters = sum(said.sender == "letters" for said in first)
    assert 8 <= letters <= 14


def test_nobody_fills_the_queue_alone_and_there_is_space_for_who_comes_next() -> None:
    waiting = queue(entries_max=3_200, bytes_max=10**9)
    for stranger in range(50):
        while not waiting.full(f"stranger {stranger}"):
            waiting.put(Said(f"stranger {stranger}", b"x"))
    assert len(waiting) < 3_200 and not waiting.full("quiet")
    alone = queue(entries_max=3_200, bytes_max=10**9)
    while not alone.full("alone"):
        alone.put(Said("alone", b"x"))
    assert len(alone) == round(3_200 / (1 + 1 / SHARE))


def test_a_full_queue_is_full_for_everybody() -> None:
    waiting = queue(entries_max=10, bytes_max=10**9)
    for n in range(10):
        assert not waiting.full(str(n))
        waiting.put(Said(str(n), b""))
    assert waiting.full("new")
    by_bytes = queue(bytes_max=100)
    by_bytes.put(Said("a", b"x" * 100))
    assert by_bytes.full("new")


async def test_who_left_while_waiting_takes_nobodys_space() -> None:
    """Clients leave when a node is slow: their places used up the wake-ups of those who stayed."""
    waiting = queue(entries_max=3)
    for n in range(3):
        waiting.put(Said(f"first {n}", b""))
    gone = [asyncio.create_task(waiting.space(f"gone {n}")) for n in range(5)]
    stayed = asyncio.create_task(waiting.space("stayed"))
    await asyncio.sleep(0)
    for task in gone:
        task.cancel()
    await asyncio.wait(gone)
    waiting.take(1, 10**9)
    async with asyncio.timeout(5):
        await stayed


async def test_all_who_wait_for_space_get_it_and_the_bound_holds() -> None:
    """When space came, everybody who waited went in at once: 15,000 sockets, each with its message."""
    waiting = queue(entries_max=10)
    most = 0

    async def say(sender: str) -> None:
        nonlocal most
        for _ in range(5):
            await waiting.space(sender)
            waiting.put(Said(sender, b"x"))
            most = max(most, len(waiting))

    speakers = [asyncio.create_task(say(str(n))) for n in range(100)]
    speakers[50].cancel()
    taken = 0
    while taken < 99 * 5:
        await asyncio.sleep(0)
        taken += len(waiting.take(3, 10**9))
    await asyncio.gather(*speakers, return_exceptions=True)
    assert most <= 10
