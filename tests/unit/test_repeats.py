"""Log lines of one kind: the first of a minute are written, the others counted."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from gateway.telemetry.repeats import KINDS_MAX, LINES_MAX, PERIOD_S, Repeats


class Watch:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def log(watch: Watch) -> Iterator[Callable[..., dict[str, Any] | None]]:
    repeats = Repeats(watch)

    def one(event: str, method: str = "warning", **facts: object) -> dict[str, Any] | None:
        try:
            return dict(repeats(None, method, {"event": event, **facts}))
        except structlog.DropEvent:
            return None

    yield one


Log = Callable[..., dict[str, Any] | None]


def test_the_first_lines_of_a_kind_are_whole_and_the_last_of_them_says_that_there_may_be_more(log: Log) -> None:
    lines = [log("log rewound", key=f"room{n}") for n in range(1_000)]
    written = [line for line in lines if line is not None]
    assert len(written) == LINES_MAX and written == lines[:LINES_MAX]
    assert written[0] == {"event": "log rewound", "key": "room0"}
    assert written[-1]["more"] == f"left out for {PERIOD_S:.0f} s"


def test_the_next_period_begins_with_how_many_were_left_out(log: Log, watch: Watch) -> None:
    for _ in range(LINES_MAX + 7):
        log("log rewound")
    watch.at += PERIOD_S
    assert log("log rewound") == {"event": "log rewound", "left_out": 7}
    assert log("log rewound") == {"event": "log rewound"}


def test_one_kind_does_not_silence_another(log: Log) -> None:
    for _ in range(LINES_MAX * 2):
        log("log rewound")
    assert log("node is gone") is not None


def test_numbers_make_no_new_kind_and_the_field_kind_decides_before_the_text(log: Log) -> None:
    assert sum(log(f"node {n} did not end") is not None for n in range(100)) == LINES_MAX
    assert sum(log(f"bad request {'x' * n}", kind="a library's") is not None for n in range(100)) == LINES_MAX


def test_what_is_asked_for_at_level_debug_comes_whole(log: Log) -> None:
    assert all(log("detail", method="debug") is not None for _ in range(LINES_MAX * 2))


def test_kinds_are_bounded_and_the_oldest_goes_first(log: Log) -> None:
    """A text that a stranger makes up each time is a new kind each time."""
    words = [f"{'a' * (n % 26)}-{'b' * (n // 26)}" for n in range(KINDS_MAX * 2)]
    for _ in range(LINES_MAX):
        log("flood")
    for word in words:
        assert log(word) is not None
        assert log("flood") is None, "what comes again and again is not forgotten"
