"""What is answered to a request that is not done: RFC 9457, with a pointer to the field where there is one."""

from http import HTTPStatus

import msgspec
from aiohttp import web

# Seconds after which whoever was answered 503 may come again.
RETRY_AFTER_S = 2

# Why, by its code: what status, and what it means (docs/api.md and the OpenAPI have this table too).
CODES = {
    "malformed": (400, "the body is no JSON"),
    "invalid": (400, "a field or parameter is missing, unknown, or not what it can be: `errors` says which"),
    "broken": (400, "the body did not come whole"),
    "no_key": (401, "nothing says whose request it is"),
    "bad_key": (401, "the key is none, or revoked"),
    "not_local": (401, "there is no key yet, and the request is not from this very machine"),
    "scope": (403, "the key does not open this operation"),
    "page": (403, "a browser asks for a page of another origin"),
    "not_found": (404, "there is no such operation"),
    "no_room": (404, "nobody has spoken in this room, or it has expired"),
    "no_node": (404, "no node of this id answers"),
    "no_message": (404, "the room has no such message, or no more"),
    "unsaid": (503, "it is deleted, and the broker took no word of it for the nodes: ask again"),
    "method": (405, "the operation has another method: `Allow`"),
    "slow": (408, "the body did not come within handshake_timeout_s"),
    "key_taken": (409, "another request came with this Idempotency-Key"),
    "too_large": (413, "a body or message is larger than is allowed"),
    "type": (415, "a body is application/json, not compressed"),
    "wrong_keys": (429, "too many wrong keys came from this address"),
    "full": (503, "as many orders stand as there may be: orders_max"),
    "failed": (500, "a bug: the node's log has it"),
    "broker": (503, "the broker did not answer, or refuses"),
    "unknown": (503, "the broker did not answer in time: it may have been done; with an Idempotency-Key ask again"),
    "busy": (503, "the node has as many requests as it takes, or is going away"),
}


class Fault(msgspec.Struct, omit_defaults=True):
    """What is wrong with one part of a request."""

    detail: str
    # RFC 6901, of the body, as a fragment.
    pointer: str = ""
    # Of the query, or a header.
    parameter: str = ""
    header: str = ""


class ProblemDetails(msgspec.Struct, omit_defaults=True):
    """RFC 9457."""

    title: str
    status: int
    # One of CODES: what a program goes by.
    code: str
    # For a person.
    detail: str
    type: str = "about:blank"
    errors: list[Fault] = []


class Problem(Exception):
    """This request is not done, and nothing of it. `args[0]`: what to tell a person."""

    def __init__(self, code: str, text: str, *errors: Fault, **headers: str) -> None:
        super().__init__(text)
        self.code = code
        self.status = CODES[code][0]
        self.errors = errors
        self.headers = headers

    def details(self) -> ProblemDetails:
        title = HTTPStatus(self.status).phrase
        return ProblemDetails(title, self.status, self.code, self.args[0], errors=list(self.errors))

    def response(self) -> web.Response:
        headers = {name.replace("_", "-"): value for name, value in self.headers.items()}
        if self.status == 503:
            headers.setdefault("Retry-After", str(RETRY_AFTER_S))
        body = msgspec.json.encode(self.details())
        return web.Response(status=self.status, body=body, content_type="application/problem+json", headers=headers)


def invalid(pointer: str, text: str) -> Problem:
    """A field of the body; `pointer`: /items/0/room."""
    return Problem("invalid", text, Fault(text, pointer=f"#{pointer}"))


def bad_parameter(name: str, text: str) -> Problem:
    """Of the query or the path."""
    return Problem("invalid", text, Fault(text, parameter=name))


def too_large(pointer: str, text: str) -> Problem:
    return Problem("too_large", text, Fault(text, pointer=f"#{pointer}"))
