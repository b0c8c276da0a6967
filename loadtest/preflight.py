"""Before a run: is there a server of this wire, are there enough descriptors? One sentence if not."""

from __future__ import annotations

import asyncio
import resource
import time
from dataclasses import replace
from functools import partial

from loadtest import stamp
from loadtest.connection import Connection, Refused
from loadtest.member import Member, Record
from loadtest.sorter import Sorter
from loadtest.spec import BadSpec, Endpoint, Spec
from loadtest.stage import Stage
from loadtest.wires import Heard

# A healthy chat server answers in milliseconds; one that needs longer than this is not ready for a test.
ANSWER_S = 5.0
# Descriptors of a worker that are not connections.
SPARE_DESCRIPTORS = 64


def check_descriptors(users: int, processes: int) -> None:
    """Raises BadSpec. Workers raise their soft limit to the hard one by themselves."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = -(-users // processes) + SPARE_DESCRIPTORS
    if hard != resource.RLIM_INFINITY and needed > hard:
        enough = -(-users // max(hard - SPARE_DESCRIPTORS, 1))
        raise BadSpec(
            f"{users:,} users in {processes} processes need {needed:,} file descriptors each and the limit"
            f" is {hard:,}: raise it (ulimit -Hn), or use --processes {enough}"
        )


async def check_servers(spec: Spec) -> None:
    """Join a room of our own at every address and hear our own message. Raises BadSpec."""
    await asyncio.gather(*(_check_server(spec, endpoint, n) for n, endpoint in enumerate(spec.endpoints)))


async def _check_server(spec: Spec, endpoint: Endpoint, number: int) -> None:
    # A run of its own: in a room without a name of its own the check must not be taken for user 0.
    stage = Stage(replace(spec, run=f"{spec.run}check"), time.monotonic_ns())
    of_its_own = spec.rooms_per_connection is not None or "{room}" in endpoint.path
    room = f"{spec.rooms[0]}_check{number}" if of_its_own else spec.rooms[0]
    connection = Connection(stage.wire, stage.now_us)
    try:
        address = await stage.address_of(endpoint)
        opened = await connection.open(
            endpoint, address, endpoint.path_of(room), stage.tls_of(endpoint), stage.token_of("check")
        )
        await _hears_itself(stage, connection, room, opened.joined_us)
    except Refused as exc:
        raise BadSpec(f"{endpoint.url}: {exc}") from exc
    except TimeoutError as exc:
        raise BadSpec(f"{endpoint.url}: no answer in time") from exc
    except OSError as exc:
        raise BadSpec(f"{endpoint.url} can't be reached: {exc.strerror or exc}") from exc
    finally:
        connection.abort()


async def _hears_itself(stage: Stage, connection: Connection, room: str, joined_us: int) -> None:
    told: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def closed(code: int, reason: str) -> None:
        if not told.done():
            told.set_exception(Refused(0, f"the server closed the connection at once: {code} {reason}".strip()))

    record = Record(0, joined_us)
    mark = stamp.Stamp(stage.spec.run, room, 0, 1, 0, stage.now_us())
    many = stage.spec.rooms_per_connection is not None

    def speak() -> None:
        connection.send(stage.wire.say(stamp.write(mark, "check", 0), 1, room if many else None))

    def hear(heard: Heard) -> None:
        if heard.kind == "joined":
            speak()
        elif heard.kind == "error" and not told.done():
            told.set_exception(Refused(0, f"the server answered: {heard.body.get('code')}: {heard.body.get('text')}"))

    member = Member(stage.room(room).tape, stage.wire, record, stage.times_of("check"), hear, connection.on_control)
    member.waiting[mark.key] = partial(told.set_result, None)
    feed = member.feed
    if many:
        sorter = Sorter(stage.wire, hear, connection.on_control)
        sorter.members[room.encode()] = member
        feed = sorter.feed
    connection.adopt(feed, closed)
    if many:
        connection.send(stage.wire.join(room, None))
    else:
        speak()
    try:
        async with asyncio.timeout(ANSWER_S):
            await told
    except TimeoutError:
        if record.foreign:
            what = f"what came back in {ANSWER_S:.0f} s is not the wire {stage.wire.name!r}"
        else:
            what = f"it accepted a message and gave nothing back within {ANSWER_S:.0f} s"
        raise Refused(0, f"{what}: is this a chat server of that wire?") from None
    finally:
        connection.adopt(feed, lambda code, reason: None)
        await connection.close()
