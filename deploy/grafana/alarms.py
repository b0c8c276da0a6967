"""The thresholds of the alarms, read from the alerts themselves: a line in a panel is where its alarm is."""

import re
from functools import cache
from pathlib import Path

import yaml

ALERTS = Path(__file__).parents[1] / "prometheus" / "rules" / "alerts.yml"
# The first comparison of an expression; `and …` after it only says when the alarm is out of place.
COMPARISON = re.compile(r"(?:>=?|<=?|==)\s*(-?\d+(?:\.\d+)?)")


@cache
def expressions() -> dict[str, str]:
    """Alert -> its expression."""
    groups = yaml.safe_load(ALERTS.read_text("utf-8"))["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


def threshold(alert: str) -> float:
    """In the unit of the alert's expression. Raises KeyError: no such alert."""
    found = COMPARISON.search(expressions()[alert].replace('=~"', '"'))
    assert found is not None, f"{alert} compares with nothing"
    return float(found[1])
