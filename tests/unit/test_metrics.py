"""Metrics: declared and annotated alike, named as Prometheus wants it, histograms that add up."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Histogram as TheirHistogram
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry.metrics import (
    COUNTERS,
    GAUGES,
    HISTOGRAMS,
    LABELLED,
    LABELLED_GAUGES,
    Histogram,
    Metrics,
    registry,
)

KINDS = (COUNTERS, GAUGES, LABELLED, LABELLED_GAUGES, HISTOGRAMS)
DECLARED = {row[0]: kind for kind in KINDS for row in kind}
ANNOTATED = {
    "int": (COUNTERS,),
    "float | None": (GAUGES,),
    "Counter[str]": (LABELLED, LABELLED_GAUGES),
    "Histogram": (HISTOGRAMS,),
}


def test_every_metric_is_annotated_as_what_it_is_and_vice_versa() -> None:
    assert set(Metrics.__annotations__) == set(DECLARED)
    for name, kind in Metrics.__annotations__.items():
        written = kind.__name__ if kind in (int, Histogram) else str(kind).removeprefix("collections.")
        assert DECLARED[name] in ANNOTATED[written], name


def test_no_attribute_or_name_is_declared_twice() -> None:
    rows = [row for kind in KINDS for row in kind]
    for column in (0, 1):
        names = [row[column] for row in rows]
        assert len(set(names)) == len(names)


NAMES = [(row[1], row[3] if kind in (LABELLED, LABELLED_GAUGES) else row[2]) for kind in KINDS for row in kind]
# What `promtool check metrics` refuses: other units than the base units, abbreviations, the type in the name.
NOT_BASE = r"_(ms|milliseconds|us|ns|minutes|hours|days|kb|kib|mb|mib|kilobytes|megabytes|bits|percent|s|b)(_|$)"


@pytest.mark.parametrize(("name", "text"), NAMES, ids=[name for name, _ in NAMES])
def test_names_are_as_prometheus_wants_them(name: str, text: str) -> None:
    assert re.fullmatch(r"hiroba_[a-z]+(_[a-z]+)*", name)
    assert not re.search(NOT_BASE, name)
    assert not re.search(r"_(total|count|sum|bucket|info|counter|gauge|histogram)$", name), "Prometheus appends these"
    assert text.endswith(".") and len(text) > 10


@pytest.mark.parametrize("row", HISTOGRAMS, ids=lambda row: row[0])
def test_a_histograms_unit_is_in_its_name_and_its_buckets_rise(row: tuple) -> None:
    _, name, _, bounds = row
    assert name.endswith(("_seconds", "_entries", "_bytes"))
    assert list(bounds) == sorted(set(bounds))


bounds = st.lists(st.integers(1, 1_000).map(lambda x: x / 8), min_size=1, max_size=8, unique=True).map(sorted)
# On a bound, between two, above all: multiples of a sixteenth.
looks = st.lists(st.tuples(st.integers(0, 3_000).map(lambda x: x / 16), st.integers(1, 20)), max_size=30)


@given(bounds, looks)
def test_a_histogram_counts_as_prometheus_own_does(bounds: list[float], looks: list[tuple[float, int]]) -> None:
    ours, theirs = Histogram(tuple(bounds)), TheirHistogram("h", "Text.", buckets=bounds, registry=None)
    for value, weight in looks:
        ours.observe(value, weight)
        for _ in range(weight):
            theirs.observe(value)
    (expected,) = theirs.collect()

    def samples(family: object) -> dict:
        kept = (one for one in family.samples if not one.name.endswith("_created"))
        return {(one.name, *one.labels.values()): one.value for one in kept}

    assert samples(ours.family("h", "Text.")) == samples(expected)


def test_a_scrape_says_what_was_counted() -> None:
    metrics = Metrics()
    metrics.delivered += 500
    metrics.closes["slow"] += 2
    metrics.gather_s = 0.002
    metrics.publish_batch.observe(3)
    page = generate_latest(registry(metrics, [("hiroba_rooms", "Rooms.", lambda: 7)], {"version": "1"})).decode()
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    assert found["hiroba_entries_delivered_total",] == 500
    assert found["hiroba_closes_total", "slow"] == 2
    assert found["hiroba_gather_seconds",] == 0.002
    assert found["hiroba_rooms",] == 7
    assert found["hiroba_publish_batch_entries_count",] == 1
    assert found["hiroba_publish_batch_entries_bucket", "4.0"] == 1
    assert found["hiroba_publish_batch_entries_bucket", "2.0"] == 0


def test_what_is_unknown_is_not_said() -> None:
    """0 would mean: no lag, proven this instant."""
    page = generate_latest(registry(Metrics(), [("hiroba_age_seconds", "Age.", lambda: None)], {})).decode()
    assert "hiroba_age_seconds" not in page and "hiroba_lag_seconds" not in page
    assert "hiroba_reads_total 0.0" in page


def test_two_nodes_share_no_count() -> None:
    one, other = Metrics(), Metrics()
    one.closes["slow"] += 1
    one.gc_pause.observe(1)
    assert not other.closes and other.gc_pause.sum == 0


def test_collections_are_measured() -> None:
    metrics = Metrics()
    for phase in ("start", "stop", "start", "stop"):
        metrics._on_gc(phase, {})
    assert metrics.gc_pauses == 2 and metrics.gc_pause.sum > 0
