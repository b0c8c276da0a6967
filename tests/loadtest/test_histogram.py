"""Times are recorded as HdrHistogram would, and merged without loss."""

import math

from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

from loadtest.histogram import TIME_MAX_US, Histogram

times = st.lists(st.integers(1, TIME_MAX_US) | st.integers(1, 100_000), min_size=1, max_size=200)


@given(times)
def test_it_counts_what_the_library_counts(samples: list[int]) -> None:
    ours, theirs = Histogram(), HdrHistogram(1, TIME_MAX_US, 3)
    ours.record(samples)
    for sample in samples:
        theirs.record_value(sample)
    assert ours.to_hdr().equals(theirs)
    assert ours.encoded() == theirs.encode().decode()


@given(times)
def test_a_percentile_is_the_smallest_time_that_so_many_did_not_exceed(samples: list[int]) -> None:
    """As HdrHistogram's Java does: rounded up. Its Python port rounds to the nearest and may promise too much."""
    histogram, layout = Histogram(), HdrHistogram(1, TIME_MAX_US, 3)
    histogram.record(samples)
    for percentile in (1, 50, 90, 99, 99.9, 100):
        rank = max(1, math.ceil(round(percentile / 100 * len(samples), 9)))
        exact = sorted(samples)[rank - 1]
        assert histogram.percentile_ms(percentile) == layout.get_highest_equivalent_value(exact) / 1000


@given(times, times)
def test_two_processes_give_the_histogram_that_one_gives(left: list[int], right: list[int]) -> None:
    """Each worker sends what it recorded since its last tick; the coordinator puts it together."""
    alone, worker, other, merged = Histogram(), Histogram(), Histogram(), Histogram()
    alone.record(left + right)
    for part in (left[:50], left[50:]):
        worker.record(part)
        merged.put(worker.take())
    other.record(right)
    merged.put(other.take())
    assert merged.to_hdr().equals(alone.to_hdr())
    assert worker.total == other.total == 0


def test_nothing_recorded_is_unknown_and_not_zero() -> None:
    assert set(Histogram().summary_ms().values()) == {None}
    assert Histogram().spectrum() == []


def test_times_out_of_range_are_kept_at_its_ends() -> None:
    histogram = Histogram()
    histogram.record([-5, 0, 10 * TIME_MAX_US])
    assert histogram.total == 3
    assert histogram.percentile_ms(1) == 0.001


def test_the_spectrum_rises_and_ends_at_the_maximum() -> None:
    histogram = Histogram()
    histogram.record(range(1, 10_000))
    steps = histogram.spectrum()
    assert steps == sorted(steps)
    assert steps[-1] == (100.0, histogram.percentile_ms(100))
