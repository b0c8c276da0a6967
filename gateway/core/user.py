"""Who somebody is, and what they were let in with: a user, and a grant. Pure."""

import re
from typing import NamedTuple

import msgspec

from gateway.core.rights import Rights

ID_CHARS_MAX = 128
NAME_CHARS_MAX = 100
INFO_BYTES_MAX = 1_024
# How the ids of guests begin, and nobody else's: no guest can take a user's id, and everybody sees who is one.
GUEST = "guest:"
# What ends a line or turns its direction: taken out of names, for they stand before what others say.
_BREAKS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class BadUser(ValueError):
    """No user: `args[0]` says why."""


class User:
    """A person, by the site's word or, a guest, by their own. Immutable by habit: connections share it."""

    __slots__ = ("guest", "id", "info", "json", "name")

    def __init__(self, id: str, name: str | None, info: bytes = b"null", *, guest: bool = False) -> None:
        """`name` None, or empty as Django has it of who gave none: as the id. One that is too long is cut: people
        choose their names, and must not be shut out by one. `info`: JSON, whatever the site wants its pages to know.
        Raises BadUser."""
        if not 0 < len(id) <= ID_CHARS_MAX or "\0" in id:  # no command line could name a NUL
            raise BadUser(f"a user's id has 1 to {ID_CHARS_MAX} characters, none of them NUL")
        name = _shown(name or "") or _shown(id)
        if guest != id.startswith(GUEST):
            raise BadUser(f"ids that begin with {GUEST} are of guests")
        if not name:
            raise BadUser("a user has a name, or at least an id, that can be seen")
        if len(info) > INFO_BYTES_MAX:
            raise BadUser(f"info has more than {INFO_BYTES_MAX} bytes")
        self.id = id
        self.name = name
        self.info = info
        self.guest = guest
        # As entries and frames have it: made once, not with each message.
        try:
            self.json = msgspec.json.encode({"id": id, "name": name})
        except UnicodeEncodeError:
            raise BadUser("half of a surrogate pair is no text") from None

    def __repr__(self) -> str:
        return f"User({self.id!r})"

    def member(self) -> bytes:
        """As others are told who is here, JSON: `info` only where there is any."""
        member = {"id": self.id, "name": self.name, "guest": self.guest}
        return msgspec.json.encode(member if self.info == b"null" else {**member, "info": msgspec.Raw(self.info)})


def _shown(name: str) -> str:
    return _BREAKS.sub("", name)[:NAME_CHARS_MAX].strip()


def _nobody() -> User:
    user = User.__new__(User)
    user.id, user.name, user.info, user.guest, user.json = "", "", b"null", True, b""
    return user


# A guest who has said no name: not told apart from others, and told as null.
NOBODY = _nobody()


class Grant(NamedTuple):
    """What a connection was let in with."""

    user: User
    rights: Rights
    # When it ends, Unix seconds; None: it does not.
    expires_at: float | None = None
    # Of the token: its `iat`, Unix seconds, and its `jti`. None: it has none, or it was no token. By the site's word:
    # when it was asked.
    issued_at: float | None = None
    token_id: str | None = None
