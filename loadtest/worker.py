"""One process full of users: `python -m loadtest.worker FD`, started by crew.py. Judges nothing."""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
import socket
import sys
from collections import Counter
from contextlib import suppress
from heapq import heapify, heappop, heapreplace
from itertools import count

import numpy as np
import uvloop

from loadtest import catalog, plan
from loadtest.alarm import Alarm
from loadtest.channel import Awaited, Channel, Done, Go, LastSent, Prepare, Ready, RoomEvidence, Stop, Tick
from loadtest.life import Life
from loadtest.pulse import Pulse
from loadtest.spec import BadSpec, Spec
from loadtest.stage import Room, Stage

FLUSH_S = 0.1
# A plan that is behind starts so many actions before the sockets are looked at again.
TURNS_MAX = 32
# Nothing came for so long, and nothing is missing: the run is over. Late doubles would still be caught.
QUIET_S = 0.4


class Worker:
    def __init__(self, spec: Spec, number: int, channel: Channel) -> None:
        self._spec = spec
        self._number = number
        self._channel = channel
        self._scenario = catalog.load(spec)
        self._population = plan.population(catalog.shape_of(spec, self._scenario.shape), spec.duration_s)
        self._stop = asyncio.Event()
        self._pulse = Pulse()
        self._settling = False
        self._lives: list[Life] = []
        self._acting: set[asyncio.Task[None]] = set()
        self._awaited: dict[str, list[int]] | None = None
        self._kinds: list[int] = []

    async def run(self, epoch_ns: int) -> Done:
        stage = self._stage = Stage(self._spec, epoch_ns)
        self._make_lives()
        # The users are there for good: the collector need not look at them again and again.
        gc.freeze()
        self._pulse = Pulse()
        helpers = [asyncio.create_task(work) for work in (self._pulse.beat(), self._report(), self._flush())]
        users = [stage.spawn(self._live(life), f"user {life.number}") for life in self._lives]
        timetable = stage.spawn(self._timetable(), "timetable")
        await self._until_the_end()
        self._settling = True
        await _cancelled(*users)
        await self._overdue(timetable)
        await self._settle()
        stage.stopping = True
        stage.flush()
        done = self._done()
        for task in helpers:
            task.cancel()
        self._channel.send(self._tick(0, final=True))
        await stage.strike()
        await asyncio.gather(*(self._go_home(life) for life in self._lives))
        return done

    def stop(self) -> None:
        self._stop.set()

    def wait_for(self, keys: dict[str, list[int]]) -> None:
        """What the users of all workers said last: until then the run is not over."""
        self._awaited = keys

    def _make_lives(self) -> None:
        spec, scenario = self._spec, self._scenario
        kinds = scenario.kinds
        users = self._population.size
        rooms, each = len(spec.rooms), spec.rooms_each
        self._kinds = plan.deal([k.weight for k in kinds], [k.seats for k in kinds], users, rooms, each)
        for number, kind in enumerate(self._kinds):
            if plan.worker_of(number, rooms, spec.processes, each) == self._number:
                home = spec.rooms[number * each % rooms]
                actions = scenario.tasks[kind][0]
                self._lives.append(Life(self._stage, number, home, kinds[kind], actions))

    async def _live(self, life: Life) -> None:
        """One user from first start to last stop. Cancelled when the run ends: then nobody leaves yet."""
        user = life.user
        for start_s, stop_s in self._population.stays[life.number]:
            await self._reached(start_s)
            await life.join(life.home)
            await self._hook(life, "on_start")
            meanwhile = self._stage.spawn(self._hook(life, "meanwhile"), f"{type(user).__name__}.meanwhile")
            acting = self._stage.spawn(self._loop(life), f"{type(user).__name__}.tasks")
            try:
                await self._reached(stop_s)
                if stop_s >= self._population.end_s:
                    await asyncio.Event().wait()
            finally:
                await _cancelled(meanwhile, acting)
                await self._hook(life, "on_stop")
            await life.leave()

    async def _loop(self, life: Life) -> None:
        """The closed model: act, wait, act."""
        actions, weights = self._scenario.tasks[self._kinds[life.number]]
        wait_time = type(life.user).wait_time
        if self._spec.rate is not None or not actions or wait_time is None:
            return
        pace_s = getattr(wait_time, "pace_s", None)
        due_us = self._stage.now_us() + int(life.random.random() * (pace_s or wait_time(life.user)) * 1e6)
        while True:
            await self._reached(due_us / 1e6)
            [action] = life.random.choices(actions, weights)
            intended_us = due_us if pace_s else self._stage.now_us()
            await life.act(action, intended_us)
            due_us = due_us + int(pace_s * 1e6) if pace_s else self._stage.now_us() + int(wait_time(life.user) * 1e6)

    async def _timetable(self) -> None:
        """The open model: whoever's time has come acts, whatever became of the last action."""
        stage, spec = self._stage, self._spec
        if spec.rate is None:
            return
        speaking = sum(bool(self._scenario.tasks[kind][0]) for kind in self._kinds)
        rate = spec.rate / max(speaking, 1)
        comings = []
        for life in self._lives:
            times = plan.actions(spec.seed, life.number, self._population.stays[life.number], rate)
            if life.actions and (first := next(times, None)) is not None:
                comings.append((first, life.number, life, times))
        heapify(comings)
        alarm = Alarm()
        try:
            for turn in count():
                if not comings:
                    return
                if turn % TURNS_MAX == 0:
                    await asyncio.sleep(0)
                due_s, number, life, times = comings[0]
                await alarm.until(stage.epoch_ns + int(due_s * 1e9))
                self._act(life, int(due_s * 1e6))
                following = next(times, None)
                if following is None:
                    heappop(comings)
                else:
                    heapreplace(comings, (following, number, life, times))
        finally:
            alarm.close()

    def _act(self, life: Life, due_us: int) -> None:
        stage = self._stage
        if life.away:
            stage.tally["away"] += 1
            return
        stage.tally["planned"] += 1
        stage.slips_us.append(max(1, stage.now_us() - due_us))
        life.due.append(due_us)
        if len(life.due) == 1:
            acting = stage.spawn(self._act_all(life), f"{type(life.user).__name__}.tasks")
            self._acting.add(acting)
            acting.add_done_callback(self._acting.discard)

    async def _act_all(self, life: Life) -> None:
        """A user does one thing at a time; what it is late for counts from when it was due."""
        actions, weights = self._scenario.tasks[self._kinds[life.number]]
        while life.due:
            [action] = life.random.choices(actions, weights)
            await life.act(action, life.due[0])
            life.due.popleft()
            # A scenario that never waits must not keep everyone else from their turn.
            await asyncio.sleep(0)

    async def _hook(self, life: Life, name: str) -> None:
        try:
            outcome = getattr(life.user, name)()
            if outcome is not None:
                await outcome
        except Exception as exc:
            self._stage.failed(f"{type(life.user).__name__}.{name}", exc)

    async def _reached(self, at_s: float) -> None:
        left_s = at_s - self._stage.now_us() / 1e6
        if left_s > 0:
            await asyncio.sleep(left_s)

    async def _until_the_end(self) -> None:
        with suppress(TimeoutError):
            left_s = self._population.end_s - self._stage.now_us() / 1e6
            await asyncio.wait_for(self._stop.wait(), max(left_s, 0))

    async def _overdue(self, timetable: asyncio.Task[None]) -> None:
        """What the plan wanted done before the end is still done, if late; but not for ever."""
        if not self._stop.is_set():
            begun = {timetable, *self._acting}
            while begun and self._stage.now_us() / 1e6 < self._population.end_s + self._spec.settle_s:
                _, begun = await asyncio.wait(begun, timeout=0.1)
                begun |= self._acting
        await _cancelled(timetable, *self._acting)
        self._stage.tally["not_begun"] += sum(len(life.due) for life in self._lives if not life.away)

    async def _settle(self) -> None:
        """Wait for what is on its way: until all is here and it is quiet, or nothing came for settle_s."""
        stage = self._stage
        for life in self._lives:
            life.finish_coming()
        self._channel.send(LastSent(stage.last_sent()))
        seen, since_us = -1, stage.now_us()
        while True:
            for life in self._lives:
                life.stay_to_the_end()
            delivered = sum(times.delivered for times in stage.times.values())
            if delivered != seen:
                seen, since_us = delivered, stage.now_us()
            quiet_s = (stage.now_us() - since_us) / 1e6
            complete = quiet_s >= QUIET_S and self._heard_everyone()
            if complete or quiet_s >= self._spec.settle_s:
                return
            await asyncio.sleep(0.05)

    def _heard_everyone(self) -> bool:
        """Each member has what its process heard, and the process what the users of all processes said."""
        if self._awaited is None or not all(life.is_complete() for life in self._lives):
            return False
        here = {name for life in self._lives if life.connected for name in life.seats}
        return all(self._stage.room(name).tape.find(key) >= 0 for name in here for key in self._awaited.get(name, ()))

    async def _go_home(self, life: Life) -> None:
        connection = life.hang_up()
        if connection is not None:
            await connection.close()

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            self._stage.flush()

    async def _report(self) -> None:
        second = 0
        while True:
            second = max(second, int(self._stage.now_us() / 1e6)) + 1
            await self._reached(second)
            self._channel.send(self._tick(second))

    def _tick(self, number: int, final: bool = False) -> Tick:
        stage, pulse = self._stage, self._pulse
        stage.flush()
        now_s = stage.now_us() / 1e6
        return Tick(
            number=number,
            second=now_s,
            present=stage.present,
            planned_present=self._population.present(now_s) if self._number == 0 else 0,
            delivered=sum(times.delivered for times in stage.times.values()),
            tally=Counter(stage.tally),
            latency={name: times.latency.take() for name, times in stage.times.items()},
            service={name: times.service.take() for name, times in stage.times.items()},
            connect=stage.connect.take(),
            slip=stage.slip.take(),
            lag=pulse.lag.take(),
            cpu_share=pulse.cpu_share(),
            suspects=sum(
                len(r.jumps) + len(r.strays) + r.foreign for room in stage.rooms.values() for r in room.records
            ),
            settling=self._settling,
            final=final,
        )

    def _done(self) -> Done:
        stage, pulse = self._stage, self._pulse
        stage.tally["unsent"] += sum(life.not_sent() for life in self._lives)
        stage.tally["never_in"] += sum(life.wants_in and not life.was_in for life in self._lives)
        kinds = Counter(type(life.user).__name__ for life in self._lives)
        return Done(
            rooms={name: _evidence(room) for name, room in stage.rooms.items()},
            tally=stage.tally,
            refusals=stage.refusals,
            closes=stage.closes,
            returns=stage.returns,
            errors=stage.errors,
            scenarios=dict(kinds),
            cpu_s=pulse.cpu_s,
            wall_s=pulse.wall_s,
        )


