"""Guests: who says a name of their own. It is kept in a cookie that we signed, and proves nothing else."""

import secrets

import jwt
import msgspec
from precis_i18n import get_profile

from gateway.auth.keys import secret_key
from gateway.core.rights import Rights
from gateway.core.user import GUEST, NOBODY, BadUser, Grant, User

COOKIE = "hiroba_guest"
# A year: as long as browsers keep a cookie at most (RFC 6265bis: 400 days).
COOKIE_S = 365 * 86_400
# Longer than most names, and short enough to stand before a line.
NICKNAME_CHARS_MAX = 40

_PROFILE = get_profile("NicknameCasePreserved")
_BROKEN = (jwt.PyJWTError, msgspec.MsgspecError, BadUser, ValueError, TypeError, OverflowError, RecursionError)


class _Said(msgspec.Struct):
    sub: str
    name: str


class Guests:
    """`secret`: what their cookies are signed with, at least 32 bytes. Raises BadKey."""

    def __init__(self, secret: bytes, rights: Rights) -> None:
        self._key = secret_key(secret).jwk
        self._nobody = Grant(NOBODY, rights)

    def grant(self, cookie: str | None) -> Grant:
        """By their cookie. One that is not ours is no reason to refuse anybody: they have said no name."""
        user = None if cookie is None else self._user(cookie)
        return self._nobody if user is None else Grant(user, self._nobody.rights)

    def name_of(self, cookie: str | None) -> str:
        """Empty: they have said none."""
        return self.grant(cookie).user.name

    def named(self, name: str, cookie: str | None) -> tuple[User, str]:
        """A guest of that name, the same one who had the cookie, and the cookie for it. Raises BadUser."""
        known = self.grant(cookie).user.id
        user = User(known or GUEST + secrets.token_urlsafe(9), _nickname(name), guest=True)
        return user, jwt.encode({"sub": user.id, "name": user.name}, self._key.key, "HS256")

    def _user(self, cookie: str) -> User | None:
        try:
            said = msgspec.convert(jwt.decode(cookie, self._key, algorithms=["HS256"]), _Said)
            return User(said.sub, said.name, guest=True)
        except _BROKEN:
            return None


def _nickname(name: str) -> str:
    """As RFC 8266 has nicknames: nothing that is not seen, no space but single ones between words."""
    if len(name) > 4 * NICKNAME_CHARS_MAX:
        raise BadUser(f"a name has at most {NICKNAME_CHARS_MAX} characters")
    try:
        known: str = _PROFILE.enforce(name)
    except UnicodeEncodeError:
        raise BadUser("that can't be a name: letters, digits, marks and spaces between them") from None
    if len(known) > NICKNAME_CHARS_MAX:
        raise BadUser(f"a name has at most {NICKNAME_CHARS_MAX} characters")
    return known
