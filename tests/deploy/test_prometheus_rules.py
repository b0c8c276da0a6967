"""The rules, alerts and routes as files: checked by Prometheus' own tools, complete, and tested both ways."""

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from yamllint import linter
from yamllint.config import YamlLintConfig

import gateway
import loadtest
from tests.deploy.promql import selectors
from tests.deploy.queries import DEPLOY, RULES, Query, alerts, annotation_queries, panel_queries, recorded
from tests.support.need import need_tool

TESTS = RULES / "tests" / "alerts.yml"
OPERATIONS = DEPLOY.parent / "docs" / "operations.md"
# Fires all the time, on purpose.
WATCHDOG = "HirobaWatchdog"
LINT = YamlLintConfig("{extends: default, rules: {line-length: {max: 160}, document-start: disable}}")


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    need_tool(argv[0], "prometheus-alertmanager" if argv[0] == "amtool" else "prometheus")
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def test_prometheus_own_tools_accept_every_file() -> None:
    for argv in (
        ("promtool", "check", "rules", *map(str, RULES.glob("*.yml"))),
        ("promtool", "check", "config", str(DEPLOY / "prometheus" / "prometheus.yml")),
        ("amtool", "check-config", str(DEPLOY / "prometheus" / "alertmanager.yml")),
    ):
        done = run(*argv)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", [*sorted(RULES.rglob("*.yml")), *sorted((DEPLOY / "grafana").rglob("*.yml"))], ids=str)
def test_yaml_is_clean(path: Path) -> None:
    assert not [str(problem) for problem in linter.run(path.read_text("utf-8"), LINT)]


def test_every_alert_fires_when_it_should_and_only_then() -> None:
    done = run("promtool", "test", "rules", str(TESTS))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_moments_in_which_it_fires_and_in_which_it_must_not() -> None:
    cases = [case for test in yaml.safe_load(TESTS.read_text())["tests"] for case in test["alert_rule_test"]]
    fires = {case["alertname"] for case in cases if case.get("exp_alerts")}
    silent = {case["alertname"] for case in cases if not case.get("exp_alerts")}
    assert fires == alerts().keys()
    assert silent == alerts().keys() - {WATCHDOG}


def test_the_silent_moments_object_to_broken_alerts(tmp_path: Path) -> None:
    """Each alert with its `for` gone and its expression true whenever there is data."""
    copy = shutil.copytree(RULES, tmp_path / "rules")
    file = yaml.safe_load((copy / "alerts.yml").read_text())
    for rule in (rule for group in file["groups"] for rule in group["rules"]):
        rule.pop("for", None)
        rule["expr"] = re.split(r"\s(?:>|<|==)\s", rule["expr"])[0]
    (copy / "alerts.yml").write_text(yaml.safe_dump(file))
    done = run("promtool", "test", "rules", str(copy / "tests" / "alerts.yml"))
    objections = re.findall(r"alertname: (\w+), time: \w+, \s*exp:\[\s*\]", done.stdout + done.stderr)
    assert set(objections) == alerts().keys() - {WATCHDOG}


@pytest.mark.parametrize("alert", alerts())
def test_an_alert_says_how_bad_it_is_what_it_means_and_where_to_read_on(alert: str) -> None:
    rule = alerts()[alert]
    assert rule["labels"]["severity"] in (("none",) if alert == WATCHDOG else ("critical", "warning"))
    assert rule["annotations"]["summary"].endswith(".")
    assert rule["annotations"]["runbook_url"] == "{{ $externalLabels.runbook }}" + f"docs/operations.md#{alert.lower()}"
    paragraph = OPERATIONS.read_text("utf-8").partition(f"\n### {alert}\n")[2].partition("\n### ")[0]
    assert "**Look at**" in paragraph and "**Do**" in paragraph
    assert f"*{rule['labels']['severity']}" in paragraph, "the page says another severity"
    duration = rule.get("for", "").replace("s", " s").replace("m", " min")
    assert f"*{rule['labels']['severity']}{', ' * bool(duration)}{duration}.*" in paragraph, (
        "the page says another time"
    )


def test_alertmanager_groups_by_severity_and_tells_the_end_too() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "alertmanager.yml").read_text())
    assert "severity" in config["route"]["group_by"]
    ends = {
        receiver["name"]: [hook["send_resolved"] for hook in receiver["webhook_configs"]]
        for receiver in config["receivers"]
    }
    assert ends == {"webhook": [True], "watchdog": [False]}
    for rule in config["inhibit_rules"]:
        named = re.findall(r"Hiroba\w+", str(rule))
        assert named and set(named) <= alerts().keys()


# ---- names ----


def spelled(package: Path) -> set[str]:
    """Every string of a package's code that looks like a metric of ours."""
    strings = (
        node.value
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return {text for text in strings if re.fullmatch(r"hiroba_[a-z_]+", text)}


def known() -> set[str]:
    code = spelled(Path(str(gateway.__file__)).parent) | spelled(Path(str(loadtest.__file__)).parent)
    return code | {name + end for name in code for end in ("_total", "_bucket", "_sum", "_count", "_info")}


def test_every_metric_that_is_asked_for_exists_in_the_code() -> None:
    queries = panel_queries() + annotation_queries() + [Query(name, rule["expr"]) for name, rule in alerts().items()]
    queries += [Query(name, expr) for name, expr in recorded().items()]
    names = known() | recorded().keys() | {"up"}
    for query in queries:
        # What the exporters have is seen where queries find data: test_prometheus_live.py, test_certificates.py.
        unknown = {name for name in selectors(query.expr) if not name.startswith(("redis_", "probe_"))} - names
        assert not unknown, f"{query.place} asks for {unknown}"


def test_every_metric_that_the_alarms_page_names_exists() -> None:
    text = OPERATIONS.read_text("utf-8")
    asked = {name for rule in alerts().values() for name in selectors(rule["expr"])}
    asked |= {name for expr in recorded().values() for name in selectors(expr)}
    assert not set(re.findall(r"`(hiroba_\w+|redis_\w+)", text)) - known() - asked


def test_nothing_is_asked_so_that_it_cannot_be_empty() -> None:
    for query in panel_queries() + annotation_queries():
        assert not re.search(r"\bvector\s*\(|\babsent", query.expr), query
    for name, rule in alerts().items():
        assert name == WATCHDOG or not re.search(r"\bvector\s*\(|\babsent", rule["expr"]), rule
