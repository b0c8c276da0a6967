"""Everything that we ask Prometheus: the panels' queries, the recording rules, the alerts. Nothing is asked here."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "rules"
DASHBOARDS = DEPLOY / "grafana" / "dashboards"


@dataclass(frozen=True)
class Query:
    """One expression as it is in its file, and where that is."""

    place: str
    expr: str

    def at(self, window_s: int) -> str:
        """With everything chosen in the dashboard's variables."""
        return re.sub(r'"\$\w+"', '".*"', self.expr.replace("$__rate_interval", f"{window_s}s"))


def dashboards() -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(DASHBOARDS.glob("*.json"))}


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    """(dashboard, panel), rows left out."""
    for name, dashboard in dashboards().items():
        for panel in dashboard["panels"]:
            if panel["type"] != "row":
                yield name, panel


def panel_queries() -> list[Query]:
    """Each expression once."""
    found: dict[str, Query] = {}
    for board, panel in panels():
        for target in panel["targets"]:
            found.setdefault(target["expr"], Query(f"{board}: {panel['title']}", target["expr"]))
    return list(found.values())


def annotation_queries() -> list[Query]:
    found: dict[str, Query] = {}
    for board, dashboard in dashboards().items():
        for annotation in dashboard["annotations"]["list"]:
            found.setdefault(annotation["expr"], Query(f"{board}: {annotation['name']}", annotation["expr"]))
    return list(found.values())


def rules(file: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load((RULES / file).read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def recorded() -> dict[str, str]:
    """Recorded metric -> its expression."""
    return {rule["record"]: rule["expr"] for rule in rules("recording.yml")}


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules("alerts.yml")}
