"""The page a person sees, which chooses a room or shows one, and its static files. No WebSocket here.

It is one document at either kind of address: the script goes from room to room without loading it anew.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Final
from urllib.parse import quote

from aiohttp import web

from gateway.core.names import ROOM_NAME_CHARS_MAX, BadRoomName, RoomName, room_name
from gateway.edge import files
from gateway.edge.pages.text import text_for

# For every response of this module; the app may put them on its other answers too.
# 'self' covers ws: and wss: to the page's own host (CSP 3; Chrome 71, Firefox 50, Safari 16).
SECURITY_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}


def routes(
    name_chars_max: int = ROOM_NAME_CHARS_MAX,
    publish_timeout_s: float = 10.0,
    message_bytes_max: int = 65_536,
    base_path: str = "",
    guest_name: Callable[[web.Request], str | None] = lambda request: None,
) -> list[web.AbstractRouteDef]:
    """The routes of `/`, `/chat/…` and `/static/…`, for the app of the public port.

    The first four are the node's settings: the page says what a name may be, knows from when on a text that got lost
    with its connection can no longer appear, how long one may be, and where a browser has to ask.
    `guest_name`: what a guest called themselves, empty so far; None: no guests come in.
    """
    pages = _Pages(name_chars_max, publish_timeout_s, message_bytes_max, base_path, guest_name)
    return [
        *([web.get(base_path, pages.to_choose)] if base_path else []),
        web.get("/", pages.to_choose),
        web.get("/chat", pages.to_choose),
        web.get("/chat/", pages.choose),
        web.get("/chat/{name:.+}", pages.room),
        web.get("/static/{file:.+}", _static),
    ]


@dataclass(frozen=True, slots=True)
class _Pages:
    name_chars_max: int
    publish_timeout_s: float
    message_bytes_max: int
    base_path: str
    guest_name: Callable[[web.Request], str | None]

    async def to_choose(self, request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound(f"{self.base_path}/chat/", headers=SECURITY_HEADERS)

    async def choose(self, request: web.Request) -> web.StreamResponse:
        return self._choose(request)

    async def room(self, request: web.Request) -> web.StreamResponse:
        """The room's page; 404 with the rule for names, and the form to try again, for an impossible one.

        A name without its closing slash, or not in NFC, is sent on to the address that everyone else has.
        """
        asked = request.match_info["name"]
        try:
            room: RoomName = room_name(asked.removesuffix("/"), self.name_chars_max)
        except BadRoomName:
            return self._choose(request, bad_name=asked.removesuffix("/"))
        if asked != f"{room}/":
            raise web.HTTPFound(f"{self.base_path}/chat/{quote(room)}/", headers=SECURITY_HEADERS)
        return _page(request, self._values(request, view="room", room=room, title=room))

    def _choose(self, request: web.Request, bad_name: str | None = None) -> web.Response:
        values = self._values(request, view="choose", name=bad_name or "")
        if bad_name is None:
            return _page(request, values)
        problem = "name_long" if len(bad_name) > self.name_chars_max else "name_impossible"
        return _page(request, values, problem if bad_name else "name_empty", status=404)

    def _values(
        self, request: web.Request, view: str, room: str = "", name: str = "", title: str = ""
    ) -> dict[str, str]:
        """`title` empty: the words of the language for choosing."""
        guest_name = self.guest_name(request)
        return {
            "guest_name": guest_name or "",
            "guests_hidden": "hidden" if guest_name is None else "",
            "base_path": self.base_path,
            "view": view,
            "room": room,
            "name": name,
            "name_chars_max": str(self.name_chars_max),
            "publish_timeout_s": str(self.publish_timeout_s),
            "message_bytes_max": str(self.message_bytes_max),
            **({"title": title} if title else {}),
        }


async def _static(request: web.Request) -> web.StreamResponse:
    return files.answer(request, FILES, SECURITY_HEADERS)


def _page(
    request: web.Request,
    values: Mapping[str, str],
    problem: str = "",
    *,
    status: int = 200,
) -> web.Response:
    """The page in the browser's language. Every value is escaped, for text and for attributes alike.

    `problem` is the key of a sentence; a sentence may name values, as in `{name}`.
    """
    table = text_for(request.headers.get("Accept-Language", ""))
    text = {key: _filled(sentence, values) for key, sentence in table.items()}
    # The scripts get the sentences as they are, to fill them with values of their own (page.js).
    texts = json.dumps(dict(table), ensure_ascii=False)
    fields = {"title": text["choose_title"], **text, **values, "problem": text.get(problem, ""), "texts": texts}
    return web.Response(
        status=status,
        text=_CHAT.substitute({key: escape(value) for key, value in fields.items()}),
        content_type="text/html",
        charset="utf-8",
        headers=SECURITY_HEADERS
        | {"Content-Language": text["lang"], "Vary": "Accept-Language, Cookie", "Cache-Control": "private, no-cache"},
    )


def _filled(sentence: str, values: Mapping[str, str]) -> str:
    """`sentence` with its `{key}`s replaced where `values` has them."""
    return re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], found[0]), sentence)


def _is_module(file: str) -> bool:
    return file.endswith(".js") and file != "theme.js"


# `static/client` is a link to clients/js/src, the client that anybody may use and our pages do; in a wheel the files
# themselves are there.
_HERE: Final = Path(__file__).parent
_STATIC: Final = _HERE / "static"
FILES: Final = files.load((path for part in (_STATIC, _STATIC / "client") for path in sorted(part.iterdir())), _STATIC)
# All modules are asked for at once: found one in the other, over a phone's network, they would take seconds.
_PRELOADS: Final = "\n  ".join(
    f'<link rel="modulepreload" href="$base_path/static/{file}">' for file in FILES if _is_module(file)
)
_CHAT: Final = Template((_HERE / "templates" / "chat.html").read_text("utf-8").replace("<!-- modules -->", _PRELOADS))
