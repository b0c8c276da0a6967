"""How a person comes in: a key of the API, once, for a cookie that no script can read."""

import msgspec
import structlog
from aiohttp import web

from gateway.core.api_keys import Scope
from gateway.edge import bodies
from gateway.edge.api.gate import OF_PAGE, Caller, Gate
from gateway.edge.api.problems import Problem
from gateway.edge.edge import Edge
from gateway.telemetry.logs import AUDIT

# A key has 59 characters.
BODY_BYTES_MAX = 1_024

log = structlog.get_logger()


class Given(msgspec.Struct, forbid_unknown_fields=True):
    key: str


class Who(msgspec.Struct):
    """Whose session it is. `key`: false where nobody logged in, for there is no key yet."""

    name: str
    scopes: list[str]
    key: bool
    node: str


class Login:
    """Of one node."""

    def __init__(self, edge: Edge, gate: Gate) -> None:
        self._edge = edge
        self._gate = gate

    async def who(self, request: web.Request) -> web.Response:
        """401: nobody; log in."""
        try:
            return self._told(self._gate.admit(request))
        except Problem as problem:
            return _unseen(problem.response())

    async def begin(self, request: web.Request) -> web.Response:
        caller: Caller | None = None
        try:
            caller = self._gate.with_key(request, await self._key(request))
            response = self._told(caller)
            self._gate.sessions.begin(response, caller.id, request.secure)
        except Problem as problem:
            await bodies.let_pass(request, self._edge.settings.close_s)
            response = _unseen(problem.response())
        self._audit(request, "login", response.status, caller)
        return response

    async def end(self, request: web.Request) -> web.Response:
        try:
            caller = self._gate.admit(request)
        except Problem as problem:
            return _unseen(problem.response())
        response = _unseen(web.Response(status=204))
        self._gate.sessions.end(request, response)
        self._audit(request, "logout", response.status, caller)
        return response

    async def _key(self, request: web.Request) -> str:
        """Raises Problem."""
        self._gate.check_page(request)
        if OF_PAGE not in request.headers or request.content_type.lower() != "application/json":
            raise Problem("type", f"a login is JSON, and comes from the page: with {OF_PAGE}")
        try:
            body = await bodies.read(request, BODY_BYTES_MAX, self._edge.settings.handshake_timeout_s, lambda _: None)
            return msgspec.json.decode(body, type=Given).key
        except bodies.TooLong:
            raise Problem("too_large", f"a login has at most {BODY_BYTES_MAX} bytes") from None
        except TimeoutError:
            raise Problem("slow", "the body did not come within handshake_timeout_s") from None
        except bodies.NOT_WHOLE:
            raise Problem("broken", "the body is not whole") from None
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise Problem("malformed", 'a login is {"key": "hiroba_…"}') from None

    def _told(self, caller: Caller) -> web.Response:
        scopes = [scope.value for scope in ((Scope.ADMIN,) if caller.key is None else caller.key.scopes)]
        who = Who(caller.name, scopes, caller.key is not None, self._edge.context.node)
        return _unseen(web.Response(body=msgspec.json.encode(who), content_type="application/json"))

    def _audit(self, request: web.Request, operation: str, status: int, caller: Caller | None) -> None:
        whose = {} if caller is None else {"key": caller.name, "key_id": caller.id}
        log.info(AUDIT, operation=operation, status=status, **whose, peer=self._edge.callers.peer(request))


def _unseen(response: web.Response) -> web.Response:
    response.headers["Cache-Control"] = "no-store"
    return response
