"""The two HTTP applications of a node: the public one (pages, sockets, streams), the operator's (metrics, health)."""

import time
from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from gateway.auth.guests import COOKIE as GUEST_COOKIE
from gateway.edge import admin, api, door, guests, pages, sse, standing, streams, ws
from gateway.edge.api.gate import Gate
from gateway.edge.context import Context
from gateway.edge.edge import Edge
from gateway.edge.visits import KEEPALIVE_S, Visits
from gateway.telemetry.logs import access

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def public_app(edge: Edge) -> web.Application:
    """Port 8000."""

    settings = edge.settings

    @web.middleware
    async def log_access(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.removeprefix(settings.base_path).startswith(("/ws/", "/sse/", "/streams/")):
            return await handler(request)  # they have lines of its own
        started_at = time.monotonic()
        status = 500
        try:
            response = await handler(request)
            status = response.status
            return response
        except web.HTTPException as answer:
            status = answer.status
            raise
        finally:
            access.http(request.method, request.path, status, time.monotonic() - started_at, edge.callers.peer(request))

    def guest_name(request: web.Request) -> str | None:
        known = edge.context.auth.guests
        return None if known is None else known.name_of(door.cookie_of(request, GUEST_COOKIE))

    app = web.Application(middlewares=[log_access])
    routes = [
        web.get("/healthz", healthz),
        *ws.routes(edge),
        *sse.routes(edge),
        *streams.routes(edge),
        *guests.routes(edge),
        *standing.routes(edge),
        *pages.routes(
            settings.room_name_chars_max,
            settings.publish_timeout_s,
            settings.message_bytes_max,
            settings.base_path,
            guest_name,
        ),
    ]
    app.add_routes(routes)
    if settings.base_path:  # a proxy may strip it or pass it on
        below = web.Application()
        below.add_routes(routes)
        app.add_subapp(settings.base_path, below)
    return app


def ops_app(
    edge: Edge,
    registry: CollectorRegistry,
    unready: Callable[[], str | None],
    restriction: Callable[[], str | None],
) -> web.Application:
    """Port 9000 + n. `unready` says why the node should get no new connections; None: it should. `restriction` says
    what does not work in a node that is ready."""

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def readyz(request: web.Request) -> web.Response:
        why = unready()
        if why is not None:
            return web.Response(status=503, text=f"{why}\n")
        less = restriction()
        return web.Response(text="ready\n" if less is None else f"ready, but {less}\n")

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz), web.get("/readyz", readyz)])
    gate = Gate(edge)
    app.add_routes([*api.routes(edge, gate), *admin.routes(edge, gate)])
    return app


class Door(web.AppRunner):
    """Serves an app on connections that we count: `visits`."""

    def __init__(self, app: web.Application, context: Context, space: Callable[[], int]) -> None:
        """`space`: how many HTTP connections there may be now."""
        head_bytes_max = context.settings.head_bytes_max
        super().__init__(
            app,
            access_log=None,
            shutdown_timeout=0.1,
            keepalive_timeout=KEEPALIVE_S,
            max_line_size=head_bytes_max,
            max_field_size=head_bytes_max,
            # Nobody here reads a body: what comes as one is neither waited for nor unpacked.
            lingering_time=0.0,
            auto_decompress=False,
        )
        self._context = context
        self._space = space

    async def _make_server(self) -> Visits:
        self.visits = Visits(await super()._make_server(), self._context, self._space)
        return self.visits


async def healthz(request: web.Request) -> web.Response:
    """The loop turns: it just answered."""
    return web.Response(text="ok\n")
