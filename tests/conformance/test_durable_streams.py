"""The conformance suite of Durable Streams against a real node: what applies to rooms passes, the rest is listed.

The list is docs/protocol.md's: what a room has not, why, and how many of the suite's tests want it.
"""

import asyncio
import json
import os
import re
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import BrokerFactory
from tests.support.need import need_tool
from tests.support.node import Node
from tests.support.npm import installed, versions

STREAMS = Path(__file__).parent / "streams"
PROTOCOL = Path(__file__).parents[2] / "docs" / "protocol.md"

# By what a room has not: the tests that want it, as `group: title` in regular expressions.
CANNOT = {
    "end": [
        "Stream Closure: .*(closed?|final-append|producer-state-survives).*(?<!-no-closed-header)",
    ],
    "absence": [
        ".*404.*non-?existent.*",
        "HTTP Protocol: should return 200 on idempotent PUT with same config",
        "Case-Insensitivity: should allow idempotent create with different case content-type",
        "Browser Security Headers: should include security headers on error responses",
    ],
    "deletion": [
        "Basic Stream Operations: should (delete a stream|properly isolate recreated stream after delete)",
        "HTTP Protocol: should return 204 on successful DELETE",
    ],
    "expiry": [
        "TTL.*: should (accept (valid|Expires-At)|handle idempotent PUT with same TTL).*",
        "HEAD Metadata Edge Cases: should return TTL metadata if configured",
        "TTL Expiration Behavior: .*",
    ],
    "bytes": [
        "SSE Mode: (base64|.*(base64|binary streams)).*",
        "SSE Mode: should (handle newlines in text/plain payloads|prevent CRLF .* become literal data)",
    ],
    "size": ["Chunking and Large Payloads: should handle chunk-size pagination correctly"],
    "forks": ["Fork - .*"],
}
# Among what these match, tests that hold all the same.
_HOLD = re.compile(
    "Stream Closure: (head-open-stream-no-closed-header|empty-post-without-stream-closed-400).*"
    "|SSE Mode: should NOT include Stream-SSE-Data-Encoding.*"
    "|SSE Mode: .*(empty binary payload|offset=now with auto-detected|data events only).*"
    "|Fork - .*: should (NOT include fork headers|not affect fork when source is closed|wait for fork appends"
    "|keep source alive).*"
)


def wants(test: str) -> str | None:
    """What a test of the suite wants that no room has; None: it applies."""
    if _HOLD.match(test):
        return None
    return next((what for what, tests in CANNOT.items() if any(re.fullmatch(one, test) for one in tests)), None)


@pytest.fixture
async def node(start_broker: BrokerFactory, tmp_path: Path) -> AsyncIterator[Node]:
    """Short waits; nobody is held up."""
    broker = await start_broker()
    node = Node(broker.url, tmp_path, messages_per_s=0, ping_s=2, close_s=2, allowed_origins="https://example.com")
    yield await node.start()
    assert not [line for line in node.lines() if '"level": "error"' in line]


async def outcomes(node: Node, results: Path, *only: str) -> dict[str, str]:
    """What became of each test that ran: `passed` or `failed`."""
    modules = await asyncio.to_thread(installed, STREAMS)
    command = [need_tool("node", "nodejs"), modules / "vitest" / "vitest.mjs", "run", "suite.test.js", *only]
    running = await asyncio.create_subprocess_exec(
        *command,
        *(
            "--reporter=json",
            f"--outputFile={results}",
            "--sequence.concurrent",
            "--maxConcurrency=8",
            "--testTimeout=300000",
        ),
        cwd=STREAMS,
        env={**os.environ, "NODE_URL": node.url("").rstrip("/")},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(550):
            await running.wait()
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()
    report: dict[str, Any] = json.loads(await asyncio.to_thread(results.read_text, "utf-8"))
    tests = [test for file in report["testResults"] for test in file["assertionResults"]]
    return {
        f"{test['ancestorTitles'][0]}: {test['title']}": test["status"]
        for test in tests
        if test["status"] in ("passed", "failed")
    }


@pytest.mark.timeout(600)
async def test_what_applies_to_rooms_passes(node: Node, tmp_path: Path) -> None:
    """Groups of which nothing holds are left out here: they wait long, for what never comes."""
    slow = "TTL Expiration|Stream Closure|Fork - "
    results = await outcomes(node, tmp_path / "results.json", f"--testNamePattern=^(?!.*({slow}))")
    assert len(results) > 150
    failed = [test for test, status in results.items() if status == "failed" and wants(test) is None]
    assert not failed, failed


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_the_whole_suite_is_as_the_table_says(node: Node, tmp_path: Path) -> None:
    results = await outcomes(node, tmp_path / "results.json")
    failed = {test for test, status in results.items() if status == "failed"}
    assert failed == {test for test in results if wants(test)}
    counted = Counter(wants(test) for test in results)
    page = await asyncio.to_thread(PROTOCOL.read_text, "utf-8")
    section = page[page.index("### Conformance") :].partition("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \| (\w+) \|", section, re.MULTILINE)
    assert {what: int(count) for count, what in rows} == {what or "passed": count for what, count in counted.items()}
    assert versions(STREAMS)["@durable-streams/server-conformance-tests"] in section
