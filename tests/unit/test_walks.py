"""What walks share, and that they leave the loop to others after each step."""

import asyncio
import itertools

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.entry import Entry, EntryId
from gateway.core.wires import PLAIN, V1
from gateway.rooms.walks import CHUNK_MEMORY_BYTES, WALK_BYTES, Chunk, Walks, chunk_of

puts = st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(0, 3_000))


@given(st.lists(st.one_of(puts, st.integers(0, 3)), max_size=80), st.integers(0, 20_000))
def test_chunks_stay_within_their_bytes_and_a_log_takes_its_own_along(
    work: list[tuple[int, int, int] | int], bytes_max: int
) -> None:
    """A number: this log is forgotten."""
    walks, logs = Walks(bytes_max), [object() for _ in range(4)]
    shared: dict[tuple[object, object, EntryId], Chunk] = {}
    for step in work:
        if isinstance(step, int):
            walks.forget(logs[step])
            shared = {place: chunk for place, chunk in shared.items() if place[0] is not logs[step]}
        else:
            log, n, size = step
            place = (logs[log], V1, EntryId(1, n))
            if place not in walks:
                shared[place] = Chunk(b"x" * size, EntryId(2, n), 1)
                walks.share(place, shared[place])
        held = {place: chunk for place, chunk in shared.items() if place in walks}
        assert walks.bytes == sum(CHUNK_MEMORY_BYTES + len(chunk.frames) for chunk in held.values()) <= bytes_max
        assert all(walks.chunk(place) is chunk for place, chunk in held.items())
    for log in logs:
        walks.forget(log)
    assert walks.bytes == 0 and not walks._places


def test_what_was_used_lately_is_kept() -> None:
    walks, log = Walks(3 * CHUNK_MEMORY_BYTES), object()
    places = [(log, V1, EntryId(1, n)) for n in range(4)]
    for place in places[:3]:
        walks.share(place, Chunk(b"", EntryId(2, 1), 1))
    assert walks.chunk(places[0]) is not None
    walks.share(places[3], Chunk(b"", EntryId(2, 1), 1))
    assert places[0] in walks and places[1] not in walks


async def test_between_two_steps_everybody_else_has_a_turn() -> None:
    """Forty who came back wrote their steps one after the other: others waited 126 ms, and that for each turn."""
    walks, happened = Walks(0), []

    async def walk() -> None:
        for _ in range(5):
            async with walks.turn():
                happened.append("step")

    async def others() -> None:
        while True:
            happened.append("others")
            await asyncio.sleep(0)

    rest = asyncio.create_task(others())
    await asyncio.gather(*(walk() for _ in range(40)))
    rest.cancel()
    assert happened.count("step") == 200
    assert not any(one == two == "step" for one, two in itertools.pairwise(happened))


@given(st.lists(st.integers(0, 50_000), min_size=1, max_size=80))
def test_a_step_has_its_bytes_and_one_message_at_least(sizes: list[int]) -> None:
    entries = [Entry(EntryId(1, n + 1), "s", b"", b"x" * size) for n, size in enumerate(sizes)]
    chunk = chunk_of(PLAIN, b'"r"', entries)
    assert chunk.reached == entries[chunk.entries - 1].id
    assert chunk.frames == b"".join(PLAIN.message(b'"r"', entry) for entry in entries[: chunk.entries])
    assert chunk.entries == 1 or sum(sizes[: chunk.entries]) <= WALK_BYTES
    assert chunk.entries == len(sizes) or sum(sizes[: chunk.entries + 1]) > WALK_BYTES
