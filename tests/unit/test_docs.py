"""Pages of docs/ held against the code that they describe. `python -m tests.unit.test_docs` writes docs/metrics.md."""

import ast
import json
import re
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Metric

from gateway.auth.denied import REASONS
from gateway.broker.publish import Refusal
from gateway.core import frames
from gateway.core.closes import Close
from gateway.core.entry import Entry, EntryId, Gap
from gateway.core.history import TABLE, Event
from gateway.core.paging import Page
from gateway.core.wires import SSE, V1, BadMessage, sse, v1
from gateway.node import Node
from gateway.settings.model import Settings
from gateway.telemetry import logs
from gateway.telemetry.metrics import GAUGES, LABELLED, LABELLED_GAUGES
from tests.support.grants import OPEN

ROOT = Path(__file__).parents[2]
PROTOCOL = (ROOT / "docs/protocol.md").read_text(encoding="utf-8")
OPERATIONS = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
METRICS = ROOT / "docs/metrics.md"

METRICS_HEAD = """\
# Metrics

What a node tells Prometheus at `/metrics` of its ops port. Made by `python -m tests.unit.test_docs` from a scrape of
a node; a test holds this page against the code. No metric is labelled by room or user. A gauge whose value is not
known is left out of the scrape: unknown is not 0.

| metric | type | unit | labels | what |
|---|---|---|---|---|
"""


