"""docs/api.md: each of its commands does what stands there, each operation has one, and its tables are the code's."""

import asyncio
import json
import re
import subprocess
from typing import Any

from deploy.pages import ROOT, commands
from gateway.core.api_keys import Scope
from gateway.edge.api import operations
from gateway.edge.api.problems import CODES
from tests.conftest import NodeFactory
from tests.node.conftest import redis_only
from tests.support.node import Node

PAGE = "docs/api.md"
# Of other commands than curl's: tests/clients/test_python_client.py types `hiroba keys …`.
CURLS = [text for text in commands(PAGE) if text.startswith("curl")]
DRAIN = next(text for text in CURLS if "/drain " in text)


def answer_to(text: str, node: Node) -> Any:
    """What is said to it, as JSON."""
    here = text.replace("127.0.0.1:9000", f"127.0.0.1:{node.ops_port}")
    shown = here.rstrip() + " -w '\\n%{http_code}'"
    done = subprocess.run(["sh", "-ec", shown], capture_output=True, text=True, timeout=60, check=True)
    body, _, status = done.stdout.rpartition("\n")
    assert status == "200", f"{text}\n{done.stdout}"
    return json.loads(body)


def test_each_command_of_the_page_does_what_it_says(shared_node: Node) -> None:
    said = [answer_to(text, shared_node) for text in CURLS if text != DRAIN]
    assert [entry["message"] for entry in said[4]["entries"]] == [
        "The lift works again.", {"text": "Your order is on its way."}, "Closing in ten minutes.", 1, 3,
    ]  # fmt: skip
    assert {room["room"] for room in said[5]["rooms"]} == {"lobby", "kitchen"}


@redis_only
async def test_the_command_that_drains_a_node(start_node: NodeFactory) -> None:
    """It is told so, and goes as at SIGTERM."""
    node = await start_node(lb_wait_s=0.5, drain_s=0)
    said = await asyncio.to_thread(answer_to, DRAIN, node)
    assert said["node"] in node.lines()[0]
    assert await node.process.ended() == 0


def test_each_operation_has_a_command() -> None:
    paths = [re.search(r"/api/v1(/[^\s?']+)", text)[1] for text in CURLS]  # type: ignore[index]
    for operation in operations():
        pattern = re.sub(r"\{\w+\}", "[^/]+", operation.path)
        assert any(re.fullmatch(pattern, path) for path in paths), operation.name


def test_the_tables_of_the_page() -> None:
    text = (ROOT / PAGE).read_text("utf-8")
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)` \| (.+) \|$", text, re.MULTILINE)
    assert {code: (int(status), when) for status, code, when in rows} == CODES
    assert set(re.findall(r"^\| `(\w+)` \| ", text, re.MULTILINE)) == set(Scope)
