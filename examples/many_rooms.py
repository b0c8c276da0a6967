"""`python examples/many_rooms.py ws://127.0.0.1:8000/ws/ lobby kitchen --watch attic` (needs aiohttp)

prints what is said in the lobby and the kitchen, the last ten messages first, and how far the attic has grown. Whatever
breaks, it comes back and misses nothing, or says what is gone. Written from docs/protocol.md alone.
"""

import argparse
import asyncio
import math
import random
import time
from typing import Any

import aiohttp

FOR_GOOD = {1000, 1002, 1003, 1007, 1009, 4003, 4403}


def step_s(tries: int, away_s: float) -> float:
    """The longest wait after so many tries in vain, so long after the connection was lost."""
    return min(0.5 * 2 ** min(tries, 6), 5 if away_s < 60 else 30)


class Rooms:
    """What outlives a connection: a cursor in each room."""

    def __init__(self, rooms: list[str], watched: list[str]) -> None:
        self.cursors: dict[str, str | None] = dict.fromkeys(rooms)
        self.watched = watched
        self.after_s = 0.0  # what the server asked us to wait

    def requests(self) -> list[dict[str, Any]]:
        """For a new connection, all in one burst."""
        joins = [{"type": "join", "room": r, "after": c, "history": 10} for r, c in self.cursors.items()]
        return [*joins, {"type": "watch", "rooms": self.watched}]

    def hear(self, frame: dict[str, Any]) -> None:
        """Types that it does not know are a newer server's."""
        match frame:
            case {"type": "message", "room": room, "id": id, "message": message}:
                self.cursors[room] = id
                print(f"{room}: {message}", flush=True)
            case {"type": "joined", "room": room, "last_id": last_id, "recovered": False}:
                if self.cursors[room] is not None or last_id == "0-0":
                    self.cursors[room] = last_id
            case {"type": "gap", "room": room, "after": after, "lost": lost}:
                self.cursors[room] = after
                print(f"{room}: {lost} messages are gone", flush=True)
            case {"type": "tops", "rooms": tops}:
                print(*(f"{room} is at {top}" for room, top in tops.items()), sep="\n", flush=True)
            case {"type": "reconnect", "after_s": after_s}:
                self.after_s = after_s
            case {"type": "error", "code": code, "text": text}:
                print(f"{frame.get('room')}: {code}: {text}", flush=True)


async def follow(url: str, rooms: Rooms) -> None:
    """Until it is no use to come: returns then, or raises aiohttp.WSServerHandshakeError."""
    tries, lost_at = 0, math.inf
    async with aiohttp.ClientSession() as http:
        while True:
            came_at = math.inf
            try:
                async with http.ws_connect(url, protocols=("hiroba.v1",), heartbeat=20) as ws:
                    came_at = time.monotonic()
                    for request in rooms.requests():
                        await ws.send_json(request)
                    async for frame in ws:
                        rooms.hear(frame.json())
                    if ws.close_code in FOR_GOOD:
                        return
            except (aiohttp.ClientConnectionError, aiohttp.WSServerHandshakeError) as exc:
                if isinstance(exc, aiohttp.WSServerHandshakeError) and exc.status < 429:
                    raise
            now = time.monotonic()
            if lost_at == math.inf or now - came_at > 10:  # the first loss, or that of a good connection
                tries, lost_at = 0, now
            await asyncio.sleep(rooms.after_s + random.uniform(0, step_s(tries, now - lost_at)))
            rooms.after_s, tries = 0.0, tries + 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("rooms", nargs="+")
    parser.add_argument("--watch", nargs="*", default=[])
    given = parser.parse_args()
    asyncio.run(follow(given.url, Rooms(given.rooms, given.watch)))
