"""`history`: what a room's log holds, page by page, without a place in the room."""

from typing import Annotated

import msgspec
from msgspec import Meta

from gateway.core.entry import Entry, EntryId, Gap, parse_id
from gateway.edge.api.operation import Call
from gateway.edge.api.problems import bad_parameter

LIMIT = 50
Limit = Annotated[int, Meta(ge=1, le=1_000)]


class History(msgspec.Struct, forbid_unknown_fields=True):
    """A page of a room."""

    room: Annotated[str, Meta(min_length=1, description="A room's name")]
    limit: Annotated[int, Meta(ge=1, le=1_000, description="How many entries, at most history_max")] = LIMIT
    before: Annotated[str, Meta(description="An id: what stands below it; none: what is newest")] | None = None


class Name(msgspec.Struct):
    """A user, as others see them."""

    id: str
    name: str


class Said(msgspec.Struct):
    """An entry of a log."""

    id: str
    # The session that said it.
    from_: str = msgspec.field(name="from")
    user: Name | None
    message: Annotated[msgspec.Raw, Meta(description="Any JSON")]
    # Unix ms, by the broker's clock.
    at: int
    # What it was is gone: `message` is null.
    deleted: bool = False


class Hole(msgspec.Struct):
    """Entries between two ids that the log has lost; `lost`: how many, null: nobody knows."""

    after: str
    before: str
    lost: int | None


class HistoryPage(msgspec.Struct):
    """The oldest first; `more`: whether the log has older ones."""

    room: str
    entries: list[Said]
    gaps: list[Hole]
    more: bool


async def history(call: Call[History]) -> HistoryPage:
    """A room in which nobody spoke yet has an empty page."""
    asked, limit_max = call.asked, call.edge.settings.history_max
    room = call.room_of(asked.room)
    if asked.limit > limit_max:
        raise bad_parameter("limit", f"a number from 1 to {limit_max}: history_max")
    page = await call.edge.context.broker.page(room, _before(asked), asked.limit, call.edge.settings.append_bytes_max)
    return HistoryPage(room, list(map(_said, page.entries)), list(map(_hole, page.gaps)), page.more)


def _before(asked: History) -> EntryId | None:
    if asked.before is None:
        return None
    try:
        return parse_id(asked.before)
    except ValueError as exc:
        raise bad_parameter("before", str(exc)) from None


def _said(entry: Entry) -> Said:
    user = msgspec.json.decode(entry.user, type=Name) if entry.user else None
    return Said(str(entry.id), entry.sender, user, msgspec.Raw(entry.message or b"null"), entry.at, not entry.message)


def _hole(gap: Gap) -> Hole:
    return Hole(str(gap.after), str(gap.before), gap.lost)
