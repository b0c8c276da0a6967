"""Rooms as Durable Streams: what offsets, cursors and a request's words mean. Pure.

Sections are those of PROTOCOL.md in the repository durable-streams/durable-streams; docs/protocol.md says which of it
a room has.
"""

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from enum import Enum
from typing import NamedTuple

from gateway.core.entry import EntryId

# Section 10.1: time in intervals, counted from 9 October 2024, so that a cache between never answers from for ever ago.
CURSOR_EPOCH_MS = 1_728_432_000_000
CURSOR_INTERVAL_MS = 20_000
# Who comes with the present cursor gets one that is higher by up to an hour.
CURSOR_JITTER_MAX = 180

# Redis keeps each half of an id in 64 bits, so 20 digits; with all of them, ids sort as text.
_OFFSET = re.compile(r"(\d{1,20})-(\d{1,20})\Z", re.ASCII)
_HALF_MAX = 2**64 - 1
_TTL = re.compile(r"(0|[1-9]\d*)\Z", re.ASCII)
_FORKS = ("Stream-Forked-From", "Stream-Fork-Offset", "Stream-Fork-Sub-Offset")
_CURSOR = re.compile(r"\d{1,15}\Z", re.ASCII)


class Named(Enum):
    """An offset that names no entry (section 8)."""

    BEGINNING = "-1"
    NOW = "now"


class Live(Enum):
    """How who has read all that there is goes on (sections 5.7, 5.8)."""

    POLL = "long-poll"
    EVENTS = "sse"


Offset = EntryId | Named


class BadRequest(ValueError):
    """The request is not what the protocol has. `args[0]` says why."""


class Query(NamedTuple):
    """What a reader wants. `live` None: only what there is. `cursor`: the last one it was given; None: none."""

    offset: Offset
    live: Live | None
    cursor: int | None


def offset_of(id: EntryId) -> str:
    """Behind an entry: its id, in which leading zeros make text sort as ids do."""
    return f"{id.ms:020d}-{id.n:020d}"


def parse_offset(text: str) -> Offset:
    """Raises BadRequest. An id without its leading zeros is the same offset."""
    for named in Named:
        if text == named.value:
            return named
    match = _OFFSET.match(text)
    if match is None or max(int(match[1]), int(match[2])) > _HALF_MAX:
        raise BadRequest("offset is -1, now, or one that Stream-Next-Offset gave")
    return EntryId(int(match[1]), int(match[2]))


def parse_query(offsets: Sequence[str], lives: Sequence[str], cursors: Sequence[str]) -> Query:
    """What a query asks, each parameter as often as it stands there. Raises BadRequest."""
    if len(offsets) > 1 or len(lives) > 1:
        raise BadRequest("offset and live may stand there once")
    live = _live(lives[0]) if lives else None
    if live is not None and not offsets:
        raise BadRequest(f"live={live.value} needs an offset")
    # A cursor only moves caches on: what is none of ours asks for nothing.
    cursor = int(cursors[0]) if cursors and _CURSOR.match(cursors[0]) else None
    return Query(parse_offset(offsets[0]) if offsets else Named.BEGINNING, live, cursor)


def _live(text: str) -> Live:
    try:
        return Live(text)
    except ValueError:
        raise BadRequest("live is long-poll or sse") from None


class Wanted(Enum):
    """What somebody who creates a stream wants of it (section 5.1)."""

    USUAL = "what every room is"
    OTHER = "something that no room is"
    FORK = "a copy of another"


def configuration(header: Callable[[str], str | None]) -> Wanted:
    """What the headers of a PUT ask. Raises BadRequest."""
    ttl, expiry = header("Stream-TTL"), header("Stream-Expires-At")
    if ttl is not None and expiry is not None:
        raise BadRequest("Stream-TTL and Stream-Expires-At: one of them")
    if ttl is not None and not _TTL.match(ttl):
        raise BadRequest("Stream-TTL is a number of seconds, in digits")
    if expiry is not None:
        try:
            datetime.fromisoformat(expiry)
        except ValueError:
            raise BadRequest("Stream-Expires-At is a time as RFC 3339 has it") from None
    if any(header(name) is not None for name in _FORKS):
        return Wanted.FORK
    closed = (header("Stream-Closed") or "").lower() == "true"
    return Wanted.OTHER if closed or ttl is not None or expiry is not None else Wanted.USUAL


def cursor_at(at_ms: int) -> int:
    """The cursor of a time in Unix ms."""
    return max(0, at_ms - CURSOR_EPOCH_MS) // CURSOR_INTERVAL_MS


def next_cursor(at_ms: int, asked: int | None, jitter: int) -> int:
    """The cursor of an answer: never the one that its request came with, nor one below. `jitter`: at least 1."""
    now = cursor_at(at_ms)
    return asked + jitter if asked is not None and asked >= now else now
