"""The token bucket against the plainest model: exact fractions, one step at a time."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.bucket import TokenBucket

# Multiples of 1/64: floats add them exactly, so bucket and model can be compared to the token.
exact = st.integers(0, 64 * 30).map(lambda parts: parts / 64)


@given(st.integers(1, 50), st.integers(1, 80), st.lists(st.tuples(exact, st.integers(1, 16), st.booleans())))
def test_it_gives_what_the_model_gives(rate: int, burst: int, steps: list[tuple[float, int, bool]]) -> None:
    bucket = TokenBucket(rate, burst, 100.0)
    tokens, now = Fraction(burst), Fraction(100)
    for pause_s, weight, rests in steps:
        now += Fraction(pause_s)
        tokens += Fraction(pause_s) * rate
        if rests:
            bucket.rest(float(now))
            tokens = min(tokens, Fraction(burst))
        wait_s = bucket.wait_s(float(now))
        assert (wait_s == 0) is (tokens >= 1)
        assert abs(wait_s - max(0, (1 - tokens) / rate)) < 1e-9
        if not wait_s:
            bucket.take(weight)
            tokens -= weight


def taken(bucket: TokenBucket, now: float, most: int = 1_000) -> int:
    """How many ones it gives at that time."""
    count = 0
    while count < most and not bucket.wait_s(now):
        bucket.take(1)
        count += 1
    return count


def test_a_burst_then_the_rate() -> None:
    bucket = TokenBucket(20, 40, 0.0)
    assert taken(bucket, 0.0) == 40
    assert bucket.wait_s(0.0) == 1 / 20
    assert bucket.wait_s(0.025) == 1 / 40, "half a token is none"
    assert taken(bucket, 0.05) == 1
    assert taken(bucket, 1.05) == 20


def test_a_heavy_one_passes_whole_and_is_paid_for_afterwards() -> None:
    bucket = TokenBucket(20, 1, 0.0)
    assert bucket.wait_s(0.0) == 0
    bucket.take(16)
    assert bucket.wait_s(0.0) == 16 / 20


def test_what_waited_while_nobody_could_serve_it_is_no_excess() -> None:
    """Six seconds in which the broker stood still are worth six seconds of messages, beside the burst."""
    bucket = TokenBucket(20, 40, 0.0)
    assert taken(bucket, 6.0) == 40 + 6 * 20
    rested = TokenBucket(20, 40, 0.0)
    rested.rest(6.0)
    assert taken(rested, 6.0) == 40, "who said nothing for as long has its burst"


@given(st.lists(st.floats(0, 1_000), min_size=2, max_size=60))
def test_a_clock_that_steps_back_adds_nothing(times: list[float]) -> None:
    """Never more than the burst and the rate times the furthest time seen."""
    bucket = TokenBucket(3, 5, 0.0)
    assert sum(taken(bucket, now, most=10) for now in times) <= 5 + 3 * max(times) + 1e-6
