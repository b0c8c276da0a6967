"""The built-in scenarios: people as chat servers meet them. Each is what a user's own file could be."""

from __future__ import annotations

import asyncio

from loadtest.users import User, between, task


class Chatter(User):
    """Rooms of ten; everyone says something now and then."""

    wait_time = between(5, 15)

    @task
    async def speak(self) -> None:
        await self.say()


class Presenter(User):
    """One per room; speaks to all the others."""

    seats = 1
    wait_time = between(1, 3)
    room_size = None

    @task
    async def speak(self) -> None:
        await self.say()


class Listener(User):
    """Listens to the presenter."""

    room_size = None


class Lurker(User):
    """Connected and silent: what an idle connection costs."""


class Churn(Chatter):
    """Joins, stays a while, leaves, comes back after a while."""

    stay_s = 10.0
    away_s = 2.0

    async def meanwhile(self) -> None:
        while True:
            await asyncio.sleep(self.random.uniform(0.5, 1.5) * self.stay_s)
            await self.leave()
            await asyncio.sleep(self.random.uniform(0.5, 1.5) * self.away_s)
            await self.join()


class Stampede(Chatter):
    """Everyone's connection breaks at the same moment and everyone comes back at once."""

    every_s = 10.0

    async def meanwhile(self) -> None:
        while True:
            await asyncio.sleep(self.every_s - self.run_time_s % self.every_s)
            self.cut()
            await self.join()


class Jitter(Chatter):
    """Bad network: the socket breaks every few seconds and is back a little later, resuming on v1."""

    every_s = 5.0
    away_s = 0.5

    async def meanwhile(self) -> None:
        while True:
            await asyncio.sleep(self.random.uniform(0.5, 1.5) * self.every_s)
            self.cut()
            await asyncio.sleep(self.away_s)
            await self.join()


class SlowReader(User):
    """One per room: reads a trickle, as a phone on a bad line. The others must not notice."""

    seats = 1
    read_bytes_s = 2_000.0


BUILT_IN: dict[str, list[type[User]]] = {
    "chatter": [Chatter],
    "presenter": [Presenter, Listener],
    "lurker": [Lurker],
    "churn": [Churn],
    "stampede": [Stampede],
    "jitter": [Jitter],
    "slow-reader": [SlowReader, Chatter],
}
