"""The ways in, in their order: a token, else the site's word, else a guest. Each is on or off by the settings."""

import secrets
from typing import NamedTuple

from gateway.auth.denied import Denied
from gateway.auth.guests import Guests
from gateway.auth.jwks import Jwks
from gateway.auth.keys import BadKey, keys_of
from gateway.auth.site import Site, Visitor
from gateway.auth.tokens import Tokens
from gateway.core.rights import Rights
from gateway.core.user import Grant
from gateway.settings.model import Settings, SettingsError
from gateway.site.asking import Asker
from gateway.telemetry.metrics import Metrics

# Of the URL's keys: one question at a time.
CONNECTIONS_MAX = 4


class Credentials(NamedTuple):
    """What a request says of who comes."""

    token: str | None = None
    # A guest's cookie.
    guest: str | None = None
    # For the site, where it is asked.
    visitor: Visitor | None = None


class Auth:
    """One per node."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        """Reads the keys. Raises SettingsError."""
        try:
            keys = keys_of(settings.token_keys)
        except BadKey as exc:
            raise SettingsError(f"token_keys: {exc}") from None
        self._asker = Asker(CONNECTIONS_MAX + settings.site_requests_max)
        self._jwks: Jwks | None = None
        if settings.token_jwks_url is not None:
            url, cache_s, timeout_s = (
                settings.token_jwks_url,
                settings.token_jwks_cache_s,
                settings.token_jwks_timeout_s,
            )
            self._jwks = Jwks(self._asker, url, cache_s, timeout_s)
        # None: no token is looked at.
        takes = keys or self._jwks is not None
        self._tokens = Tokens(settings, keys, self._jwks) if takes else None
        # None: it is not asked.
        self._site: Site | None = None
        if settings.site_url is not None:
            self._site = Site(self._asker, settings, metrics, settings.site_url)
        # None: no guests.
        self.guests: Guests | None = None
        if settings.takes_guests:
            # Without one of its own a node makes one up, which no other node knows.
            secret = settings.guest_secret or secrets.token_hex(32)
            self.guests = Guests(secret.encode(), Rights.parse(settings.guest_rights))

    @property
    def takes_tokens(self) -> bool:
        return self._tokens is not None

    @property
    def asks_site(self) -> bool:
        return self._site is not None

    async def grant(self, credentials: Credentials) -> Grant:
        """Who that is and what they may do. Raises Denied. A token that is not good is no guest."""
        if credentials.token is not None and self._tokens is not None:
            return await self._tokens.grant(credentials.token)
        if self._site is not None and credentials.visitor is not None:
            try:
                return await self._site.grant(credentials.visitor)
            except Denied as denied:
                if denied.reason != "site_unknown" or self.guests is None:
                    raise
        if self.guests is not None:
            return self.guests.grant(credentials.guest)
        raise Denied("no_credentials", "say who you are: a token in Authorization, query, cookie or subprotocol")

    async def refreshed(self, token: str) -> Grant:
        """By a newer token. Raises Denied."""
        if self._tokens is None:
            raise Denied("token_key", "this node takes no tokens")
        return await self._tokens.grant(token)

    async def close(self) -> None:
        if self._site is not None:
            await self._site.close()
        if self._jwks is not None:
            await self._jwks.close()
        await self._asker.close()
