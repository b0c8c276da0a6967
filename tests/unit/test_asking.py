"""How the site is asked: over connections that are kept, and that it may give up at any time."""

import asyncio

import pytest

from gateway.site.asking import Asker, Unanswered
from tests.support.ports import free_port


class Fickle:
    """Answers the first request of each connection, and gives that up when another one comes."""

    def __init__(self, answers: int = 1) -> None:
        self.answers = answers
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        for _ in range(self.answers):
            head = await reader.readuntil(b"\r\n\r\n")
            if b"Content-Length: 2" in head:
                await reader.readexactly(2)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        await reader.read(1)
        writer.close()


@pytest.mark.parametrize(("answers", "connections"), [(1, 2), (0, 2)])
async def test_a_connection_that_is_given_up_as_we_use_it_costs_no_answer(answers: int, connections: int) -> None:
    """Servers close idle connections after a few seconds; no message is refused for that. Asked twice at most."""
    site, port, asker = Fickle(answers), free_port(), Asker(1)
    server = await asyncio.start_server(site.serve, "127.0.0.1", port)
    try:
        url = f"http://127.0.0.1:{port}/"
        if answers:
            for _ in range(2):
                assert await asker.post(url, b"{}", 5.0) == (200, b"{}")
        else:
            with pytest.raises(Unanswered) as why:
                await asker.post(url, b"{}", 5.0)
            assert why.value.away
        assert site.connections == connections
    finally:
        await asker.close()
        server.close()
