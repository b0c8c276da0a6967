"""Who has logged in at this node's admin page: by an opaque cookie. Which key it was is remembered, never the key.

A session is of one node, as the address is at which the page was opened: it ends with the node, in time, or with its
key.
"""

import secrets
import time
from collections import OrderedDict
from hashlib import sha256
from typing import NamedTuple

from aiohttp import web

from gateway.edge.door import cookie_of

# More than people look at once; of more the oldest ends.
SESSIONS_MAX = 1_000
# Where the cookie goes: browsers know no ports, and the site's own paths at this host have no business with it.
PATHS = ("/admin/", "/api/")


class Session(NamedTuple):
    key_id: str
    # By the monotonic clock.
    ends_at: float


class Sessions:
    """Of one node."""

    def __init__(self, port: int, life_s: float) -> None:
        """`port`: the ops port, so that the nodes of one machine have a cookie each."""
        self.cookie = f"hiroba_admin_{port}"
        self.life_s = life_s
        # By the SHA-256 of the cookie: what a dictionary's look-up tells by its time is of no use.
        self._open: OrderedDict[bytes, Session] = OrderedDict()

    def begin(self, response: web.Response, key_id: str, secure: bool) -> None:
        text = secrets.token_urlsafe(32)
        self._open[_digest(text)] = Session(key_id, time.monotonic() + self.life_s)
        if len(self._open) > SESSIONS_MAX:
            self._open.popitem(last=False)
        self._set(response, text, int(self.life_s), secure)

    def key_id(self, request: web.Request) -> str | None:
        """None: there is no session, or it has ended."""
        text = cookie_of(request, self.cookie)
        found = None if text is None else self._open.get(_digest(text))
        return found.key_id if found is not None and time.monotonic() < found.ends_at else None

    def end(self, request: web.Request, response: web.Response) -> None:
        self._open.pop(_digest(cookie_of(request, self.cookie) or ""), None)
        self._set(response, "", 0, request.secure)

    def _set(self, response: web.Response, text: str, age_s: int, secure: bool) -> None:
        # aiohttp keeps one cookie of a name; here are two, by path.
        for path in PATHS:
            flags = "; HttpOnly; SameSite=Strict" + ("; Secure" if secure else "")
            response.headers.add("Set-Cookie", f"{self.cookie}={text}; Max-Age={age_s}; Path={path}{flags}")


def _digest(text: str) -> bytes:
    return sha256(text.encode(errors="replace")).digest()
