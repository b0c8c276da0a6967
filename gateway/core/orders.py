"""What all nodes must hear: who is put out, until when, and which tokens are good no more. Pure.

An order names a target and until when it stands, by the broker's clock. A newer one about the same target takes the
older one's place, so that an order is lifted by another, and may be given twice without harm. Only the moment of
`Issued` never goes back: whoever makes older tokens good no more does not make others good again.
"""

from collections.abc import Callable, Iterable, Mapping

import msgspec

# Of a user's id, a token's, and of who gave the order.
ID_CHARS_MAX = 256


class Kick(msgspec.Struct, frozen=True, array_like=True, tag="kick"):
    """A user is put out and cannot come back: of one room, or of all."""

    user: str
    # Empty: all.
    room: str = ""


class Token(msgspec.Struct, frozen=True, array_like=True, tag="token"):
    """One token, by its id (`jti`, RFC 7519 §4.1.7), is good no more."""

    id: str


class Issued(msgspec.Struct, frozen=True, array_like=True, tag="issued"):
    """A user's tokens, or everybody's, are good no more if they were issued before some moment.

    No token lives longer than `life_s`, so that the order need stand no longer than that: it ends so long after the
    moment, which is how it says the moment.
    """

    # Empty: everybody.
    user: str
    life_s: int


Target = Kick | Token | Issued
# Labels of metrics and log lines.
KINDS: Mapping[type[Target], str] = {Kick: "kick", Token: "token", Issued: "issued"}


class Order(msgspec.Struct, frozen=True):
    """One entry of the control log."""

    target: Target
    # Unix ms by the broker's clock; 0: the order that stood is lifted.
    until: int
    # Of the broker's set of orders, when this one was written there.
    stamp: str = ""
    # Who gave it, for the log.
    by: str = ""


def began(stamp: str) -> str:
    """Which set of orders this is the stamp of: one that was lost, and begun anew, is another. "": there is none."""
    return stamp.partition("-")[0]


class BadOrder(ValueError):
    """Bytes that are no order of this version's. `args[0]` says why."""


encode = msgspec.json.encode
_decode_order = msgspec.json.Decoder(Order).decode
_decode_target: Callable[[bytes], Target] = msgspec.json.Decoder(Target).decode


def decode(raw: bytes) -> Order:
    """An entry's message. Raises BadOrder."""
    try:
        return _decode_order(raw)
    except msgspec.MsgspecError as exc:
        raise BadOrder(str(exc)) from None


def decode_target(raw: bytes) -> Target:
    """A member of the broker's set. Raises BadOrder."""
    try:
        return _decode_target(raw)
    except msgspec.MsgspecError as exc:
        raise BadOrder(str(exc)) from None


class Standing:
    """The orders that stand, as one node knows them. Each question is a look or two into a dictionary."""

    def __init__(self, orders: Iterable[Order] = ()) -> None:
        # Until when, Unix ms.
        self.until: dict[Target, int] = {}
        # Of a user's tokens, and of everybody's (""): those issued before then are good no more; Unix ms.
        self._before: dict[str, int] = {}
        for order in orders:
            self.take(order)

    def __len__(self) -> int:
        return len(self.until)

    def take(self, order: Order) -> None:
        """From now on it stands, or what stood is lifted."""
        target = order.target
        if not order.until:
            self._drop(target)
            return
        if isinstance(target, Issued):
            self.until[target] = max(order.until, self.until.get(target, 0))
            moment = self.until[target] - target.life_s * 1000
            self._before[target.user] = max(moment, self._before.get(target.user, 0))
        else:
            self.until[target] = order.until

    def end(self, now_ms: float) -> None:
        """Forget what stands no more."""
        for target in [target for target, until in self.until.items() if until <= now_ms]:
            self._drop(target)

    def kicked(self, user: str, room: str, now_ms: float) -> bool:
        """Whether this user may not be in a room; "": in none."""
        until = self.until
        if not until:
            return False
        if until.get(Kick(user), 0) > now_ms:
            return True
        return bool(room) and until.get(Kick(user, room), 0) > now_ms

    def revoked(self, user: str, token: str | None, issued_ms: float, now_ms: float) -> bool:
        """Whether a token of this user's, with this id, is good no more. One that does not say when it was issued was
        issued at 0."""
        if not self.until:
            return False
        if token is not None and self.until.get(Token(token), 0) > now_ms:
            return True
        return bool(self._before) and issued_ms < max(self._before.get(user, 0), self._before.get("", 0))

    def _drop(self, target: Target) -> None:
        if self.until.pop(target, None) is not None and isinstance(target, Issued):
            del self._before[target.user]
            for other, until in list(self.until.items()):
                if isinstance(other, Issued) and other.user == target.user:  # of another life_s
                    self.take(Order(other, until))
