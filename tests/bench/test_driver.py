"""The driver as a judge: an honest floor is acquitted, each lie is found and counted, a stall is in the latency.

The lying floor is floor.c with lies.h compiled in: it tells one lie, at the write it is told.
"""

import asyncio
from pathlib import Path

import pytest

from bench import servers
from bench.drive import Run, Work, drive
from bench.machine import BenchError
from bench.servers import Server
from tests.bench.conftest import Programs
from tests.bench.deflating import deflating_room

# What has not come after so much silence is lost. Only where something is do these tests wait for it; at a load of 16
# an honest floor was silent for 0.4 s.
QUIET_S = 3.0
# 2 rooms × 20 members, 300 messages: 6,000 writes, every 20 of them one message.
WORK = Work(rooms=2, members=20, rate=600, seconds=0.4, warm=0.1, settle=0.05, quiet=QUIET_S)
WRITES = 6_000
COUNTS = ("lost", "doubled", "reordered", "foreign", "corrupt", "cut")


def run(programs: Programs, work: Work = WORK) -> Run:
    with servers.floor(programs.floor) as server:
        return drive(programs.driver, work, server)


def run_against(programs: Programs, monkeypatch: pytest.MonkeyPatch, lie: str, at: int, work: Work = WORK) -> Run:
    monkeypatch.setenv("LIE", lie)
    monkeypatch.setenv("LIE_AT", str(at))
    with servers.floor(programs.liar) as server:
        return drive(programs.driver, work, server)


def counts(run: Run) -> dict[str, int]:
    return {name: run.count(name) for name in COUNTS if run.count(name)}


@pytest.mark.parametrize(
    "work",
    [
        WORK,
        Work(members=2, rate=200, seconds=0.2, warm=0.0, settle=0.05),
        Work(rooms=30, members=1, rate=600, seconds=0.3, warm=0.0, settle=0.05),
        Work(members=8, rate=50, seconds=0.3, warm=0.0, settle=0.05, bytes=70_000),
    ],
    ids=["rooms", "two people", "alone", "large"],
)
def test_an_honest_server_is_acquitted(programs: Programs, work: Work) -> None:
    done = run(programs, work)
    assert done.wrongs() == []
    assert done.count("sent") == round(work.rate * (work.warm + work.seconds))
    assert done.count("delivered") == done.count("sent") * work.members
    assert done.result["latency_ms"]["count"] == round(work.rate * work.seconds) * work.members
    assert 0 < done.latency_ms("p50") <= done.latency_ms("p99") <= done.latency_ms("max")
    assert done.cpu_s("node") >= 0
    assert done.memory_bytes("done") > 0


@pytest.mark.parametrize(
    ("lie", "at", "found"),
    [
        ("drop", 1, {"lost": 1}),  # of the member that is read first, and by which the others are judged
        ("drop", 2_510, {"lost": 1}),
        ("drop", WRITES, {"lost": 1}),
        ("double", 1, {"doubled": 1}),
        ("double", 2_510, {"doubled": 1}),
        ("double", WRITES, {"doubled": 1}),
        ("corrupt", 2_510, {"corrupt": 1, "lost": 1}),
        ("elsewhere", 2_510, {"foreign": 1}),
    ],
)
def test_one_lie_among_thousands_is_found_and_counted(
    programs: Programs, monkeypatch: pytest.MonkeyPatch, lie: str, found: dict[str, int], at: int
) -> None:
    assert counts(run_against(programs, monkeypatch, lie, at)) == found


def test_two_messages_swapped_for_one_member_are_found(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    assert counts(run_against(programs, monkeypatch, "swap", 2_510)) == {"reordered": 1}


def test_a_member_that_is_cut_loses_the_rest(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run_against(programs, monkeypatch, "cut", WRITES // 2)
    assert done.count("cut") == 1
    assert 70 <= done.count("lost") <= 80  # of the 150 messages of its room it got the first 75
    assert done.count("delivered") + done.count("lost") == WRITES


def test_a_stall_counts_for_every_message_that_was_due_meanwhile(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver that waited for answers would see one slow message; 300 ms of 400 were slow."""
    done = run_against(programs, monkeypatch, "stall", 1_500)
    assert done.wrongs() == []
    assert done.latency_ms("max") >= 290
    assert done.latency_ms("p50") >= 50


def test_those_who_come_back_are_owed_everything_since_their_101(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work(members=40, rate=500, churn=20, seconds=1.0, warm=0.0, settle=0.05, quiet=QUIET_S)
    assert run(programs, work).wrongs() == []
    deaf = run_against(programs, monkeypatch, "deaf joiner", 40, work)
    assert deaf.count("lost") > 0
    assert set(counts(deaf)) == {"lost"}


def test_those_who_did_not_read_get_everything_when_they_do(programs: Programs) -> None:
    work = Work(members=12, stalled=3, receive_bytes=4096, rate=100, bytes=16_384, seconds=1.0, warm=0.0)
    done = run(programs, work)
    assert done.wrongs() == []
    assert done.count("delivered") == 100 * 12
    assert done.result["latency_ms"]["count"] == 100 * 9  # of those who read


@pytest.mark.parametrize("takeover", [False, True], ids=["context-free", "context takeover"])
async def test_compressed_frames_are_read(programs: Programs, takeover: bool) -> None:
    """With context takeover each session's bytes differ: the driver then compares messages, not bytes."""
    work = Work(members=6, rate=100, seconds=0.3, warm=0.0, settle=0.05, bytes=1024, deflate=True)
    async with deflating_room(takeover) as server:
        done = await asyncio.to_thread(drive, programs.driver, work, server)
    assert done.wrongs() == []
    assert done.count("delivered") == 30 * 6


def test_a_server_that_is_not_there_is_one_sentence(programs: Programs) -> None:
    with pytest.raises(BenchError, match="driver: connect: Connection refused"):
        drive(programs.driver, WORK, Server(servers.free_port(), {}))


def test_a_driver_that_gives_up_while_it_is_looked_at_has_the_last_word(tmp_path: Path) -> None:
    """Its memory is read at each event; it may be gone by then."""
    program = tmp_path / "driver"
    program.write_text("#!/bin/sh\necho 'driver: no luck' >&2; exec 2>&-\necho '{\"event\": \"connecting\"}'\n")
    program.chmod(0o755)
    with pytest.raises(BenchError, match="driver: no luck"):
        drive(program, WORK, Server(servers.free_port(), {}))
