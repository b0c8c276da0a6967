"""A TCP proxy that misbehaves on demand: delays, cuts, freezes, and delivers late what it held back."""

import asyncio
import contextlib
import socket
import struct
from collections import deque
from typing import Literal

from redis.asyncio import Redis

from tests.support.until import until

Way = Literal["up", "down"]  # up: client to server


class Stream:
    """One direction of one connection. Bytes are taken at once and passed on when the gate is open."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._chunks: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._ended = False
        self._gate = asyncio.Event()
        self._gate.set()
        self.delay_s = 0.0
        # Bytes passed on so far.
        self.passed_bytes = 0
        # Freeze by itself before the first chunk that contains all of these; then forgotten.
        self.hold_at: tuple[bytes, ...] = ()

    @property
    def held_bytes(self) -> int:
        return sum(map(len, self._chunks))

    @property
    def held(self) -> bytes:
        """What was taken and not passed on, to be delivered by another way."""
        return b"".join(self._chunks)

    @property
    def frozen(self) -> bool:
        return not self._gate.is_set()

    def freeze(self) -> None:
        """From now on bytes are taken from the sender and kept."""
        self._gate.clear()

    def thaw(self) -> None:
        """Passes on everything held, in order, and then what follows."""
        self._gate.set()

    async def take(self) -> None:
        """Reads on even while frozen: a killed sender's bytes must already be here, not in its socket."""
        with contextlib.suppress(ConnectionError):
            while data := await self._reader.read(65_536):
                if self.hold_at and all(needle in data for needle in self.hold_at):
                    self.hold_at = ()
                    self.freeze()
                self._chunks.append(data)
                self._news.set()
        self._ended = True
        self._news.set()

    async def give(self) -> None:
        """Passes on until the sender has ended and everything held is delivered, then closes the receiver."""
        with contextlib.suppress(ConnectionError):
            while (self._chunks or not self._ended) and not self._writer.is_closing():
                await self._news.wait()
                self._news.clear()
                while self._chunks or (self._ended and self.frozen):
                    await self._gate.wait()
                    if not self._chunks or self._writer.is_closing():  # cut meanwhile
                        break
                    if self.delay_s:
                        await asyncio.sleep(self.delay_s)
                    data = self._chunks.popleft()
                    self._writer.write(data)
                    self.passed_bytes += len(data)
                    await self._writer.drain()
        self._writer.close()


class Link:
    """One connection through the proxy."""

    def __init__(
        self,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._client, self._server = client[1], server[1]
        self.up = Stream(client[0], server[1])
        self.down = Stream(server[0], client[1])

    @property
    def server_side(self) -> str:
        """Our own end of the connection to the server, as CLIENT LIST has it (`addr`)."""
        host, port = self._server.get_extra_info("sockname")[:2]
        return f"{host}:{port}"

    @property
    def open(self) -> bool:
        return not (self._client.is_closing() or self._server.is_closing())

    def cut(self) -> None:
        """Both sides get a reset; what was held is lost."""
        for writer in (self._client, self._server):
            reset(writer)

    def cut_client(self) -> None:
        """Resets only the client's side: the server still believes in it, held bytes can arrive late."""
        reset(self._client)

    async def run(self) -> None:
        streams = (self.up, self.down)
        async with asyncio.TaskGroup() as tasks:
            for stream in streams:
                tasks.create_task(stream.take())
                tasks.create_task(stream.give())


class Proxy:
    """Listens on a free port and forwards to `host:port`: `async with Proxy(broker.port) as proxy`."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._target = (host, port)
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._frozen: set[Way] = set()
        self._hold: tuple[Way, tuple[bytes, ...]] | None = None
        self.links: list[Link] = []
        self.delay_s = 0.0
        # New connections are reset at once.
        self.refusing = False
        self.port = 0

    async def __aenter__(self) -> "Proxy":
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._listener is not None
        self._listener.close()
        for link in self.links:  # half open ones too
            link.cut()
        self.thaw()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def open_links(self) -> list[Link]:
        return [link for link in self.links if link.open]

    def cut(self) -> None:
        """Resets every connection; new ones pass."""
        for link in self.open_links:
            link.cut()

    def freeze(self, *ways: Way) -> None:
        """Holds the bytes of all connections, present and new, in these directions (none named: both)."""
        self._frozen = set(ways or ("up", "down"))
        for link in self.links:
            self._set_up(link)

    def thaw(self) -> None:
        """Delivers everything held, on dead clients' connections too, and passes on from now."""
        self._frozen.clear()
        for link in self.links:
            link.up.thaw()
            link.down.thaw()

    def hold_at(self, *needles: bytes, way: Way = "up") -> None:
        """Keeps the first chunk that contains all `needles`, and freezes that direction of its connection."""
        self._hold = (way, needles)
        for link in self.open_links:
            self._set_up(link)

    async def held(self) -> Link:
        """Waits for the connection that `hold_at` caught. Its `cut_client()` and later `up.thaw()` deliver a
        request of a connection that its client holds for dead."""
        assert self._hold is not None, "nothing is to be held"
        way, needles = self._hold
        caught = await until(
            lambda: [link for link in self.links if getattr(link, way).frozen], f"{needles!r} going {way}"
        )
        self._hold = None
        for link in self.links:
            link.up.hold_at = link.down.hold_at = ()
        return caught[0]

    def _set_up(self, link: Link) -> None:
        link.up.delay_s = link.down.delay_s = self.delay_s
        for way in self._frozen:
            getattr(link, way).freeze()
        if self._hold:
            way, needles = self._hold
            getattr(link, way).hold_at = needles

    def lead_to(self, port: int) -> None:
        """New connections go to another server on this machine, as a name or a balancer leads elsewhere."""
        self._target = ("127.0.0.1", port)

    async def link_named(self, end: str, broker: Redis) -> Link:
        """Waits for the open connection whose name (HELLO SETNAME) ends so: a node's lane, by `broker`, the server's
        client of a test."""

        async def found() -> Link | None:
            addresses = {one["addr"] for one in await broker.client_list() if one["name"].endswith(end)}
            links = [link for link in self.open_links if link.server_side in addresses]
            return links[0] if len(links) == 1 else None

        return await until(found, f"one connection named …{end}")

    def delay(self, delay_s: float) -> None:
        """Each chunk waits so long, both ways, on present and new connections."""
        self.delay_s = delay_s
        for link in self.links:
            self._set_up(link)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self.refusing:
            reset(writer)
            return
        try:
            server = await asyncio.open_connection(*self._target)
        except OSError:
            reset(writer)
            return
        link = Link((reader, writer), server)
        self._set_up(link)
        self.links.append(link)
        await link.run()


def reset(writer: asyncio.StreamWriter) -> None:
    """RST instead of FIN, as when a machine or a route is gone."""
    sock = writer.get_extra_info("socket")
    if sock is not None and not writer.is_closing():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
