"""What one run is asked to do, as each process knows it; durations and addresses as people write them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

DEFAULT_PATH = "/ws/chat/{room}/"
# v1: in no room yet.
MANY_ROOMS_PATH = "/ws/"

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class BadSpec(Exception):
    """An option that makes no sense; the text says which and why."""


@dataclass(frozen=True)
class Endpoint:
    """One node or load balancer. `path` is a template with `{room}`, query included."""

    url: str  # as it was given, with the path filled in
    host: str
    port: int
    tls: bool
    path: str

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    def path_of(self, room: str, after: str | None = None) -> str:
        path = self.path.replace("{room}", quote(room, safe=""))
        if after is None:
            return path
        return f"{path}{'&' if '?' in path else '?'}after={after}"


@dataclass(frozen=True)
class Spec:
    """Everything a worker needs; picklable. Times in seconds."""

    run: str  # short random name: messages of another run are foreign
    endpoints: tuple[Endpoint, ...]
    wire: str
    users: int
    rooms: tuple[str, ...]
    rooms_per_connection: int | None  # v1: joined by frames; None: one, by its address
    spawn_rate: float
    rate: float | None  # messages per second of all users together; None: the closed model
    duration_s: float | None
    processes: int
    seed: int
    sources: tuple[str, ...]  # names of built-in scenarios or paths of files
    classes: tuple[str, ...]  # only these user classes; empty: all
    tags: tuple[str, ...]
    exclude_tags: tuple[str, ...]
    set: tuple[tuple[str, str], ...]  # class attributes to change, as text
    shape: str
    message_bytes: int
    settle_s: float  # patience for what is still on its way when the run ends
    insecure: bool  # accept any TLS certificate
    token_key: Path | None = None  # what each user's token is signed with; None: nobody says who they are
    token_claims: tuple[tuple[str, str], ...] = ()  # beside those of each user

    @property
    def rooms_each(self) -> int:
        """How many rooms a user is in."""
        return self.rooms_per_connection or 1

    def rooms_from(self, room: str) -> list[str]:
        """Those that a user is in who enters this one: it, and the ones behind it, counted round."""
        if self.rooms_each == 1 or room not in self.rooms:
            return [room]
        first = self.rooms.index(room)
        return [self.rooms[(first + at) % len(self.rooms)] for at in range(self.rooms_each)]

    def public(self) -> dict[str, Any]:
        """The run's options for the report: without what a URL may hide (user:password)."""
        return {
            "run": self.run,
            "urls": [e.url for e in self.endpoints],
            "wire": self.wire,
            "users": self.users,
            "rooms": len(self.rooms),
            "rooms_per_connection": self.rooms_per_connection,
            "spawn_rate": self.spawn_rate,
            "rate": self.rate,
            "duration_s": self.duration_s,
            "processes": self.processes,
            "seed": self.seed,
            "scenario": list(self.sources),
            "shape": self.shape,
            "message_bytes": self.message_bytes,
            "settle_s": self.settle_s,
            "tokens": self.token_key is not None,
        }


def read_duration(text: str) -> float:
    """Seconds of `90`, `90s`, `10m`, `1h30m`, `500ms`."""
    parts = list(_DURATION.finditer(text))
    if not parts or "".join(p.group() for p in parts) != text or any(not p[2] for p in parts[:-1]):
        raise BadSpec(f"{text!r} is no duration: write 90, 90s, 10m or 1h30m")
    seconds = sum(float(p[1]) * _SECONDS[p[2] or "s"] for p in parts)
    if seconds <= 0:
        raise BadSpec(f"a duration of {text!r} is no time at all")
    return seconds


def read_endpoint(url: str, rooms: int, many: bool = False) -> Endpoint:
    """An address as people give it: `ws://host:8000`, `host:8000`, or a template with `{room}`.

    `many`: of connections that join their rooms, so without one.
    """
    parts = urlsplit(url if "://" in url else f"ws://{url}")
    if parts.scheme not in ("ws", "wss", "http", "https"):
        raise BadSpec(f"{url!r}: the address of a chat server begins with ws:// or wss://")
    try:
        port, host = parts.port, parts.hostname
        (host or "").encode("idna")
    except ValueError as exc:
        raise BadSpec(f"{url!r}: {exc}") from exc
    if not host:
        raise BadSpec(f"{url!r} names no host")
    tls = parts.scheme in ("wss", "https")
    default = MANY_ROOMS_PATH if many else DEFAULT_PATH
    path = parts.path if parts.path not in ("", "/") else default
    if parts.query:
        path += f"?{parts.query}"
    if many and "{room}" in path:
        raise BadSpec(f"{url!r}: with --rooms-per-connection it is the address without a room, as {MANY_ROOMS_PATH}")
    if "{room}" not in path and rooms > 1 and not many:
        raise BadSpec(f"{url!r} is one address for {rooms} rooms: write {{room}} where the room's name belongs")
    endpoint = Endpoint("", host, port or (443 if tls else 80), tls, path)
    return Endpoint(f"{'wss' if tls else 'ws'}://{endpoint.authority}{path}", host, endpoint.port, tls, path)
