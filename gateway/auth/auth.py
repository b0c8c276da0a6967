"""The ways in, in their order: a token, else a guest. Each is on or off by the settings."""

from typing import NamedTuple

from gateway.auth.asking import Asker
from gateway.auth.denied import Denied
from gateway.auth.jwks import Jwks
from gateway.auth.keys import BadKey, keys_of
from gateway.auth.tokens import Tokens
from gateway.config import Settings, SettingsError
from gateway.core.rights import Rights
from gateway.core.user import NOBODY, Grant

# Of the URL's keys: one question at a time.
CONNECTIONS_MAX = 4


class Credentials(NamedTuple):
    """What a request says of who comes."""

    token: str | None = None


class Auth:
    """One per node."""

    def __init__(self, settings: Settings) -> None:
        """Reads the keys. Raises SettingsError."""
        try:
            keys = keys_of(settings.token_keys)
        except BadKey as exc:
            raise SettingsError(f"token_keys: {exc}") from None
        self._asker = Asker(CONNECTIONS_MAX)
        jwks: Jwks | None = None
        if settings.token_jwks_url is not None:
            url, cache_s, timeout_s = (
                settings.token_jwks_url,
                settings.token_jwks_cache_s,
                settings.token_jwks_timeout_s,
            )
            jwks = Jwks(self._asker, url, cache_s, timeout_s)
        # None: no token is looked at.
        self._tokens = Tokens(settings, keys, jwks) if keys or jwks is not None else None
        # What a guest is let in with; None: no guests.
        self._guest = Grant(NOBODY, Rights.parse(settings.guest_rights)) if settings.takes_guests else None

    @property
    def takes_tokens(self) -> bool:
        return self._tokens is not None

    async def grant(self, credentials: Credentials) -> Grant:
        """Who that is and what they may do. Raises Denied. A token that is not good is no guest."""
        if credentials.token is not None and self._tokens is not None:
            return await self._tokens.grant(credentials.token)
        if self._guest is not None:
            return self._guest
        raise Denied("no_credentials", "say who you are: a token in Authorization, query, cookie or subprotocol")

    async def refreshed(self, token: str) -> Grant:
        """By a newer token. Raises Denied."""
        if self._tokens is None:
            raise Denied("token_key", "this node takes no tokens")
        return await self._tokens.grant(token)

    async def close(self) -> None:
        await self._asker.close()
