"""When a user tries to come back, and what is said of its absence. No sockets."""

from random import Random

from loadtest.returns import RETRY_MAX_S, RETRY_S, Returns, WayBack, away, overdue, rows, together

S = 1_000_000


def test_who_was_asked_to_wait_waits_exactly_so_long() -> None:
    way_back, random = WayBack(), Random(1)
    way_back.asked(3.0, 10 * S)
    way_back.lost(1012, 10 * S + 500)
    assert way_back.pause_s(11 * S, random) == 2.0
    assert way_back.pause_s(14 * S, random) == 0.0
    way_back.failed()
    assert 0.5 * RETRY_S <= way_back.pause_s(14 * S, random) <= RETRY_S


def test_who_was_cut_off_is_less_and_less_in_a_hurry() -> None:
    way_back, random = WayBack(), Random(1)
    way_back.lost(1006, 0)
    pauses = []
    for _ in range(8):
        pauses.append(way_back.pause_s(0, random))
        way_back.failed()
    assert 0.5 * RETRY_S <= pauses[0] <= RETRY_S
    assert 0.5 * RETRY_MAX_S <= pauses[-1] <= RETRY_MAX_S
    assert way_back.retry_s == RETRY_MAX_S


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
    assert way_back.pause_s(0, Random(1)) == RETRY_S
