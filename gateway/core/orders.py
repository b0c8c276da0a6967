"""What all nodes must hear: who is put out, until when, and which tokens are good no more. Pure.

An order names a target and until when it stands, by the broker's clock. A newer one about the same target takes the
older one's place, so that an order is lifted by another, and may be heard twice without harm. Only the moment of
`Issued` never goes back: whoever makes older tokens good no more does not make others good again.
"""

from collections.abc import Callable, Iterable, Mapping

import msgspec


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
    """One entry of the control log, or one of those that stand."""

    target: Target
    # Until when it stands, or would have stood if it were not lifted: Unix ms by the broker's clock.
    until: int
    # When it was given, Unix µs by the broker's clock: of two about one target the later one counts.
    given: int
    lifted: bool = False
    # Of the broker's set of orders, when this one was written there.
    stamp: str = ""
    # Who gave it, for the log; empty: it was given before, and lost by the broker.
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


_NO_MOMENTS: Mapping[int, int] = {}


class Standing:
    """The orders that have not ended, as one node knows them. Each question is a look or two into a dictionary."""

    def __init__(self) -> None:
        # The lifted ones too: whoever brings an older one must not be believed.
        self.orders: dict[Target, Order] = {}
        # Until when, of those that stand.
        self.until: dict[Target, int] = {}
        # Of a user's tokens, and of everybody's (""), by life_s: those issued before then, Unix ms, are good no more.
        self._issued: dict[str, dict[int, int]] = {}

    def __len__(self) -> int:
        return len(self.until)

    def take(self, order: Order) -> None:
        """The log says so: whatever was known of its target counts no more."""
        self.orders[order.target] = order
        self._settle(order.target)

    def merge(self, orders: Iterable[Order]) -> list[Order]:
        """The broker's set says so: of each target the later order counts. Those of which it has none, or an older."""
        theirs: dict[Target, int] = {}
        for order in orders:
            theirs[order.target] = order.given
            known = self.orders.get(order.target)
            if known is None or known.given < order.given:
                self.take(order)
        return [order for target, order in self.orders.items() if theirs.get(target, 0) < order.given]

    def end(self, now_ms: float) -> None:
        """Forget what has ended."""
        for target in [target for target, order in self.orders.items() if order.until <= now_ms]:
            del self.orders[target]
            self._settle(target)

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
        return any(
            issued_ms < moment for whose in (user, "") for moment in self._issued.get(whose, _NO_MOMENTS).values()
        )

    def _settle(self, target: Target) -> None:
        """What follows from the order about a target, or from there being none."""
        order = self.orders.get(target)
        if order is not None and not order.lifted:
            self.until[target] = order.until
        else:
            self.until.pop(target, None)
        if isinstance(target, Issued):
            moments = self._issued.setdefault(target.user, {})
            if target in self.until:
                moments[target.life_s] = self.until[target] - target.life_s * 1000
            else:
                moments.pop(target.life_s, None)
            if not moments:
                del self._issued[target.user]
