"""Members who come during the run, lies told while they come: what each of them is owed is counted exactly."""

from random import Random

import numpy as np
import pytest

from loadtest.channel import RoomEvidence
from loadtest.judge import Counts, judge_room
from loadtest.member import OWED_ALL, Member, Record
from loadtest.stage import Stint
from loadtest.tape import Tape, Times
from loadtest.wires import PLAIN
from tests.loadtest.theatre import message_frame

STEP_US = 10


class Arrivals:
    """The server takes a message every 10 us; it was sent up to 20 us before, in any order."""

    def __init__(self, seed: int) -> None:
        self.random = random = Random(seed)
        self.members = random.randrange(2, 9)
        # In the server's books from `seated`; the member itself knows of it a little later.
        self.seated = [0.0, *(random.uniform(0, 400) for _ in range(self.members - 1))]
        self.joined = [int(at + random.uniform(0, 15)) + 1 for at in self.seated]
        self.stints = [Stint(user, 1) for user in range(self.members)]
        self.heard: list[list[bytes]] = [[] for _ in range(self.members)]
        self.lost = 0
        since_lie = 9
        for number in range(random.randrange(10, 60)):
            since_lie = self._message((number + 1) * STEP_US, since_lie + 1)

    def _message(self, now: int, since_lie: int) -> int:
        present = [user for user in range(self.members) if self.joined[user] < now - 20]
        if not present:
            return since_lie
        sender = self.random.choice(present)
        stint = self.stints[sender]
        after = max(stint.sent_us[-1] if stint.sent_us else 0, self.joined[sender])
        stint.sent_us.append(max(after + 1, now - self.random.randrange(20)))
        frame = message_frame("room", sender, len(stint.sent_us), stint.sent_us[-1])
        seated = [user for user in range(self.members) if self.seated[user] <= now]
        settled = [user for user in seated if self.seated[user] + 50 <= now]
        if settled == seated and self.random.random() < 0.05:
            self.lost += len(seated)
            return since_lie
        victim = self.random.choice(settled) if settled and since_lie >= 8 and self.random.random() < 0.3 else -1
        for user in seated:
            if user != victim:
                self.heard[user].append(frame)
        self.lost += victim >= 0
        return 0 if victim >= 0 else since_lie

    def judge(self, processes: int) -> Counts:
        """After the members read their bytes, in pieces and in any order."""
        tapes = [Tape("run", "room") for _ in range(processes)]
        records = [Record(user, self.joined[user], owed_to=OWED_ALL) for user in range(self.members)]
        members = [
            Member(tapes[user % processes], PLAIN, record, Times("x"), lambda heard: None, lambda op, payload: None)
            for user, record in enumerate(records)
        ]
        rest = [b"".join(frames) for frames in self.heard]
        while any(rest):
            user = self.random.randrange(self.members)
            size = self.random.choice((50, 130, 400, 2_000))
            if rest[user]:
                members[user].feed(rest[user][:size], 99_999)
                rest[user] = rest[user][size:]
        return judge_room(
            [
                RoomEvidence(
                    np.array(tape.keys, np.int64),
                    np.array(tape.sent_us, np.int64),
                    np.array(tape.ids, np.int64)[1::2],
                    records[n::processes],
                    self.stints[n::processes],
                )
                for n, tape in enumerate(tapes)
            ]
        )


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_late_joiners_are_judged_exactly(processes: int) -> None:
    told = []
    for seed in range(100):
        arrivals = Arrivals(seed)
        counts = arrivals.judge(processes)
        told.append((seed, counts.lost, counts.violations) == (seed, arrivals.lost, arrivals.lost))
    assert [seed for seed, right in enumerate(told) if not right] == []
