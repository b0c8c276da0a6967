"""A room that compresses (RFC 7692), for one test of the driver. It knows no more of RFC 6455 than that needs."""

import asyncio
import contextlib
import os
import zlib
from collections.abc import AsyncIterator

from bench.servers import Server

_HEAD = (
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"  # of the key that the driver always sends
    "Sec-WebSocket-Extensions: permessage-deflate{}\r\n\r\n"
)


class DeflatingRoom:
    """One room for all. With `takeover` each socket's compressor remembers, so that each gets other bytes."""

    def __init__(self, takeover: bool) -> None:
        self.takeover = takeover
        self.members: dict[asyncio.StreamWriter, zlib._Compress] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection's whole life."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            self.members[writer] = _compressor()
            writer.write(_HEAD.format("" if self.takeover else "; server_no_context_takeover").encode())
            while text := await _text(reader):
                self._say(text)
        self.members.pop(writer, None)
        writer.close()

    def _say(self, text: bytes) -> None:
        for writer, compressor in self.members.items():
            one = compressor if self.takeover else _compressor()
            packed = (one.compress(text) + one.flush(zlib.Z_SYNC_FLUSH))[:-4]
            writer.write(b"\xc1\x7e" + len(packed).to_bytes(2) + packed)


def _compressor() -> "zlib._Compress":
    return zlib.compressobj(wbits=-15)


async def _text(reader: asyncio.StreamReader) -> bytes:
    """The next message, of 126 bytes to 64 KiB; empty at a close frame."""
    opcode, _ = await reader.readexactly(2)
    if opcode & 15 != 1:
        return b""
    length = int.from_bytes(await reader.readexactly(2))
    key, payload = await reader.readexactly(4), await reader.readexactly(length)
    return bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))


@contextlib.asynccontextmanager
async def deflating_room(takeover: bool) -> AsyncIterator[Server]:
    """The room on a free port of this process."""
    server = await asyncio.start_server(DeflatingRoom(takeover).serve, "127.0.0.1", 0)
    async with server:
        yield Server(server.sockets[0].getsockname()[1], {"node": os.getpid()})
