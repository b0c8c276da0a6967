"""`hiroba kick` and `hiroba revoke`: how an operator puts somebody out. Written straight to the broker: no node need be
there, and all of them hear it.
"""

import asyncio
import getpass
import json
import os
import re
import socket
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import quote

from gateway.broker.endpoint import Endpoint
from gateway.broker.errors import BrokerRefused
from gateway.broker.orders import Given, NoSpace, without_a_node
from gateway.core.names import BadRoomName, room_name
from gateway.core.orders import Issued, Kick, Order, Target, Token
from gateway.settings.model import NODE_BROKER_URL, Settings, SettingsError
from gateway.telemetry import logs

# Of a user's id, a token's, and of who gave the order.
WHO_CHARS_MAX = 256


# Of bytes that are no UTF-8, as Python has them of a command line.
_SURROGATE = re.compile("[\ud800-\udfff]")


class Failed(Exception):
    """The order was not given; `args[0]` says why."""


class Ask(NamedTuple):
    """What the command line asks for. `until_ms`, `for_s`: see Orders.give."""

    target: Target
    until_ms: int | None = None
    for_s: float = 0.0
    lift: bool = False


def run(name: str, given: Mapping[str, Any], settings: Settings) -> str:
    """Give the order. What to tell whoever gave it. Raises SettingsError where the command line makes none, Failed."""
    ask = _kick(given, settings) if name == "kick" else _revoke(given, settings)
    logs.setup(settings)
    try:
        return asyncio.run(_give(ask, settings))
    except (BrokerRefused, NoSpace) as exc:
        raise Failed(str(exc)) from exc


def _kick(given: Mapping[str, Any], settings: Settings) -> Ask:
    room = given["room"]
    if room is not None:
        try:
            room = room_name(room, settings.room_name_chars_max)
        except BadRoomName as exc:
            raise SettingsError(f"--room {room!r}: {exc}") from None
    if not 0 < given["for_s"] < float("inf"):
        raise SettingsError("--for-s is a number of seconds above 0; --lift takes a kick back")
    target = Kick(_id("USER", given["user"]), room or "")
    return Ask(target, None, given["for_s"], given["lift"])


def _revoke(given: Mapping[str, Any], settings: Settings) -> Ask:
    user, token, everybody, before = (given[name] for name in ("user", "token", "everybody", "issued_before"))
    if (user is not None) + (token is not None) + everybody != 1:
        raise SettingsError("say whose tokens: one of USER, --token JTI, --everybody")
    if token is not None and before is not None:
        raise SettingsError("--issued-before is said of a user's tokens, or everybody's: --token is one already")
    life_s = settings.revoked_s
    target = (
        Token(_id("--token", token)) if token is not None else Issued("" if everybody else _id("USER", user), life_s)
    )
    until_ms = None if before is None else int((_moment(before) + life_s) * 1000)
    if until_ms is not None and until_ms <= time.time() * 1000:
        raise SettingsError(
            f"tokens issued before {before} have all expired: none lives longer than revoked_s ({life_s})"
        )
    return Ask(target, until_ms, life_s, given["lift"])


def _id(what: str, text: str) -> str:
    """Any that a user, or a token, may have."""
    if not 0 < len(text) <= WHO_CHARS_MAX or _SURROGATE.search(text):
        raise SettingsError(f"{what} is an id: 1 to {WHO_CHARS_MAX} characters in UTF-8")
    return text


def _moment(text: str) -> float:
    """Unix seconds."""
    try:
        moment = float(text) if text.replace(".", "", 1).isdigit() else datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise SettingsError(f"--issued-before {text!r} is neither 2027-01-31T12:00:00Z nor Unix seconds") from None
    if moment > time.time() + 1:
        raise SettingsError(f"--issued-before {text!r} is still to come: nobody could log in until then")
    return moment


async def _give(ask: Ask, settings: Settings) -> str:
    url = broker_of(settings)
    within_s = settings.broker_timeout_s + settings.publish_timeout_s
    why = "no answer"

    def changed(_: str, down: str | None) -> None:
        nonlocal why
        why = down or why

    async with without_a_node(url, settings, changed) as orders:
        try:
            async with asyncio.timeout(within_s):
                target, until_ms, for_s, lift = ask
                work = orders.lift(target, who()) if lift else orders.give(target, until_ms, for_s, who())
                return _told(await work, settings)
        except TimeoutError:
            place = Endpoint(url, settings.broker_timeout_s)
            raise Failed(f"{place} did not take the order within {within_s:g} s ({why}): give it again") from None


def broker_of(settings: Settings) -> str:
    """The broker named, else the one that `hiroba up` runs in this directory, else a node's default."""
    socket_ = settings.data / "valkey.sock"
    if settings.broker_url is None and socket_.is_socket():
        return f"unix://{quote(str(socket_.absolute()))}"
    return settings.broker_url or NODE_BROKER_URL


def who() -> str:
    """Who types this, as logs have it."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user has no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"[:WHO_CHARS_MAX]


def _told(given: Given, settings: Settings) -> str:
    order = given.order
    what = _words(order)
    if not order.lifted:
        what += f", until {_shown(order.until)}"
    if given.unsaid is not None:
        reason = given.unsaid.reason
        what += f"; {reason}, so nodes find it by themselves, within sweep_s ({settings.sweep_s:g} s here)"
    return what


def _words(order: Order) -> str:
    target, stands = order.target, not order.lifted
    if isinstance(target, Kick):
        return f"{_printed(target.user)} {'is put out of' if stands else 'may come into'} {target.room or 'all rooms'}"
    if isinstance(target, Token):
        return f"token {_printed(target.id)} {'is' if stands else 'is not'} revoked"
    whose = f"{_printed(target.user)}'s" if target.user else "everybody's"
    if not stands:
        return f"{whose} tokens are not revoked"
    return f"{whose} tokens issued before {_shown(order.until - target.life_s * 1000)} are revoked"


def _printed(id: str) -> str:
    """For a terminal, whatever is in it."""
    return id if id.isprintable() else json.dumps(id)


def _shown(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
