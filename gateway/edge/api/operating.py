"""`control` and `settings`: what was ordered and deleted, by whom; and how the node that answers is set."""

from typing import Annotated

import msgspec
from msgspec import Meta

from gateway.core.deletions import BadDeletion, News, is_deletion
from gateway.core.deletions import decode as decode_deletion
from gateway.core.entry import START, Entry
from gateway.core.orders import KINDS, BadOrder, Issued, Kick, Order, Target, decode
from gateway.edge.api.operation import Call, Nothing
from gateway.settings.model import SECTIONS, Settings, for_people

WORDS_MAX = 200
# Of those that stand.
STANDING_MAX = 500


class LookBack(msgspec.Struct, forbid_unknown_fields=True):
    """The end of the control log."""

    limit: Annotated[int, Meta(ge=1, le=WORDS_MAX, description="How many words of the log")] = 50


class Word(msgspec.Struct, omit_defaults=True):
    """One entry of the control log. `kind`: `kick`, `token`, `issued` (revocations), `deletion`."""

    id: str
    # Unix ms, by the broker's clock.
    at: int
    kind: str
    # Who gave it: a key as `api:NAME`, a command; empty: a node gave again what the broker had lost.
    by: str = ""
    # Whom or what it is about; a kick without a room is of all rooms, an `issued` without a user of everybody.
    user: str = ""
    room: str = ""
    token: str = ""
    # Until when it stands, Unix ms; null: it is lifted, or stands for nothing.
    until: int | None = None
    lifted: bool = False
    # Of a deletion: how many messages by their ids; `emptied`: all that the room had; `gone`: the room itself.
    messages: int = 0
    emptied: bool = False
    gone: bool = False


class Stands(msgspec.Struct, omit_defaults=True):
    """An order that stands, as the node that answers knows it."""

    kind: str
    # Unix ms, by the broker's clock.
    until: int
    user: str = ""
    room: str = ""
    token: str = ""


class ControlLog(msgspec.Struct):
    """`words`: the newest first. `standing`: what counts now, at most 500 of `standing_count`, what ends last first."""

    words: list[Word]
    standing: list[Stands]
    standing_count: int


async def control(call: Call[LookBack]) -> ControlLog:
    broker = call.edge.context.broker
    entries = await broker.control.orders.lately(call.asked.limit)
    words = [word for entry in entries if (word := _word(entry)) is not None]
    now_ms = broker.control.now_ms()
    standing = [(until, target) for target, until in broker.control.standing.until.items() if until > now_ms]
    standing.sort(key=lambda one: one[0], reverse=True)
    return ControlLog(words, [_stands(until, target) for until, target in standing[:STANDING_MAX]], len(standing))


def _word(entry: Entry) -> Word | None:
    """None: a later version's."""
    try:
        if is_deletion(entry.message):
            return _deletion(entry, decode_deletion(entry.message))
        return _order(entry, decode(entry.message))
    except (BadDeletion, BadOrder):
        return None


def _deletion(entry: Entry, news: News) -> Word:
    return Word(
        str(entry.id), entry.at, "deletion", news.by, room=news.room,
        messages=len(news.ids), emptied=news.up_to > START, gone=news.gone,
    )  # fmt: skip


def _order(entry: Entry, order: Order) -> Word:
    until = None if order.lifted else order.until
    user, room, token = _whom(order.target)
    kind = KINDS[type(order.target)]
    return Word(str(entry.id), entry.at, kind, order.by, user, room, token, until, order.lifted)


def _stands(until: int, target: Target) -> Stands:
    return Stands(KINDS[type(target)], until, *_whom(target))


def _whom(target: Target) -> tuple[str, str, str]:
    """User, room, token."""
    if isinstance(target, Kick):
        return target.user, target.room, ""
    if isinstance(target, Issued):
        return target.user, "", ""
    return "", "", target.id


class Setting(msgspec.Struct):
    """One setting. `value`: as a flag has it, secrets as `***`; empty: unset."""

    name: str
    value: str
    # As the program has it by itself.
    default: bool
    section: str
    # What it does, and why it is so.
    text: str


class AllSettings(msgspec.Struct):
    """Of the node that answers, in the order of docs/settings.md."""

    node: str
    settings: list[Setting]


async def settings(call: Call[Nothing]) -> AllSettings:
    """Answered also while the broker is away."""
    has = call.edge.settings
    found: list[Setting] = []
    for section in SECTIONS:
        for name in section.__annotations__:
            field, value = Settings.model_fields[name], getattr(has, name)
            text = " ".join((field.description or "").split())
            shown = for_people(name, value)
            found.append(Setting(name, shown, value == field.default, section.__doc__ or "", text))
    return AllSettings(call.edge.context.node, found)
