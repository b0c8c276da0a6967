"""`GET /me?room=…`: who comes with these credentials, or why they are refused. A browser tells a page's script neither
the status nor the words with which a WebSocket was refused; of this answer it does.
"""

import msgspec
from aiohttp import web

from gateway.core.names import RoomName
from gateway.core.user import Grant
from gateway.edge import door
from gateway.edge.door import Refused
from gateway.edge.edge import Edge
from gateway.edge.pages import SECURITY_HEADERS

PATH = "/me"


def routes(edge: Edge) -> list[web.AbstractRouteDef]:
    async def me(request: web.Request) -> web.StreamResponse:
        headers = {**SECURITY_HEADERS, "Cache-Control": "no-store", **door.cors(edge, request)}
        try:
            room = await _checked(edge, request)
            grant = await door.admit(edge, request, room)
        except Refused as refused:
            return _answer(_refusal(edge, refused), headers | refused.headers, refused.status)
        return _answer(_told(grant, room), headers)

    return [web.get(PATH, me)]


async def _checked(edge: Edge, request: web.Request) -> RoomName | None:
    """The room that is asked about, as a handshake there would be judged; None: it is about none."""
    room = door.room_of(edge, request.query["room"]) if "room" in request.query else None
    door.check_origin(edge, request)
    door.check_places(edge)
    return room


def _told(grant: Grant, room: RoomName | None) -> dict[str, object]:
    """As the welcome has it."""
    return {
        "user": msgspec.Raw(grant.user.json or b"null"),
        "rights": None if room is None else grant.rights.of(room),
        "expires_at": grant.expires_at,
    }


def _refusal(edge: Edge, refused: Refused) -> dict[str, object]:
    login_url = edge.settings.login_url if refused.status == 401 else None
    return {"reason": refused.label, "text": refused.args[0], "login_url": login_url}


def _answer(body: dict[str, object], headers: dict[str, str], status: int = 200) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(body), content_type="application/json", headers=headers)
