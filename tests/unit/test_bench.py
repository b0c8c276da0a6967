"""The bench's own arithmetic: verdicts, the search for the highest rate, the table. No process is started."""

from collections.abc import Callable

import pytest

from bench.__main__ import exit_code, main
from bench.drive import Run, Work
from bench.machine import BenchError, Reading, busy_seconds, compiler, cpu_seconds
from bench.result import Bar, Row, figure, p99_bar
from bench.rows import ROWS, select
from bench.search import TRIALS_MAX, Outcome, highest
from bench.servers import Settings
from bench.table import HEAD, remarks, table


def server_that_holds(limit: float, tried: list[float]) -> Callable[[float], Outcome]:
    def trial(rate: float) -> Outcome:
        tried.append(rate)
        return "held" if rate <= limit else "broke"

    return trial


@pytest.mark.parametrize("limit", [30.0, 900.0, 8_000.0, 61_000.0])
def test_the_search_comes_within_a_tenth_of_the_highest_rate(limit: float) -> None:
    tried: list[float] = []
    found = highest(server_that_holds(limit, tried), guess=4_000.0)
    assert limit / 1.1 <= found.rate <= limit
    assert found.limit == "broke"
    assert len(tried) <= TRIALS_MAX


def test_a_server_that_holds_nothing_is_found_at_zero_within_bounds() -> None:
    tried: list[float] = []
    found = highest(server_that_holds(0.0, tried), guess=1_000.0)
    assert found.rate == 0
    assert len(tried) == TRIALS_MAX


def test_one_bad_moment_does_not_halve_the_answer() -> None:
    """The first rate that breaks is tried twice."""
    tried: list[float] = []

    def trial(rate: float) -> Outcome:
        tried.append(rate)
        return "broke" if len(tried) == 2 or rate > 8_000 else "held"

    assert highest(trial, guess=4_000.0).rate > 7_200
    assert tried[1] == tried[2]


def test_the_drivers_limit_is_not_the_servers() -> None:
    found = highest(lambda rate: "held" if rate < 5_000 else "driver", guess=1_000.0)
    assert found.limit == "driver"
    assert 4_500 < found.rate < 5_000


def test_a_bar_holds_at_its_limit() -> None:
    assert Bar("p99", 8.0, 8.0).met
    assert not Bar("p99", 8.01, 8.0).met
    assert Bar("rate", 8_000, 8_000, at_least=True).met
    assert not Bar("rate", 7_999, 8_000, at_least=True).met
    assert str(Bar("rate", 1, 8_000, " msg/s", at_least=True)) == "rate ≥ 8,000 msg/s"


def test_a_slow_floor_raises_the_latency_bar_and_a_fast_one_does_not_lower_it() -> None:
    assert p99_bar(9.0, reach_ms=8.0, floor_p99_ms=4.0).limit == 10.0
    assert p99_bar(9.0, reach_ms=8.0, floor_p99_ms=1.0).limit == 8.0


def test_a_wrong_delivery_outweighs_every_figure() -> None:
    row = Row("1", "work", bars=[Bar("p99", 1, 8)])
    assert row.verdict == "met"
    assert exit_code([row]) == 0
    row.bars.append(Bar("node", 3, 2))
    assert row.verdict == "missed"
    row.invalid.append("the driver used 0.95 of its core")
    assert row.verdict == "invalid"
    assert exit_code([row]) == 98
    row.wrongs.append("1 lost")
    assert row.verdict == "failed"
    assert exit_code([row]) == 99


def test_a_run_is_wrong_by_any_count_that_should_be_zero() -> None:
    zeros = dict.fromkeys(("lost", "doubled", "reordered", "foreign", "corrupt", "cut", "unsent", "pending"), 0)
    assert Run({**zeros, "closes": {}}, {}).wrongs() == []
    for name in zeros:
        assert Run({**zeros, name: 2, "closes": {}}, {}).wrongs() == [f"2 {name}"]
    assert Run({**zeros, "closes": {"4008": 1}}, {}).wrongs() == ["closed by the server: {'4008': 1}"]


