"""docs/operations.md and the pages around it: numbers are the code's, metrics exist, links lead somewhere."""

import re
from pathlib import Path

import pytest

from deploy.stack.parts import DEPLOY
from gateway.edge.visits import NOTSENT_BYTES
from gateway.node import BACKLOG, DESCRIPTORS_SPARE
from gateway.settings.model import Settings
from tests.deploy.queries import alerts
from tests.deploy.test_prometheus_rules import known

ROOT = DEPLOY.parent
PAGES = sorted((*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")))
OPERATIONS = (ROOT / "docs" / "operations.md").read_text("utf-8")
HAPROXY = (DEPLOY / "haproxy" / "haproxy.cfg").read_text("utf-8")
UNIT = (DEPLOY / "systemd" / "hiroba@.service").read_text("utf-8")
VALKEY = (ROOT / "broker_config" / "valkey.conf").read_text("utf-8")


def limits() -> dict[str, str]:
    """The table of the operating system's limits: its first column -> what is wanted and why."""
    table = OPERATIONS.partition("| limit | Linux gives | wants | why |\n")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[1:]]
    return {row[0]: " ".join(row[2:]) for row in rows}


def number(pattern: str, text: str) -> int:
    (found,) = set(re.findall(pattern, text))
    return int(found.replace(",", ""))


def connections_max() -> int:
    """Of a node, where the descriptor limit does not decide."""
    return int(Settings.model_fields["connections_max"].examples[0])  # type: ignore[index]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_setting_beside_a_number_has_it_by_default(page: Path) -> None:
    """`drain_s` (20 s)."""
    for name, value in re.findall(r"`([a-z]+(?:_[a-z]+)+)` \(([\d,.]+)(?: s| KiB)?\)", page.read_text("utf-8")):
        assert getattr(Settings(), name) == float(value.replace(",", "")), name


def test_the_numbers_of_sizing_are_those_of_the_settings() -> None:
    assert f"{connections_max():,} (`connections_max`)" in OPERATIONS
    assert f"N / {connections_max():,}" in OPERATIONS
    assert number(r"presetenv LB_CONNECTIONS_MAX (\d+)", HAPROXY) == number(
        r"([\d,]+) \(`LB_CONNECTIONS_MAX`\)", OPERATIONS
    )
    assert number(r"([\d,]+) open at once on a node \(`rooms_max`\)", OPERATIONS) == Settings().rooms_max
    settings = Settings()
    drained_s = settings.lb_wait_s + settings.drain_s + settings.close_s + settings.publish_timeout_s
    assert f"`lb_wait_s` + `drain_s` + `close_s` + `publish_timeout_s`, {drained_s:g} s" in OPERATIONS
    assert drained_s < number(r"TimeoutStopSec=(\d+)", OPERATIONS) == number(r"TimeoutStopSec=(\d+)", UNIT)
    assert "lb_wait_s + drain_s + close_s + publish_timeout_s, 40 s" in UNIT


def test_the_limits_of_the_operating_system_hold_what_is_configured() -> None:
    known = limits()
    node = known["descriptors, node (`ulimit -n`, `LimitNOFILE=`)"]
    assert connections_max() + DESCRIPTORS_SPARE <= number(r"^([\d,]+)", node) == number(r"NOFILE=(\d+)", UNIT)
    assert f"{DESCRIPTORS_SPARE} for itself" in node
    at_haproxy = number(r"presetenv LB_CONNECTIONS_MAX (\d+)", HAPROXY)
    assert 2 * at_haproxy < number(r"^([\d,]+)", known["descriptors, HAProxy"])
    clients = number(r"(?m)^maxclients (\d+)", VALKEY)
    assert f"`maxclients` {clients:,}" in known["descriptors, broker"]
    assert clients < number(r"^([\d,]+)", known["descriptors, broker"])
    assert BACKLOG == number(r"^([\d,]+)", known["`net.core.somaxconn`"]) == number(r"somaxconn = (\d+)", OPERATIONS)
    assert (
        connections_max() < number(r"([\d,]+) per node, and", known["`net.ipv4.ip_local_port_range`"]) < 60_999 - 32_767
    )
    assert 4 * at_haproxy < number(r"nf_conntrack_max = (\d+)", OPERATIONS)
    assert f"{NOTSENT_BYTES // 1024} KiB" in known["`net.ipv4.tcp_mem`, socket buffers"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_metric_of_ours_that_a_page_names_exists(page: Path) -> None:
    named = re.findall(r"`(hiroba_[a-z_]+)[`{]", page.read_text("utf-8"))
    assert set(named) <= known()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"(?s)```.*?```", "", page.read_text("utf-8"))
    for path, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", text):
        target = (page.parent / path) if path else page
        assert target.exists(), path
        if anchor:
            heads = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}, anchor


def test_each_paragraph_is_an_alarm_s() -> None:
    """The other way round is test_prometheus_rules.py's."""
    assert set(re.findall(r"^### (Hiroba\w+)$", OPERATIONS, re.MULTILINE)) == alerts().keys()


def test_what_readyz_says_stands_in_the_troubleshooting_page_and_nothing_else() -> None:
    """Somebody has these words before his eyes at night, and looks for them."""
    source = (ROOT / "gateway" / "node.py").read_text("utf-8")
    unready, restriction = (
        source.partition(f"def {name}(")[2].partition("\n    def ")[0] for name in ("unready", "restriction")
    )
    said = {words.strip(": ") for words in re.findall(r'return f?"([^{"]+)', unready)}
    said |= {f"ready, but {words.strip(': ')}" for words in re.findall(r'f"([^{"]+)', restriction)}
    page = (
        (ROOT / "docs" / "troubleshooting.md").read_text("utf-8").partition("## /readyz says")[2].partition("\n## ")[0]
    )
    assert set(re.findall(r"^\| `([^`]+)`", page, re.MULTILINE)) == said
