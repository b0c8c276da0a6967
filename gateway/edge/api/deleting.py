"""Deleting: a message, all that a room has, a room, all that a user said. docs/operations.md says what is gone when."""

import msgspec
import structlog

from gateway.broker.deletions import Deleted
from gateway.broker.erasures import Progress
from gateway.core.entry import parse_id
from gateway.core.names import RoomName
from gateway.edge.api.operation import Call, Nothing
from gateway.edge.api.problems import Problem, bad_parameter
from gateway.telemetry.logs import AUDIT

# Of one node, at once.
ERASURES_MAX = 4

log = structlog.get_logger()


class Deletion(msgspec.Struct):
    """It is done. `deleted`: how many messages by this request; 0 where they were deleted before."""

    room: str
    deleted: int


class Erasure(msgspec.Struct):
    """All that a user said is being deleted, room by room. `state`: `none` (nobody asked for it within a day),
    `running`, `done`, or `broken` (its node ended, or the broker refused: ask for it again, it is safe)."""

    user: str
    state: str
    # Looked through so far, and deleted in them.
    rooms: int
    deleted: int


async def message(call: Call[Nothing]) -> Deletion:
    room, text = call.room_of(call.path["room"]), call.path["message"]
    try:
        id = parse_id(text)
    except ValueError as exc:
        raise bad_parameter("message", str(exc)) from None
    call.facts |= {"room": room, "message": str(id)}
    deleted = await call.edge.context.broker.deletions.delete(room, [id], _by(call))
    if deleted.missing:
        raise Problem("no_message", f"{room} has no message {id}, or no more")
    return _told(call, room, deleted)


async def messages(call: Call[Nothing]) -> Deletion:
    room = await _there(call)
    return _told(call, room, await call.edge.context.broker.deletions.empty(room, _by(call)))


async def room(call: Call[Nothing]) -> Deletion:
    name, broker = await _there(call), call.edge.context.broker
    deleted = await broker.deletions.remove(name, _by(call))
    await broker.rooms.forget(name)
    return _told(call, name, deleted)


async def _there(call: Call[Nothing]) -> RoomName:
    name = call.room_of(call.path["room"])
    call.facts["room"] = name
    (found,) = await call.edge.context.broker.rooms.logs([name])
    if found is None:
        raise Problem("no_room", f"nobody has spoken in {name}, or it has expired")
    return name


def _told(call: Call[Nothing], room: RoomName, deleted: Deleted) -> Deletion:
    call.facts["deleted"] = deleted.entries
    if deleted.unsaid is not None:
        raise Problem(
            "unsaid", f"it is deleted, and nodes have not heard of it, for {deleted.unsaid.reason}: ask again"
        )
    return Deletion(room, deleted.entries)


def _by(call: Call[Nothing]) -> str:
    return f"api:{call.caller.name}"


class Erasures:
    """Those that this node carries out; how far they are any node can say."""

    def __init__(self) -> None:
        self._running: set[str] = set()

    async def begin(self, call: Call[Nothing]) -> Erasure:
        """In the background; asked again while it runs, it is the same."""
        user, context = call.path["id"], call.edge.context
        call.facts["user"] = user
        known = await context.broker.erasures.progress(user)
        if known is not None and known.state == "running":
            return _erasure(user, known)
        if len(self._running) >= ERASURES_MAX:
            raise Problem("busy", f"{ERASURES_MAX} users are being erased by this node already")
        self._running.add(user)
        context.keep("erasure", self._run(call, user))
        return _erasure(user, Progress("running"))

    async def _run(self, call: Call[Nothing], user: str) -> None:
        broken, progress = "", Progress("broken")
        try:
            progress = await call.edge.context.broker.erasures.run(user, _by(call))
        except Exception as exc:
            broken = str(exc)
        finally:
            self._running.discard(user)
        log.info(
            AUDIT, operation="erased", state=progress.state, key=call.caller.name, key_id=call.caller.id, user=user,
            rooms=progress.rooms, deleted=progress.deleted, error=broken or None,
        )  # fmt: skip

    async def progress(self, call: Call[Nothing]) -> Erasure:
        user = call.path["id"]
        return _erasure(user, await call.edge.context.broker.erasures.progress(user))


def _erasure(user: str, progress: Progress | None) -> Erasure:
    if progress is None:
        return Erasure(user, "none", 0, 0)
    return Erasure(user, progress.state, progress.rooms, progress.deleted)
