"""The coordinator's side: starts the workers, starts the run, gathers what they say. Judges nothing."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence

from loadtest.channel import Awaited, Channel, Done, Go, LastSent, Prepare, Ready, RoomEvidence, Stop, Tick
from loadtest.returns import Returns, together
from loadtest.spec import BadSpec, Spec
from loadtest.timeline import Timeline

# Workers get so long to import and to load the scenario.
PREPARE_S = 60.0
# From "go" to second 0: enough for the message to reach every worker.
LEAD_S = 0.2


class Crew:
    """`run` once. What came of it is in the attributes afterwards, also when workers died."""

    def __init__(self, spec: Spec, timeline: Timeline, watchers: Sequence[Callable[[Timeline], None]]) -> None:
        self.timeline = timeline
        self.rooms: dict[str, list[RoomEvidence]] = {}
        self.done: list[Done] = []
        self.dead: list[str] = []
        self.interrupted = False
        self.epoch_ns = 0
        self._spec = spec
        self._watchers = watchers
        self._channels: dict[int, Channel] = {}
        self._last_sent: dict[int, LastSent] = {}
        self._processes: dict[int, asyncio.subprocess.Process] = {}

    async def run(self) -> None:
        """Raises BadSpec when a worker can't prepare."""
        try:
            await asyncio.gather(*(self._start(n) for n in range(self._spec.processes)))
            async with asyncio.timeout(PREPARE_S):
                await asyncio.gather(*(self._prepared(n) for n in self._channels))
            self.epoch_ns = time.monotonic_ns() + int(LEAD_S * 1e9)
            for channel in self._channels.values():
                channel.send(Go(self.epoch_ns))
            loop = asyncio.get_running_loop()
            for signum in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(signum, self.stop)
            await asyncio.gather(*(self._listen(n) for n in tuple(self._channels)))
        finally:
            await self._dismiss()

    def stop(self) -> None:
        """End in order; a second time at once."""
        if self.interrupted:
            for process in self._processes.values():
                if process.returncode is None:
                    process.kill()
        self.interrupted = True
        for channel in self._channels.values():
            channel.send(Stop())

    async def _start(self, number: int) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            self._processes[number] = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "loadtest.worker", str(theirs.fileno()), pass_fds=[theirs.fileno()]
            )
        self._channels[number] = await Channel.over(ours)

    async def _prepared(self, number: int) -> None:
        self._channels[number].send(Prepare(self._spec, number))
        ready = await self._channels[number].receive()
        if not isinstance(ready, Ready):
            raise BadSpec(f"worker {number} died before the run began; what it wrote is above")
        if ready.error:
            raise BadSpec(ready.error)

    async def _listen(self, number: int) -> None:
        channel = self._channels[number]
        while True:
            message = await channel.receive()
            if isinstance(message, Tick):
                if self.timeline.add(number, message):
                    for watch in self._watchers:
                        watch(self.timeline)
            elif isinstance(message, LastSent):
                self._last_sent[number] = message
                self._tell_what_to_await()
            elif isinstance(message, Done):
                self.done.append(message)
                for name, evidence in message.rooms.items():
                    self.rooms.setdefault(name, []).append(evidence)
                message.rooms = {}
                return
            else:
                code = await self._processes[number].wait()
                how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
                self.dead.append(f"worker {number} of {self._spec.processes} died ({how})")
                self.timeline.gone(number)
                del self._channels[number]
                self._tell_what_to_await()
                return

    def _tell_what_to_await(self) -> None:
        """When every living worker has said what its users said last."""
        if self._channels.keys() - self._last_sent.keys():
            return
        keys: dict[str, list[int]] = {}
        for number in self._channels:
            for room, last in self._last_sent[number].keys.items():
                keys.setdefault(room, []).extend(last)
        for channel in self._channels.values():
            channel.send(Awaited(keys))

    async def _dismiss(self) -> None:
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(signum)
        for channel in self._channels.values():
            channel.close()
        for process in self._processes.values():
            try:
                async with asyncio.timeout(5):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()

    # What the workers counted, together

    def tally(self) -> Counter[str]:
        return sum((d.tally for d in self.done), Counter())

    def refusals(self) -> Counter[str]:
        return sum((d.refusals for d in self.done), Counter())

    def closes(self) -> Counter[str]:
        return sum((d.closes for d in self.done), Counter())

    def returns(self) -> Returns:
        return together(d.returns for d in self.done)

    def errors(self) -> Counter[str]:
        return sum((d.errors for d in self.done), Counter())

    def users_by_scenario(self) -> Counter[str]:
        return sum((Counter(d.scenarios) for d in self.done), Counter())