def test_cost_is_cpu_of_the_window_over_its_deliveries() -> None:
    readings = {"begin": {"node": Reading(10.0, 1.0, 0)}, "end": {"node": Reading(15.0, 3.0, 0)}}
    run = Run({"window_deliveries": 250_000}, readings)
    assert run.us_per_delivery("node") == pytest.approx(8.0)
    assert run.us_per_delivery("broker") == 0.0
    assert run.span_s() == 5.0


def test_cpu_seconds_survive_a_strange_process_name() -> None:
    assert cpu_seconds("7 (a) b (c)) S 1 1 1 0 -1 0 0 0 0 0 150 50 0 0 20 0 1 0") == 2.0


def test_what_others_took_is_what_a_core_did_without_us() -> None:
    stat = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 100 0 100 700 5 0 0 0 0 0\ncpu1 10 0 0 900 0 0 0 20 0 0\nctxt 1\n"
    assert busy_seconds(stat) == {0: 2.0, 1: 0.3}
    begin = {"node": Reading(0.0, 1.0, 0), "broker": Reading(0.0, 0.0, 0), "driver": Reading(0.0, 0.0, 0)}
    end = {"node": Reading(10.0, 5.0, 0), "broker": Reading(10.0, 1.0, 0), "driver": Reading(10.0, 2.0, 0)}
    cores = {"begin": {0: 0.0, 1: 0.0}, "end": {0: 8.0, 1: 2.5}}
    assert Run({}, {"begin": begin, "end": end}, cores).others_share() == pytest.approx(0.3)


def test_settings_that_differ_are_those_with_an_origin() -> None:
    settings = Settings.read(
        "messages_per_s      0.0     flag\noutgoing_bytes_max  131072  default\nlog_format  json  HIROBA_LOG_FORMAT\n"
    )
    assert settings.changed == {"messages_per_s": "0.0", "log_format": "json"}
    assert settings.number("outgoing_bytes_max") == 131_072


def test_a_row_number_stands_for_its_variants() -> None:
    assert [spec.name for spec in select("1,8z")] == ["1", "1z", "1v", "8z"]
    assert select("") == ROWS
    assert {spec.number for spec in ROWS} == {str(n) for n in range(1, 14)}


def test_an_unknown_row_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--rows", "1,77"])
    assert "there is no row 77" in capsys.readouterr().err


def test_without_a_compiler_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(BenchError, match="no C compiler: apt-get install"):
        compiler()


def test_every_flag_of_the_driver_is_written() -> None:
    assert Work(rooms=2, members=3, rate=0.5, deflate=True).flags()[:8] == [
        "--rooms", "2", "--members", "3", "--speakers", "10", "--rate", "0.5",
    ]  # fmt: skip
    assert "--deflate" in Work(deflate=True).flags()
    assert "--deflate" not in Work().flags()


def test_the_table_is_markdown_with_one_line_per_row() -> None:
    rows = [
        Row("1", "1 × 500", node_us=9.1, floor_us=6.5, p50_ms=1.0, p99_ms=5.25, bars=[Bar("node", 1.4, 1.6)]),
        Row("8", "部屋", figure="9.8 KiB", bars=[Bar("memory", 18, 16.0, " KiB")], notes=["a note"]),
    ]
    lines = table(rows).splitlines()
    assert len(lines) == 4
    assert all(line.count("|") == len(HEAD) + 1 for line in lines)
    assert "| 1.4 " in lines[2]
    assert "met" in lines[2]
    assert "missed" in lines[3]
    assert remarks(rows).splitlines()[:2] == ["row 8: missed memory ≤ 16 KiB: 18 KiB", "row 8: a note"]


def test_figures_are_short() -> None:
    assert [figure(value) for value in (None, 0.0912, 6.512, 12_345.6, 100.4)] == [
        "–", "0.0912", "6.51", "12,346", "100",
    ]  # fmt: skip
