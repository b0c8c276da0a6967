"""The admin page on the ops port: a client of the HTTP API, and of nothing else but its own login."""

import json
from html import escape
from pathlib import Path
from string import Template
from typing import Final

from aiohttp import web

from gateway import __version__
from gateway.edge import files, pages
from gateway.edge.admin.login import Login
from gateway.edge.admin.text import TEXTS
from gateway.edge.api.gate import Gate
from gateway.edge.edge import Edge
from gateway.edge.pages.text import text_for

# Stricter than of the public pages: no form goes anywhere by itself, and no script makes markup of text.
SECURITY_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_HERE: Final = Path(__file__).parent
# What the page has in common with those of the public port: colours, the paving, names and times.
_SHARED: Final = (
    "hiroba.css", "dark.css", "icon.svg", "paving.svg", "theme.js", "page.js", "times.js", "who.js", "words.js",
)  # fmt: skip
_OWN: Final = files.load(sorted((_HERE / "static").iterdir()), _HERE / "static")
_FILES: Final = {**{name: pages.FILES[name] for name in _SHARED}, **_OWN}
_MODULES: Final = "\n  ".join(
    f'<link rel="modulepreload" href="static/{name}">' for name in _FILES if name.endswith(".js") and name != "theme.js"
)
_PAGE: Final = Template((_HERE / "templates" / "admin.html").read_text("utf-8").replace("<!-- modules -->", _MODULES))


def routes(edge: Edge, gate: Gate) -> list[web.AbstractRouteDef]:
    """`/admin/…`."""
    login = Login(edge, gate)
    return [
        web.get("/admin", _to_page),
        web.get("/admin/", _page),
        web.get("/admin/static/{file}", _static),
        web.get("/admin/session", login.who),
        web.post("/admin/session", login.begin),
        web.delete("/admin/session", login.end),
    ]


async def _to_page(request: web.Request) -> web.StreamResponse:
    raise web.HTTPFound("/admin/", headers=SECURITY_HEADERS)


async def _page(request: web.Request) -> web.StreamResponse:
    """The same for everybody: what is to be seen the API tells who may see it."""
    text = text_for(request.headers.get("Accept-Language", ""), TEXTS)
    fields = {**text, "texts": json.dumps(dict(text), ensure_ascii=False), "version": __version__}
    return web.Response(
        text=_PAGE.substitute({name: escape(value) for name, value in fields.items()}),
        content_type="text/html",
        charset="utf-8",
        headers={
            **SECURITY_HEADERS,
            "Cache-Control": "no-cache",
            "Vary": "Accept-Language",
            "Content-Language": text["lang"],
        },
    )


async def _static(request: web.Request) -> web.StreamResponse:
    return files.answer(request, _FILES, SECURITY_HEADERS)
