"""The dashboards as files: fresh, complete, laid out, lines where the alarms are. Data is test_prometheus_live.py's."""

import re
import shutil
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.queries import DEPLOY, alerts, dashboards, panels

ROOT = DEPLOY.parent
PANELS = list(panels())
IDS = [f"{board}-{panel['title']}" for board, panel in PANELS]


def check(cwd: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "deploy.grafana", "--check"]
    return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


def test_the_json_is_what_the_code_makes() -> None:
    done = check(ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("change", ["edited", "threshold", "left over"])
def test_stale_json_is_noticed(change: str, tmp_path: Path) -> None:
    copy = shutil.copytree(DEPLOY, tmp_path / "deploy")
    boards, rules = copy / "grafana" / "dashboards", copy / "prometheus" / "rules" / "alerts.yml"
    if change == "edited":
        path = boards / "overview.json"
        path.write_text(path.read_text().replace("Fullest node", "Fattest node"))
    elif change == "threshold":
        rules.write_text(rules.read_text().replace("p99_5m > 0.1", "p99_5m > 0.2"))
    else:
        (boards / "old.json").write_text("{}")
    done = check(tmp_path)
    assert done.returncode == 1 and "stale: " in done.stderr


def test_there_are_the_four() -> None:
    found = dashboards()
    assert found.keys() == {"overview", "delivery", "broker", "loadtest"}
    assert len({board["uid"] for board in found.values()}) == 4
    for name, board in found.items():
        assert board["uid"] == f"hiroba-{name}" and board["title"] and board["description"]


@pytest.mark.parametrize("name", dashboards())
def test_a_dashboard_has_variables_links_and_marks(name: str) -> None:
    board = dashboards()[name]
    variables = {variable["name"]: variable["type"] for variable in board["templating"]["list"]}
    assert {"datasource": "datasource", "job": "query", "node": "query"}.items() <= variables.items()
    for marks in board["annotations"]["list"]:
        assert marks["enable"] and marks["datasource"]["uid"] == "${datasource}"
    assert {marks["name"] for marks in board["annotations"]["list"]} == {"Drains", "Restarts"}
    (links,) = board["links"]
    assert links["type"] == "dashboards" and set(links["tags"]) <= set(board["tags"])
    # Every variable that is asked for is there, and each that is there is asked for.
    asked = set(re.findall(r"\$\{?([a-z]+)", str(board))) | {"datasource"}
    assert asked == variables.keys()


@pytest.mark.parametrize(("board", "panel"), PANELS, ids=IDS)
def test_a_panel_says_what_it_shows_and_in_which_unit(board: str, panel: dict[str, Any]) -> None:
    assert panel["title"] and panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"], "a panel asks something"
    for asking in (panel, *panel["targets"]):
        assert asking["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@pytest.mark.parametrize("name", dashboards())
def test_panels_lie_beside_each_other(name: str) -> None:
    placed = dashboards()[name]["panels"]
    assert len({panel["id"] for panel in placed}) == len(placed)
    for panel in placed:
        at = panel["gridPos"]
        assert at["x"] >= 0 and at["x"] + at["w"] <= 24 and at["h"] > 0 and at["w"] > 0, panel["title"]
    for one, other in combinations(placed, 2):
        a, b = one["gridPos"], other["gridPos"]
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or above, f"{one['title']} lies on {other['title']}"


@pytest.mark.parametrize(("board", "panel"), PANELS, ids=IDS)
def test_a_line_is_where_its_alarm_is(board: str, panel: dict[str, Any]) -> None:
    """Read from the alert's expression by another eye than the dashboards' own."""
    lines = [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"][1:]]
    named = re.findall(r"Red: alarm (\w+), docs/operations.md", panel["description"])
    assert len(lines) == len(named) <= 1
    for line, alert in zip(lines, named, strict=True):
        words = alerts()[alert]["expr"].split()
        assert float(words[words.index(">") + 1]) == line
        # Each line shows what the alarm looks at, a histogram's or a recorded one's included.
        assert any(
            words[0].split("{")[0] in target["expr"] or _base(words) in target["expr"] for target in panel["targets"]
        )


def _base(words: list[str]) -> str:
    """The series that an alarm looks at."""
    found = re.search(r"(?:hiroba|redis)_\w+", " ".join(words))
    assert found is not None
    return found[0]


def test_grafana_finds_the_source_and_the_dashboards_by_itself() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    scrapes = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["global"]
    assert source["type"] == "prometheus" and source["isDefault"]
    assert source["jsonData"]["timeInterval"] == scrapes["scrape_interval"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "hiroba.yml").read_text())["providers"]
    assert provider["type"] == "file" and not provider["allowUiUpdates"]
