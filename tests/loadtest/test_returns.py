"""When a user tries to come back, and what is said of its absence. No sockets."""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from loadtest.returns import (
    MINUTE_S,
    STEP_FIRST_S,
    STEP_LATE_MAX_S,
    STEP_MAX_S,
    Returns,
    WayBack,
    away,
    overdue,
    rows,
    together,
)

S = 1_000_000


def test_who_was_asked_to_wait_waits_so_long_and_a_jitter_on_top() -> None:
    way_back, random = WayBack(), Random(1)
    way_back.arrived(0, Returns())
    way_back.asked(3.0, 20 * S)
    way_back.lost(1012, 20 * S + 500)
    pauses = [way_back.pause_s(21 * S, random) for _ in range(100)]
    assert 2 <= min(pauses) < max(pauses) <= 2 + STEP_FIRST_S
    assert way_back.pause_s(24 * S, random) <= STEP_FIRST_S


def test_a_refusal_s_retry_after_is_waited_for() -> None:
    """The first handshake of all too."""
    way_back, random = WayBack(), Random(1)
    assert way_back.pause_s(0, random) == 0, "nobody waits before the first try"
    way_back.failed(0, 2)
    assert 2 <= way_back.pause_s(0, random) <= 2 + STEP_FIRST_S
    assert rows(together([])) == []
    way_back.arrived(3 * S, (returns := Returns()))
    assert overdue(returns).total == 0, "only what `reconnect` asked for can be overdue"


def test_for_a_minute_nobody_backs_off_further_than_some_seconds() -> None:
    way_back, random = WayBack(), Random(1)
    way_back.arrived(0, Returns())
    way_back.lost(1006, 20 * S)
    now_us, tried_s = 20 * S, []
    while now_us < 20 * S + 600 * S:
        now_us += int(way_back.pause_s(now_us, random) * S)
        tried_s.append(now_us / S - 20)
        way_back.failed(now_us)
    pauses = [after - before for before, after in pairwise([0, *tried_s])]
    early = [pause for pause, at in zip(pauses, tried_s, strict=True) if at <= MINUTE_S]
    late = [pause for pause, at in zip(pauses, tried_s, strict=True) if at - pause > MINUTE_S]
    assert max(early) <= STEP_MAX_S and early[0] <= STEP_FIRST_S
    assert STEP_MAX_S < max(late) <= STEP_LATE_MAX_S


def test_a_connection_that_does_not_last_was_a_try() -> None:
    """A server that lets in and cuts at once is not asked four times a second."""
    way_back, random = WayBack(), Random(1)
    now_us, comings = 0, 0
    while now_us < 50 * S:
        way_back.arrived(now_us, Returns())
        way_back.lost(1006, now_us)
        now_us += int(way_back.pause_s(now_us, random) * S)
        comings += 1
    assert comings < 60


def test_ten_thousand_clients_are_a_bearable_crowd_for_a_cold_server() -> None:
    """The numbers of docs/protocol.md: tries a second once the steps have grown, with and without Retry-After."""
    for retry_after_s, first, said in ((0.0, 19_000, 4_000), (2.0, 10_000, 2_200)):
        random, tries = Random(1), Counter[int]()
        for _ in range(2_000):  # a fifth of them: it is an average
            way_back, now_us = WayBack(), 0
            way_back.arrived(-20 * S, Returns())
            way_back.lost(1006, 0)
            while now_us < 40 * S:
                now_us += int(way_back.pause_s(now_us, random) * S)
                tries[now_us // S] += 5
                way_back.failed(now_us, retry_after_s)
        grown = [tries[second] for second in range(15, 40)]
        assert sum(grown) / len(grown) == pytest.approx(said, rel=0.06)
        assert max(tries.values()) == tries[0] == pytest.approx(first, rel=0.06)
    page = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text("utf-8")
    assert "4,000 times a second" in page and "2,200 where" in page and "19,000 times" in page


def test_an_absence_is_counted_once_and_by_its_code() -> None:
    way_back, returns = WayBack(), Returns()
    way_back.arrived(1 * S, returns)
    assert returns == {}, "the first time is no return"
    way_back.asked(2.0, 5 * S)
    way_back.lost(1012, 5 * S)
    way_back.arrived(12 * S, returns)
    way_back.arrived(13 * S, returns)
    way_back.lost(1006, 20 * S)
    way_back.arrived(21 * S, returns)
    asked, cut = rows(together([returns, returns]))[::-1]
    assert (asked["code"], asked["returned"], asked["asked"]) == (1012, 2, 2)
    assert (cut["code"], cut["returned"], cut["asked"]) == (1006, 2, 0)
    assert round(asked["away_ms"]["max"]) in range(6_999, 7_010)
    assert round(asked["overdue_ms"]["max"]) in range(4_999, 5_010)
    assert cut["overdue_ms"]["max"] is None
    assert (away(returns).total, overdue(returns).total) == (2, 1)


def test_nonsense_instead_of_seconds_is_a_short_wait() -> None:
    way_back = WayBack()
    way_back.asked("soon", 0)
    way_back.lost(1012, 0)
    assert way_back.pause_s(0, Random(1)) <= STEP_FIRST_S
