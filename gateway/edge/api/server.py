"""The API's way from a request to an answer: who asks, for what, once or again; and what is noted of it."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import Any

import msgspec
import structlog
from aiohttp import web

from gateway.broker.answers import Taken
from gateway.broker.errors import BrokerGone, BrokerRefused
from gateway.core.appends import Once
from gateway.core.wires.wire import bad_json
from gateway.edge import bodies
from gateway.edge.api.gate import Caller, Gate
from gateway.edge.api.operation import Call, Operation
from gateway.edge.api.problems import Fault, Problem, invalid
from gateway.edge.edge import Edge
from gateway.telemetry.logs import AUDIT, access

PREFIX = "/api/v1"
JSON = "application/json"
IDEMPOTENCY_KEY = "Idempotency-Key"
# As a bare word, or a string in quotes (draft-ietf-httpapi-idempotency-key-header): a UUID, and a job's name with it.
_IDEMPOTENCY_KEY = re.compile(r'"([\x21\x23-\x5b\x5d-\x7e]{1,128})"\Z|([\x21\x23-\x5b\x5d-\x7e]{1,128})\Z')
# Where msgspec says that it is, and which of a field's names is meant.
_PLACE = re.compile(r"^(?P<text>.*?)(?: - at `\$(?P<place>.*)`)?$", re.DOTALL)
_STEP = re.compile(r"\.(\w+)|\[(\d+|\.\.\.)\]")
_NAMED = re.compile(r"(?:missing required|contains unknown) field `([^`]*)`")

# So long an answer waits to be noted.
KEEP_S = 1.0

log = structlog.get_logger()

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """Serves operations. Bounded: so many requests at once, of so many bytes together."""

    def __init__(self, edge: Edge, gate: Gate, operations: Sequence[Operation]) -> None:
        self._edge = edge
        self._settings = edge.settings
        self._gate = gate
        self._metrics = edge.metrics
        self._metrics.known("api_requests", (f"{operation.name} 200" for operation in operations))
        self._by_path: dict[str, dict[str, Operation]] = {}
        for operation in operations:
            self._by_path.setdefault(operation.path, {})[operation.method] = operation
        # Under way, and what their bodies hold.
        self._requests = 0
        self._held_bytes = 0

    def routes(self, document: bytes) -> list[web.AbstractRouteDef]:
        """`document`: the OpenAPI of the operations."""

        async def openapi(request: web.Request) -> web.StreamResponse:
            async def answer(caller: Caller) -> bytes:
                return document

            return await self._served(request, "openapi", ("GET",), answer)

        async def nothing(request: web.Request) -> web.StreamResponse:
            async def answer(caller: Caller) -> bytes:
                raise Problem("not_found", f"there is no such operation: {PREFIX}/openapi.json lists them")

            return await self._served(request, "none", (), answer)

        return [
            web.route("*", f"{PREFIX}/openapi.json", openapi),
            *(web.route("*", PREFIX + path, self._handler(ways)) for path, ways in self._by_path.items()),
            web.route("*", "/api{nothing:(?:/.*)?}", nothing),
        ]

    def _handler(self, ways: dict[str, Operation]) -> Handler:
        """Of one path, by method."""

        async def handle(request: web.Request) -> web.StreamResponse:
            operation = ways.get("GET" if request.method == "HEAD" else request.method)
            if operation is None:
                return await self._served(request, "none", tuple(ways), self._no_method)
            return await self._operate(request, operation, tuple(ways))

        return handle

    async def _no_method(self, caller: Caller) -> bytes:
        raise AssertionError("refused before")

    async def _operate(self, request: web.Request, operation: Operation, methods: Sequence[str]) -> web.Response:
        began_at = time.monotonic()
        call: Call[Any] | None = None

        async def answer(caller: Caller) -> bytes:
            nonlocal call
            call = await self._call(request, operation, caller)
            return await self._done(operation, call)

        response = await self._served(request, operation.name, methods, answer)
        peer = self._edge.callers.peer(request)
        if operation.writes and call is not None:
            whose = {"key": call.caller.name, "key_id": call.caller.id}
            log.info(AUDIT, operation=operation.name, status=response.status, **whose, peer=peer, **call.facts)
        else:
            access.http(request.method, request.path, response.status, time.monotonic() - began_at, peer)
        return response

    async def _served(
        self,
        request: web.Request,
        name: str,
        methods: Sequence[str],
        answer: Callable[[Caller], Awaitable[bytes]],
    ) -> web.Response:
        """What every request goes through."""
        self._requests += 1
        try:
            caller = self._gate.admit(request)
            self._check(request, methods)
            body = await answer(caller)
            response = web.Response(body=body, content_type=JSON)
        except Problem as problem:
            await bodies.let_pass(request, self._settings.close_s)
            response = problem.response()
        except Exception:
            log.exception("an operation of the API failed", operation=name)
            response = Problem("failed", "a bug: the node's log has it").response()
        finally:
            self._requests -= 1
        response.headers["Cache-Control"] = "no-store"
        self._metrics.api_requests[f"{name} {response.status}"] += 1
        return response

    def _check(self, request: web.Request, methods: Sequence[str]) -> None:
        if methods and ("GET" if request.method == "HEAD" else request.method) not in methods:
            allowed = ", ".join(methods)
            raise Problem("method", f"this operation is asked by {allowed}", Allow=allowed)
        if self._requests > self._settings.api_requests_max:
            raise Problem("busy", "the node has as many requests as it takes: api_requests_max")

    # ---- what is asked ----

    async def _call(self, request: web.Request, operation: Operation, caller: Caller) -> Call[Any]:
        if not caller.opens(operation.scope):
            text = f"{operation.name} wants a key with the scope {operation.scope}"
            raise Problem(
                "scope", text, WWW_Authenticate=f'Bearer error="insufficient_scope", scope="{operation.scope}"'
            )
        if operation.writes and self._edge.draining:
            raise Problem("busy", "this node is going away: ask another")
        raw = await self._body(request) if operation.has_body else b""
        asked = _decoded(raw, operation.asked) if operation.has_body else _parameters(request, operation.asked)
        call: Call[Any] = Call(self._edge, caller, asked, dict(request.match_info))
        if operation.writes and IDEMPOTENCY_KEY in request.headers:
            what = f"{operation.name} {request.raw_path}\n".encode() + raw
            text = _idempotency_key(request)
            call.facts["idempotency_key"] = text
            call.once = Once(f"{caller.id} {text}", sha256(what).hexdigest()[:32])
        return call

    async def _body(self, request: web.Request) -> bytes:
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise Problem("type", "Content-Encoding is not taken up: send the JSON as it is")
        if request.content_type.lower() != JSON or "Content-Type" not in request.headers:
            raise Problem("type", f"a body needs its Content-Type: {JSON}")
        bytes_max = self._settings.append_bytes_max
        too_long = Problem("too_large", f"a body has at most {bytes_max} bytes: append_bytes_max")
        if (request.content_length or 0) > bytes_max:
            raise too_long
        held = 0

        def grow(size: int) -> None:
            nonlocal held
            if self._held_bytes + size - held > self._settings.append_queue_bytes_max:
                raise Problem("busy", "too much is being sent at once: append_queue_bytes_max")
            self._held_bytes += size - held
            held = size

        try:
            return await bodies.read(request, bytes_max, self._settings.handshake_timeout_s, grow)
        except bodies.TooLong:
            raise too_long from None
        except TimeoutError:
            raise Problem("slow", "the body did not come within handshake_timeout_s") from None
        except bodies.NOT_WHOLE:
            raise Problem("broken", "the body is not whole") from None
        finally:
            self._held_bytes -= held

    # ---- what is answered ----

    async def _done(self, operation: Operation, call: Call[Any]) -> bytes:
        """Within publish_timeout_s and a little: what is offered to the broker has that as its own bound."""
        within_s = self._settings.publish_timeout_s + self._settings.handshake_timeout_s
        try:
            async with asyncio.timeout(within_s):
                if call.once is None:
                    return msgspec.json.encode(await operation.do(call))
                return await self._done_once(operation, call, call.once)
        except TimeoutError:
            code = "unknown" if operation.writes else "broker"
            raise Problem(code, f"the broker did not answer within {within_s:g} s") from None
        except BrokerGone:
            code = "unknown" if operation.writes else "broker"
            raise Problem(code, "the connection to the broker broke") from None
        except BrokerRefused as exc:
            raise Problem("broker", f"the broker refuses: {exc.code}") from None

    async def _done_once(self, operation: Operation, call: Call[Any], once: Once) -> bytes:
        """As it was answered before; else done, and noted. What is done twice because nobody could note it is done
        again without effect: appends look for this key in the script, orders are the same when they are given again."""
        answers = self._edge.context.broker.answers
        try:
            before = await answers.claim(once)
        except Taken:
            text = "another request came with this key: send a new key with a new request"
            raise Problem("key_taken", text, Fault(text, header=IDEMPOTENCY_KEY)) from None
        if before is not None:
            call.facts["repeated"] = True
            return before
        answer = msgspec.json.encode(await operation.do(call))
        if not call.unfinished:
            # It is done: whoever asks again finds that out by itself.
            with suppress(BrokerRefused, TimeoutError):
                async with asyncio.timeout(KEEP_S):
                    await answers.keep(once, answer)
        return answer


def _idempotency_key(request: web.Request) -> str:
    """Raises Problem."""
    lines = request.headers.getall(IDEMPOTENCY_KEY)
    found = _IDEMPOTENCY_KEY.match(lines[0])
    if found is None or len(lines) > 1:
        text = "a key has 1 to 128 characters of ASCII that can be seen, without quotes and backslashes"
        raise Problem("invalid", text, Fault(text, header=IDEMPOTENCY_KEY))
    return found[1] or found[2]


def _decoded(raw: bytes, kind: type[Any]) -> Any:
    """What a body says. Raises Problem."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise Problem("malformed", "text that is not UTF-8") from None
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError as exc:
        words, steps = _place(str(exc))
        raise invalid("".join(f"/{step}" for step in steps), words) from None
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise Problem("malformed", bad_json(text, exc).args[0]) from None


def _parameters(request: web.Request, kind: type[Any]) -> Any:
    """What a query says. Raises Problem."""
    query = request.query
    for name in query:
        if len(query.getall(name)) > 1:
            text = f"{name} is there twice"
            raise Problem("invalid", text, Fault(text, parameter=name))
    try:
        return msgspec.convert(dict(query), type=kind, strict=False)
    except msgspec.ValidationError as exc:
        words, steps = _place(str(exc))
        raise Problem("invalid", words, Fault(words, parameter="".join(steps))) from None


def _place(text: str) -> tuple[str, list[str]]:
    """msgspec's words, and the way to what they are about."""
    found = _PLACE.match(text)
    assert found is not None
    words = found["text"]
    steps = [name or number for name, number in _STEP.findall(found["place"] or "")]
    if named := _NAMED.search(words):
        steps.append(named[1].replace("~", "~0").replace("/", "~1"))
    return words, steps
