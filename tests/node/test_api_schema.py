"""The API against its own OpenAPI, by Schemathesis: whatever is sent, good or bad, the answer is one it promises."""

import subprocess
import sys
import time
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks

from gateway.edge.api import operations
from tests.support.broker import Broker
from tests.support.node import Node

SETTINGS = {"api_wrong_keys_per_minute": 1_000_000, "message_bytes_max": 10_000, "append_bytes_max": 100_000}
OPERATIONS = {operation.name for operation in operations()}
# A room's name is more than a schema can say: what fits the schema may be answered 400, with a pointer.
LEFT_OUT: list[Any] = [checks.positive_data_acceptance]


@pytest.fixture(scope="module")
def key(house: tuple[Broker, Node]) -> str:
    broker, node = house
    argv = [sys.executable, "-m", "gateway", "keys", "make", "tests", "--scopes", "admin", "--broker-url", broker.url]
    text = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    deadline = time.monotonic() + 30
    while asked(node, "/info", text).status_code != 200:
        assert time.monotonic() < deadline, "the node does not know the key"
        time.sleep(0.05)
    return text


def asked(node: Node, path: str, key: str) -> httpx.Response:
    return httpx.get(node.ops_url(f"/api/v1{path}"), headers={"Authorization": f"Bearer {key}"}, timeout=30)


def schema_of(node: Node, key: str) -> Any:
    return schemathesis.openapi.from_dict(asked(node, "/openapi.json", key).json())


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_an_operation_answers_as_its_schema_says(
    house: tuple[Broker, Node], key: str, name: str, mode: GenerationMode
) -> None:
    hold(house[1], key, name, mode, examples=10)


@pytest.mark.long
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_an_operation_answers_so_however_often(
    house: tuple[Broker, Node], key: str, name: str, mode: GenerationMode
) -> None:
    hold(house[1], key, name, mode, examples=1_000)


def hold(node: Node, key: str, name: str, mode: GenerationMode, examples: int) -> None:
    mine = {"Authorization": f"Bearer {key}"}
    schema = schema_of(node, key)
    operation = schema.find_operation_by_id(name)

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def answers(case: Any) -> None:
        case.call_and_validate(base_url=node.ops_url("/api/v1"), headers=mine, excluded_checks=LEFT_OUT)

    answers()
    assert node.process.running


def test_every_operation_is_in_the_document(house: tuple[Broker, Node], key: str) -> None:
    schema = schema_of(house[1], key)
    found = {operation.ok().definition.raw["operationId"] for operation in schema.get_all_operations()}
    assert found == OPERATIONS