def _evidence(room: Room) -> RoomEvidence:
    tape = room.tape
    return RoomEvidence(
        keys=np.array(tape.keys, np.int64),
        sent_us=np.array(tape.sent_us, np.int64),
        counts=np.array(tape.ids, np.int64)[1::2],
        records=room.records,
        stints=room.stints,
    )


async def _cancelled(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def serve(sock: socket.socket) -> None:
    """The worker's side of the conversation in channel.py."""
    channel = await Channel.over(sock)
    prepare = await channel.receive()
    if not isinstance(prepare, Prepare):
        return
    try:
        worker = Worker(prepare.spec, prepare.worker, channel)
    except (BadSpec, plan.BadPlan) as exc:
        channel.send(Ready(str(exc)))
        await channel.flushed()
        return
    channel.send(Ready())
    go = await channel.receive()
    if not isinstance(go, Go):
        return
    running = asyncio.create_task(worker.run(go.epoch_ns))
    listening = asyncio.create_task(_listen(channel, worker))
    await asyncio.wait((running, listening), return_when=asyncio.FIRST_COMPLETED)
    if not running.done():
        # The coordinator died: nobody wants the rest.
        return
    channel.send(running.result())
    await channel.flushed()
    listening.cancel()
    channel.close()


async def _listen(channel: Channel, worker: Worker) -> None:
    """Until the coordinator is gone."""
    while (message := await channel.receive()) is not None:
        if isinstance(message, Stop):
            worker.stop()
        elif isinstance(message, Awaited):
            worker.wait_for(message.keys)


def main() -> None:
    # Ctrl-C goes to the whole terminal; the coordinator ends its workers in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # As the gateway does, for the same reason: with the defaults half of the time goes to the collector.
    gc.set_threshold(50_000, 20, 50)
    sock = socket.socket(fileno=int(sys.argv[1]))
    sock.setblocking(False)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(sock))


if __name__ == "__main__":
    main()
