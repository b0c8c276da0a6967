"""Whose connections are whose, without a broker."""

import asyncio
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.broker.keys import Keys
from gateway.broker.markers import Marker, Markers
from gateway.core.entry import EntryId
from gateway.core.names import room_name
from gateway.core.user import NOBODY, User
from gateway.rooms.readers import Readers
from gateway.rooms.watch import Watchers
from gateway.settings.model import Settings
from gateway.telemetry.metrics import Metrics

ANN, GUEST = User("ann", "Ann"), User("guest:1", "Gus", guest=True)
ROOM = room_name("room")
EARLY, LATE = EntryId(1, 1), EntryId(2, 2)


class Doorbell:
    def __init__(self) -> None:
        self.channels: list[bytes] = []

    def listen(self, channels: list[bytes]) -> None:
        self.channels += channels

    def unsubscribe(self, channels: list[bytes]) -> None:
        for channel in channels:
            self.channels.remove(channel)


class House:
    def __init__(self) -> None:
        self.doorbell = Doorbell()
        settings, metrics, nobody = Settings(room_idle_s=600, read_ttl_s=86_400), Metrics(), cast(Any, None)
        self.markers = Markers(Keys("hiroba", 0), cast(Any, self.doorbell), nobody, settings, metrics)
        tops = SimpleNamespace(rooms={}, release=lambda tops: None)
        self.readers = Readers(self.markers, Watchers(cast(Any, tops), settings, metrics), settings, metrics)


class Phone:
    """As much of a connection as is looked at."""

    def __init__(self, user: User, id: str = "phone") -> None:
        self.id = id
        self.user = user
        self.sessions: dict[str, object] = {}
        self.heard: list[bytes] = []
        self.write = self.heard.append
        self.transport = SimpleNamespace(get_write_buffer_size=lambda: 0)


def phone_of(user: User, id: str = "phone") -> Any:
    return Phone(user, id)


@pytest.fixture
def house() -> House:
    return House()


@pytest.mark.parametrize(("user", "stays_s"), [(ANN, 86_400), (GUEST, 600)])
async def test_a_guest_s_markers_go_with_the_rooms(house: House, user: User, stays_s: float) -> None:
    """Anybody may be as many guests as he likes: nothing of one stays for longer than a room that nobody uses."""
    owner = house.readers.meet(phone_of(user))
    assert owner is not None and owner.stays_s == stays_s


async def test_nobody_is_listened_for_in_vain(house: House) -> None:
    """One channel for all connections of a user, from the first one that asks to the last one's end; none of nobody."""
    phone, laptop, stranger = (phone_of(user, id) for user, id in ((ANN, "1"), (ANN, "2"), (NOBODY, "3")))
    assert house.readers.meet(stranger) is None
    assert house.readers.meet(phone) is house.readers.meet(laptop) is house.readers.meet(phone)
    assert len(house.doorbell.channels) == 1 == len(house.readers)
    for connection in (phone, stranger, phone):
        house.readers.forget(connection)
    assert len(house.doorbell.channels) == 1
    house.readers.forget(laptop)
    assert house.doorbell.channels == [] and len(house.readers) == 0


async def test_what_moves_while_it_is_asked_for_is_in_the_answer(house: House) -> None:
    """The broker answered before, the news was here before that answer, and the connection is in no room yet."""
    answers = asyncio.Queue[dict[Any, EntryId]]()

    def of(owner: object, rooms: object) -> Coroutine[Any, Any, dict[Any, EntryId]]:
        return answers.get()

    house.markers.of = of  # type: ignore[method-assign,assignment]
    phone = phone_of(ANN)
    owner = house.readers.meet(phone)
    assert owner is not None
    async with house.readers.asking(phone, [ROOM]) as known:
        house.markers.on_moved(owner, [Marker(owner, ROOM, LATE, "other")])
        answers.put_nowait({ROOM: EARLY})
        await known.loaded()
        assert known.markers == {ROOM: LATE}
    assert phone.heard == []
