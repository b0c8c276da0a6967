"""The OpenAPI document (3.1), made of what the operations are made of."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from gateway import __version__
from gateway.edge.api.operation import Operation
from gateway.edge.api.problems import CODES, ProblemDetails
from gateway.edge.api.server import IDEMPOTENCY_KEY, JSON, PREFIX

_PROBLEM = "application/problem+json"
# Whatever is asked may end so.
_OF_ALL = ("no_key", "bad_key", "not_local", "scope", "page", "wrong_keys", "invalid", "broker", "busy", "failed")
_OF_BODIES = ("malformed", "broken", "slow", "too_large", "type")
_OF_WRITES = ("key_taken", "unknown")
# In a path, and what it names.
_IN_PATH = {"room": "A room's name", "id": "A user's id", "message": "A message's id"}


def document(operations: Sequence[Operation]) -> bytes:
    """In JSON."""
    kinds = [kind for operation in operations for kind in (operation.asked, operation.answer)]
    _, schemas = msgspec.json.schema_components((*kinds, ProblemDetails), ref_template="#/components/schemas/{name}")
    paths: dict[str, dict[str, object]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, schemas)
    used = {kind.__name__ for operation in operations for kind in _shown(operation)}
    return msgspec.json.encode({
        "openapi": "3.1.0",
        "info": {"title": "hiroba", "version": __version__, "description": "Servers speak, and look, and act."},
        "servers": [{"url": PREFIX}],
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": _reachable(schemas, used),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    })  # fmt: skip


def _shown(operation: Operation) -> Iterable[type[msgspec.Struct]]:
    yield operation.answer
    yield ProblemDetails
    if operation.has_body:
        yield operation.asked


def _reachable(schemas: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """Without what is only a query."""
    found: dict[str, Any] = {}
    waiting = sorted(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = schemas[name]
            waiting += [ref.rpartition("/")[2] for ref in _refs(schemas[name])]
    return dict(sorted(found.items()))


def _refs(schema: object) -> Iterable[str]:
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "$ref":
                yield value
            else:
                yield from _refs(value)
    elif isinstance(schema, list):
        for part in schema:
            yield from _refs(part)


def _operation(operation: Operation, schemas: dict[str, Any]) -> dict[str, object]:
    told: dict[str, object] = {
        "operationId": operation.name,
        "summary": operation.says,
        "description": f"Wants a key with the scope `{operation.scope}`.",
        "parameters": [*_in_path(operation), *_in_query(operation, schemas), *_in_head(operation)],
        "responses": {"200": _content(JSON, operation.answer, "Done"), **_refusals(operation)},
    }
    if operation.has_body:
        told["requestBody"] = {"required": True, **_content(JSON, operation.asked)}
    return told


def _in_path(operation: Operation) -> Iterable[dict[str, object]]:
    for name, text in _IN_PATH.items():
        if f"{{{name}}}" in operation.path:
            schema = {"type": "string", "minLength": 1}
            yield {"name": name, "in": "path", "required": True, "description": text, "schema": schema}


def _in_query(operation: Operation, schemas: dict[str, Any]) -> Iterable[dict[str, object]]:
    if operation.has_body:
        return
    described = schemas[operation.asked.__name__]
    for name, schema in described["properties"].items():
        yield {"name": name, "in": "query", "required": name in described.get("required", ()), "schema": schema}


def _in_head(operation: Operation) -> Iterable[dict[str, object]]:
    if operation.writes:
        text = "Sent again with the same key within idempotency_s, the request is done once and answered the same."
        schema = {"type": "string", "minLength": 1, "maxLength": 128, "pattern": r"^[!#-\[\]-~]{1,128}$"}
        yield {"name": IDEMPOTENCY_KEY, "in": "header", "required": False, "description": text, "schema": schema}


def _refusals(operation: Operation) -> dict[str, object]:
    codes = [*_OF_ALL, *operation.problems]
    codes += _OF_BODIES if operation.has_body else ()
    codes += _OF_WRITES if operation.writes else ()
    statuses: dict[int, list[str]] = {}
    for code in codes:
        status, text = CODES[code]
        statuses.setdefault(status, []).append(f"`{code}`: {text}")
    return {
        str(status): _content(_PROBLEM, ProblemDetails, "; ".join(texts)) | _headers(status)
        for status, texts in sorted(statuses.items())
    }


def _headers(status: int) -> dict[str, object]:
    name = {401: "WWW-Authenticate", 429: "Retry-After", 503: "Retry-After"}.get(status)
    return {"headers": {name: {"required": True, "schema": {"type": "string"}}}} if name else {}


def _content(kind: str, struct: type[msgspec.Struct], text: str | None = None) -> dict[str, object]:
    content: dict[str, object] = {"content": {kind: {"schema": {"$ref": f"#/components/schemas/{struct.__name__}"}}}}
    return content if text is None else {"description": text, **content}
