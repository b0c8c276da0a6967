"""`POST /guest?name=…`: a guest says a name, and has it in a cookie from then on."""

from aiohttp import web

from gateway.auth.guests import COOKIE, COOKIE_S
from gateway.core.user import BadUser
from gateway.edge import door
from gateway.edge.door import Refused
from gateway.edge.edge import Edge
from gateway.edge.pages import SECURITY_HEADERS

# In the query: nobody here reads a body.
PATH = "/guest"


def routes(edge: Edge) -> list[web.AbstractRouteDef]:
    async def name(request: web.Request) -> web.StreamResponse:
        try:
            return _name(edge, request)
        except Refused as refused:
            return refused.response()

    return [web.post(PATH, name)]


def _name(edge: Edge, request: web.Request) -> web.Response:
    """Their own page's script asks; any other page's could only give them a name that they see."""
    door.check_origin(edge, request)
    guests = edge.context.auth.guests
    if guests is None:
        return web.Response(status=403, text="no guests come in here\n")
    try:
        user, cookie = guests.named(request.query.get("name", ""), door.cookie_of(request, COOKIE))
    except BadUser as exc:
        return web.Response(status=400, text=f"{exc.args[0]}\n")
    headers = {**SECURITY_HEADERS, "Cache-Control": "no-store"}
    response = web.Response(body=user.json, content_type="application/json", headers=headers)
    response.set_cookie(
        COOKIE,
        cookie,
        max_age=COOKIE_S,
        path=edge.settings.base_path or "/",
        httponly=True,
        samesite="Lax",
        secure=request.secure or edge.callers.by_https(request),
    )
    return response
