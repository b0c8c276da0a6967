"""One user in one room: what it heard there, what it says over the present connection. No sockets, no judgement."""

from __future__ import annotations

from collections.abc import Callable

from loadtest import stamp
from loadtest.member import OWED_ALL, Member, Record
from loadtest.stage import Room, Stage, Stint
from loadtest.tape import Times
from loadtest.wires import Heard, read_id, write_id


class Seat:
    """Taken with `enter`, over and over; `lost` when the connection broke, `given_up` for good."""

    def __init__(
        self,
        stage: Stage,
        room: Room,
        user: int,
        times: Times,
        on_told: Callable[[Heard], None],
        on_control: Callable[[int, bytes], None],
    ) -> None:
        self.room = room
        # What was heard here, over one connection or several; None: nothing that could be resumed.
        self.member: Member | None = None
        # None: not in the room.
        self.stint: Stint | None = None
        self._stage = stage
        self._user = user
        self._times = times
        self._on_told = on_told
        self._on_control = on_control

    @property
    def name(self) -> str:
        return self.room.tape.room

    @property
    def after(self) -> str | None:
        """The entry to resume behind; None: this is no resume."""
        return write_id(self.member.last_id) if self.member is not None else None

    def enter(self, joined_us: int, told: Heard | None) -> Member:
        """In the room from now on. `told`: v1's `welcome` or `joined`."""
        stage, room, member = self._stage, self.room, self.member
        newest = read_id(told.body.get("last_id")) if told is not None else (0, 0)
        if member is not None and told is not None and told.body.get("recovered") is True:
            member.rejoined(joined_us, newest[1])
            stage.tally["resumed"] += 1
        else:
            if member is not None:
                stage.tally["not_recovered"] += 1
            self.given_up()
            record = Record(self._user, joined_us)
            member = self.member = Member(room.tape, stage.wire, record, self._times, self._on_told, self._on_control)
            member.newest = newest
            room.records.append(record)
        self.stint = Stint(self._user, room.numbers[self._user] + 1)
        room.stints.append(self.stint)
        return member

    def write(self, text: str, intended_us: int) -> tuple[int, bytes]:
        """The user's next message in this room, for its connection, and the key under which it will be heard."""
        stage, room, stint = self._stage, self.room, self.stint
        assert stint is not None
        number = room.numbers[self._user] = room.numbers[self._user] + 1
        sent_us = stage.now_us()
        mark = stamp.Stamp(stage.spec.run, self.name, self._user, number, intended_us, sent_us)
        stint.sent_us.append(sent_us)
        stage.tally["sent"] += 1
        message = stamp.write(mark, text, stage.spec.message_bytes)
        return mark.key, stage.wire.say(message, number, self.name if stage.spec.rooms_per_connection else None)

    def told(self, heard: Heard) -> None:
        """v1 speaks of this room to this user alone."""
        body, member, stint = heard.body, self.member, self.stint
        ref = body.get("ref")
        if heard.kind == "ack":
            if member is not None and isinstance(ref, int):
                waiter = member.waiting.pop(stamp.key_of(self._user, ref), None)
                if waiter is not None:
                    waiter()
        elif heard.kind == "gap":
            if member is not None:
                member.record.gaps.append((read_id(body.get("after"))[1], read_id(body.get("before"))[1]))
        elif heard.kind == "error" and stint is not None and isinstance(ref, int) and body.get("code") != "unknown":
            stint.refused.append(ref)

    # How it ends

    def leave(self) -> None:
        """On purpose: owed is what the room has heard by now, and `left` follows when it is here."""
        if self.stint is None:
            self.given_up()
        elif self.member is not None:
            self.member.record.owed_to = len(self.member.tape)

    def stay_to_the_end(self) -> None:
        """The run is over: this membership is owed everything."""
        if self.member is not None and self.stint is not None:
            self.member.record.owed_to = OWED_ALL

    def lost(self) -> None:
        """Out of the room: the connection broke, or the server ended the session. It may resume where the wire does."""
        self._end_stint()
        if not self._stage.wire.resumes:
            self.given_up()

    def left(self) -> None:
        """Out of the room in good order, after `leave`."""
        self._end_stint()
        self.member = None

    def given_up(self) -> None:
        """Nothing is owed beyond what was heard."""
        if self.member is not None:
            self.member.record.owed_to = -1
        self.member = self.stint = None

    def _end_stint(self) -> None:
        if self.stint is not None:
            self.stint.broken = not self._confirmed()
        self.stint = None

    # What is still to come

    def has_what_it_is_owed(self) -> bool:
        """After `leave`."""
        return self.member is None or (self.member.record.end >= self.member.record.owed_to and self._confirmed())

    def is_complete(self) -> bool:
        """Nothing is on its way here that its process knows of."""
        member = self.member
        if member is None or self.stint is None:
            return False
        return member.record.end >= len(member.tape) and self._confirmed()

    def _confirmed(self) -> bool:
        """Is the newest of the stint's messages known to be in the room? (Then so are those before it.)"""
        stint = self.stint
        if stint is None or not stint.sent_us:
            return True
        last = stint.first_number + len(stint.sent_us) - 1
        return last in stint.refused or self.room.tape.find(stamp.key_of(self._user, last)) >= 0