def table(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table behind a line, its head left out."""
    behind = page[page.index(heading) + len(heading) :]
    found = re.search(r"^\|.*\n\|[-|]+\n((?:\|.*\n)+)", behind, re.MULTILINE)
    assert found is not None
    return [[cell.strip().strip("`") for cell in line.strip("|").split(" | ")] for line in found[1].splitlines()]


def test_close_codes() -> None:
    told = [row[:4] for row in table(PROTOCOL, "## Close codes")]
    assert told == [
        [str(close.code), close.label, close.text, "yes" if close.reconnect else "no"]
        for close in sorted(Close, key=lambda close: close.code)
    ]


def test_a_close_code_means_one_thing() -> None:
    assert len({close.code for close in Close}) == len(Close)


def test_what_a_v1_client_may_say() -> None:
    """A type in the table is taken (whatever else its frame lacks); one beside it is not known."""
    told = {name for name, _ in table(PROTOCOL, "Client:\n")}
    source = (ROOT / "gateway/core/wires/v1.py").read_text(encoding="utf-8")
    compared = set(re.findall(r'tag="(\w+)"', source))
    assert told == compared
    with pytest.raises(BadMessage, match="knows no type"):
        V1.parse('{"type": "telegram"}')


def test_what_a_v1_server_says() -> None:
    """Each frame as the code makes it: its type has a row, and each of its fields stands there."""
    id, entry = EntryId(1, 1), Entry(EntryId(1, 1), "s", b"", b"1")
    made = [
        v1.welcome("s", "n", "r", id, True, 25.0, OPEN),
        V1.message(b'"r"', entry),
        v1.joined("r", id, True, "rw", 1, id, v1.Here([], 0)),
        frames.text(v1.members_payload("r", [b"1"], [b"2"], 1)),
        v1.presence("r", [b"1"], 1, False, 1),
        v1.refreshed(1.0, 1),
        v1.left("r", 1),
        v1.left("r", reason="error"),
        v1.history("r", Page([entry], [Gap(id, id, None)], True), 1, deflates=False),
        v1.ack(1, "r", id),
        v1.tops([v1.top("r", id)], 1, [v1.top("r", id)]),
        v1.read("r", id),
        v1.typing(b'"r"', [b"null"], 6.0),
        v1.pong(1),
        v1.error("not_joined", "text", 1, "r"),
        v1.reconnect(1.0),
    ]
    assert V1.gap is not None and V1.deleted is not None
    made += (V1.deleted(b'"r"', id, False), V1.deleted(b'"r"', id, True))
    made.append(V1.gap(b'"r"', Gap(id, id, None)))
    told = {name: set(re.findall(r"(?:^|`)(\w+)`", fields)) for name, fields in table(PROTOCOL, "Server:\n\n")}
    said = [json.loads(frame[frame.index(b"{") :]) for frame in made]
    assert told.keys() == {frame["type"] for frame in said}
    for frame in said:
        assert frame.keys() - {"type"} <= told[frame["type"]], frame
    makers = re.findall(r'type="(\w+)"', (ROOT / "gateway/core/wires/v1.py").read_text(encoding="utf-8"))
    assert told.keys() == {*makers, "message", "deleted", "tops"}, "a frame that this test does not make"


def test_what_an_event_stream_says() -> None:
    """Each event as the code makes it has a row, with the fields of the stream around its data."""
    id, entry = EntryId(1, 1), Entry(EntryId(1, 1), "s", b"", b"1")
    assert SSE.gap is not None
    made = [
        sse.welcome(id, 1.0, v1.welcome_payload("s", "n", "r", id, True, 25.0, OPEN)),
        SSE.message(b'"r"', entry),
        SSE.gap(b'"r"', Gap(id, id, None)),
        SSE.message(b'"r"', entry.tombstone()),
        sse.reconnect(1.0),
        sse.refused(1.0, "rooms", "text"),
    ]
    said = {}
    for event in made:
        fields = dict(line.split(": ", 1) for line in event.decode().splitlines() if line)
        data = json.loads(fields.pop("data"))
        assert data["type"] == fields.pop("event", "message")
        said[data["type"]] = set(fields)
    rows = table(PROTOCOL, "## Wire `sse`")
    assert {event: set(re.findall(r"\w+", fields)) for event, fields, _ in rows} == said
    makers = re.findall(r"event: (\w+)", (ROOT / "gateway/core/wires/sse.py").read_text(encoding="utf-8"))
    assert said.keys() == {*makers, "message"}, "an event that this test does not make"


def test_error_codes() -> None:
    told = {code for code, _ in table(PROTOCOL, "Error codes:")}
    said = {call.args[0].value for call in calls("edge") if name_of(call) in ("refuse", "_Failed") and is_text(call, 0)}
    said |= {call.args[0].value for call in (*calls("edge"), *calls("site")) if name_of(call) == "TurnedDown"}
    assert told == said | {refusal.code for refusal in Refusal}


def test_handshake_refusals() -> None:
    rows = table(PROTOCOL, "A handshake can be refused") + table(PROTOCOL, "### Refusals of a stream")
    told = {(int(status), reason) for status, reason, _ in rows}
    said: set[tuple[int, str]] = set()
    for call in calls("edge"):
        if name_of(call) == "Refused" and is_text(call, 1):
            said.add((call.args[0].value, call.args[1].value))
        elif name_of(call) == "busy":
            said.add((503, call.args[0].value))
    said |= {(status, reason) for reason, (status, _) in REASONS.items()}
    assert len(said) > 5 and told == said


def test_why_somebody_is_not_let_in() -> None:
    """The table's words are the code's."""
    rows = {reason: (int(status), when) for status, reason, when in table(PROTOCOL, "A handshake can be refused")}
    said = {reason: (status, when.strip("`")) for reason, (status, when) in REASONS.items()}
    assert {reason: rows[reason] for reason in REASONS} == said


def test_each_threat_has_a_test() -> None:
    """What docs/security.md says it protects from names tests, and they are there."""
    page = (ROOT / "docs/security.md").read_text("utf-8")
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    for threat, _, tests in table(page, "## Threats"):
        named = re.findall(r"test_\w+", tests)
        assert named, threat
        assert all(f"def {name}(" in sources for name in named), threat


def test_fields_of_log_lines() -> None:
    told = {line.strip("`"): set(re.findall(r"\w+", fields)) for line, fields in table(OPERATIONS, "## Logs")}
    said = {
        f"websocket`, `sse` or `stream`, `step: {call.args[0].value}": {keyword.arg for keyword in call.keywords}
        for call in calls("edge")
        if name_of(call) in ("ws", "sse", "log") and is_text(call, 0) and call.args[0].value in ("REJECT", "DISCONNECT")
    }
    assert told == said | {"http": set(signature(logs.access.http).parameters) - {"path", "peer"}}


def calls(package: str) -> Iterator[Any]:
    for path in sorted((ROOT / "gateway" / package).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield node


def name_of(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def is_text(call: ast.Call, at: int) -> bool:
    return len(call.args) > at and isinstance(getattr(call.args[at], "value", None), str)


# ---- docs/metrics.md ----


def scrape() -> list[Metric]:
    """A scrape of a node that knows everything: one that never ran leaves out what it does not know yet."""
    node = Node(Settings(), "0123456789ab")
    for attribute, _, _ in GAUGES:
        setattr(node.metrics, attribute, 0.0)
    node.broker._probe._proven_at = 0.0
    return list(node._registry().collect())


def metrics_page(scraped: list[Metric]) -> str:
    labels = {name: label for _, name, label, _ in (*LABELLED, *LABELLED_GAUGES)}
    lines = []
    for metric in sorted(scraped, key=lambda metric: metric.name):
        name = metric.name + {"counter": "_total", "info": "_info"}.get(metric.type, "")
        label = labels.get(metric.name) or ", ".join(sorted(metric.samples[0].labels) if metric.type == "info" else ())
        lines.append(f"| `{name}` | {metric.type} | {unit(metric.name)} | {label or '–'} | {metric.documentation} |\n")
    return METRICS_HEAD + "".join(lines)


def unit(name: str) -> str:
    """Prometheus' way: the name ends in it. Anything else is a plain number."""
    last = name.rpartition("_")[2]
    return last if last in ("seconds", "bytes", "entries") else "–"


def test_metrics() -> None:
    assert METRICS.read_text(encoding="utf-8") == metrics_page(scrape()), "stale: python -m tests.unit.test_docs"


def test_every_reading_of_the_code_is_scraped() -> None:
    """The page is made from a scrape; this looks at the source, in case a scrape leaves something out."""
    source = "".join(
        (ROOT / "gateway" / name).read_text(encoding="utf-8") for name in ("node.py", "telemetry/metrics.py")
    )
    assert set(re.findall(r'"(hiroba_[a-z_]+)"', source)) == {metric.name for metric in scrape()}


if __name__ == "__main__":
    METRICS.write_text(metrics_page(scrape()), encoding="utf-8")


def test_the_states_of_a_log() -> None:
    design = (ROOT / "docs/design.md").read_text(encoding="utf-8")
    told = table(design, "only carry out what this table says")
    assert {(state, event): (to, what) for state, event, to, what in told} == {
        (state.name.lower(), words(event)): (move.to.name.lower(), move.what) for (state, event), move in TABLE.items()
    }
    events = dict(table(design, "the next read should continue the cursor"))
    assert events == {words(event): event.value for event in Event}


def words(event: Event) -> str:
    return event.name.lower().replace("_", " ")
