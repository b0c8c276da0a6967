"""The token bucket against the plainest model: exact fractions, one step at a time."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.bucket import TokenBucket

# Multiples of 1/64: floats add them exactly, so bucket and model can be compared to the token.
exact = st.integers(0, 64 * 30).map(lambda parts: parts / 64)


@given(st.integers(1, 50), st.integers(1, 80), st.lists(exact, max_size=60))
def test_it_gives_what_the_model_gives(rate: int, burst: int, waits: list[float]) -> None:
    bucket = TokenBucket(rate, burst, 100.0)
    tokens, now = Fraction(burst), Fraction(100)
    for wait in waits:
        now += Fraction(wait)
        tokens = min(Fraction(burst), tokens + Fraction(wait) * rate)
        expected = tokens >= 1
        tokens -= expected
        assert bucket.take(float(now)) is expected


def test_a_burst_then_the_rate() -> None:
    bucket = TokenBucket(20, 40, 0.0)
    assert [bucket.take(0.0) for _ in range(41)] == [True] * 40 + [False]
    assert [bucket.take(0.05), bucket.take(0.05)] == [True, False]
    assert not bucket.take(0.075), "a refusal costs nothing, and half a token is none"
    assert bucket.take(0.1)


@given(st.lists(st.floats(0, 1_000), min_size=2, max_size=60))
def test_a_clock_that_steps_back_adds_nothing(times: list[float]) -> None:
    """Never more than the burst and the rate times the furthest time seen."""
    bucket = TokenBucket(3, 5, 0.0)
    taken = sum(bucket.take(now) for now in times)
    assert taken <= 5 + 3 * max(times) + 1e-6
