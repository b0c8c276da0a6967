"""Who may ask the API: a key's bearer; a person who logged in at the admin page with one; or, as long as there is no
key, whoever is on this very machine."""

import math
import time
from collections import OrderedDict
from typing import NamedTuple

from aiohttp import web

from gateway.core.api_keys import ApiKey, Scope
from gateway.core.bucket import TokenBucket
from gateway.core.forwarded import as_address
from gateway.core.origins import parse_origin
from gateway.edge.api.problems import Problem
from gateway.edge.api.sessions import Sessions
from gateway.edge.edge import Edge

# What a proxy writes about whom it forwards for: with one of them the request comes from elsewhere.
_OF_PROXIES = ("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP")
_BEARER = {"WWW_Authenticate": 'Bearer realm="hiroba"'}
_BAD_BEARER = {"WWW_Authenticate": 'Bearer realm="hiroba", error="invalid_token"'}
# What the admin page sends with each request: no page of another origin can without being asked for (CORS).
OF_PAGE = "Hiroba-Admin"
# Addresses whose wrong keys are counted; who sent none for longest is forgotten.
ADDRESSES_MAX = 1_024


class Caller(NamedTuple):
    """Whose request it is: of the key's id and name, for logs and for turns in the queue."""

    id: str
    name: str
    key: ApiKey | None = None

    def opens(self, scope: Scope) -> bool:
        return self.key is None or self.key.opens(scope)


LOCAL = Caller("local", "this machine")


class Gate:
    """One per node."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._keys = edge.context.broker.api_keys
        self.sessions = Sessions(edge.settings.ops_port, edge.settings.admin_session_s)
        # By address: how many more wrong keys it may send.
        self._wrong: OrderedDict[str, TokenBucket] = OrderedDict()

    def admit(self, request: web.Request) -> Caller:
        """Raises Problem."""
        self.check_page(request)
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.with_key(request, key.strip())
        if (known := self._logged_in(request)) is not None:
            return known
        self._require_known()
        if self._keys.wanted:
            raise Problem("no_key", "send a key: Authorization: Bearer hiroba_…", **_BEARER)
        if not _is_local(request):
            text = "there is no key yet: make one (hiroba keys make NAME), or ask on this machine, without a proxy"
            raise Problem("not_local", text, **_BEARER)
        return LOCAL

    def with_key(self, request: web.Request, text: str) -> Caller:
        """A good key always opens: nobody guesses 256 bits, and behind one address may be a whole site. The bound is
        for what wrong ones cost. Raises Problem."""
        self._require_known()
        key = self._keys.find(text)
        if key is not None:
            return Caller(key.id, key.name, key)
        address, now = self._edge.callers.customer(request), time.monotonic()
        bucket = self._wrong.get(address)
        if bucket is None:
            per_s = self._edge.settings.api_wrong_keys_per_minute / 60
            bucket = self._wrong[address] = TokenBucket(per_s, self._edge.settings.api_wrong_keys_per_minute, now)
            if len(self._wrong) > ADDRESSES_MAX:
                self._wrong.popitem(last=False)
        self._wrong.move_to_end(address)
        bucket.rest(now)
        if (wait_s := bucket.wait_s(now)) > 0:
            text = "too many wrong keys came from this address: api_wrong_keys_per_minute"
            raise Problem("wrong_keys", text, Retry_After=str(math.ceil(wait_s)))
        bucket.take(1)
        raise Problem("bad_key", "this key is none, or it was revoked: hiroba keys list", **_BAD_BEARER)

    def _require_known(self) -> None:
        if self._keys.known is None:
            raise Problem("broker", "this node has not heard from the broker yet which keys there are")

    def _logged_in(self, request: web.Request) -> Caller | None:
        """Who sits before the admin page. The cookie alone opens nothing: the page's own header must come with it, and
        with a write the word of the browser that the page is ours. None: nobody, or not any more."""
        if OF_PAGE not in request.headers:
            return None
        if request.method not in ("GET", "HEAD") and not {"Origin", "Sec-Fetch-Site"} & request.headers.keys():
            return None
        id = self.sessions.key_id(request)
        key = None if id is None else (self._keys.known or {}).get(id)
        return None if key is None else Caller(key.id, key.name, key)

    def check_page(self, request: web.Request) -> None:
        """No page of another origin asks through somebody's browser. Nor one that says its own name leads to this
        machine (DNS rebinding): `_is_local` looks at the host. Raises Problem."""
        origin = request.headers.get("Origin")
        foreign = request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin")
        if origin is not None and not foreign:
            try:
                foreign = not parse_origin(origin).is_at(parse_origin(request.host))
            except ValueError:
                foreign = True
        if foreign:
            raise Problem("page", "the API is not for pages of another origin")


def _is_local(request: web.Request) -> bool:
    """From this machine, by nobody's hand but the asker's, and to an address that can mean no other machine."""
    name = request.transport.get_extra_info("peername") if request.transport is not None else None
    peer = as_address(name[0]) if isinstance(name, tuple) else None
    if peer is None or not peer.is_loopback or any(header in request.headers for header in _OF_PROXIES):
        return False
    try:
        host = parse_origin(request.host).host
    except ValueError:
        return False
    address = as_address(host)
    return host == "localhost" or (address is not None and address.is_loopback)
