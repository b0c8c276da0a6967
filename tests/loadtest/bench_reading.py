"""How much CPU a checked delivery costs the harness: `python -m tests.loadtest.bench_reading`. No test.

A child process writes ready-made frames to real sockets in rounds: so many frames per socket and write, and the
next round only when all of the last one has been read. So the number of frames per read is known, and the
figure is CPU time of the reading process: a busy machine does not change it much.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
import time

import uvloop

from loadtest import frames
from loadtest.connection import Connection
from loadtest.member import OWED_ALL, Member, Record
from loadtest.spec import read_endpoint
from loadtest.tape import Tape, Times
from loadtest.wires import PLAIN
from tests.loadtest.theatre import message_frame

CASES = (
    # rooms, members of each, frames per write, rounds
    (200, 5, 1, 100),
    (1, 500, 1, 100),
    (1, 500, 20, 50),
    (10, 100, 20, 50),
    (100, 1, 1, 300),
)


def write_rounds(control: socket.socket, rooms: int, members: int, batch: int, rounds: int) -> None:
    """The child: a WebSocket server of one connection per member, room after room."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=4_096)
    control.sendall(listener.getsockname()[1].to_bytes(4, "big"))
    sockets = []
    for _ in range(rooms * members):
        accepted, _ = listener.accept()
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = accepted.recv(4_096).decode()
        lines = dict(line.partition(": ")[::2] for line in request.split("\r\n"))
        key = next(value for name, value in lines.items() if name.lower() == "sec-websocket-key")
        answer = ("HTTP/1.1 101 OK", "Upgrade: websocket", "Connection: Upgrade")
        accept = f"Sec-WebSocket-Accept: {frames.accept_of(key)}"
        accepted.sendall("\r\n".join((*answer, accept, "", "")).encode())
        sockets.append(accepted)
    for number in range(rounds):
        control.recv(1)
        for n in range(rooms * members):
            if n % members == 0:
                chunk = b"".join(
                    message_frame(f"room{n // members}", 0, number * batch + i + 1, 1, "x" * 60) for i in range(batch)
                )
            sockets[n].sendall(chunk)
    control.recv(1)


async def read_rounds(
    control: socket.socket, rooms: int, members: int, batch: int, rounds: int
) -> tuple[float, list[Record], Times]:
    """CPU seconds of reading everything; and the evidence."""
    loop = asyncio.get_running_loop()
    endpoint = read_endpoint(f"ws://127.0.0.1:{int.from_bytes(control.recv(4), 'big')}", 2)
    times, tapes, records, readers = Times("bench"), [], [], []
    for room in range(rooms):
        tapes.append(Tape("run", f"room{room}", 1_000_000))
        for n in range(members):
            connection = Connection(PLAIN, lambda: time.monotonic_ns() // 1000)
            await connection.open(endpoint, "127.0.0.1", "/", None)
            records.append(Record(n, 0, owed_to=OWED_ALL))
            reader = Member(tapes[-1], PLAIN, records[-1], times, lambda heard: None, connection.on_control)
            connection.adopt(reader.feed, lambda code, reason: None)
            readers.append(connection)
    gc.freeze()
    cpu_s = time.process_time()
    for number in range(rounds):
        await loop.run_in_executor(None, control.send, b"x")
        # A poll: an event would be set on the road that is measured.
        while times.delivered < (number + 1) * batch * rooms * members:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        if number % 10 == 0:
            times.flush()
            for tape in tapes:
                tape.flush()
    return time.process_time() - cpu_s, records, times


def case(rooms: int, members: int, batch: int, rounds: int) -> None:
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        write_rounds(theirs, rooms, members, batch, rounds)
        os._exit(0)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        cpu_s, records, times = runner.run(read_rounds(ours, rooms, members, batch, rounds))
    ours.send(b"x")
    os.waitpid(child, 0)
    deliveries = rooms * members * batch * rounds
    assert times.delivered == deliveries
    assert all(record.end - record.first == batch * rounds and not record.strays for record in records)
    print(
        f"{rooms:>4} rooms x {members:>4} members, {batch:>3} frames a read:"
        f" {cpu_s / deliveries * 1e6:6.2f} us of CPU per delivery, {deliveries / cpu_s:>10,.0f} deliveries per core"
    )


if __name__ == "__main__":
    gc.set_threshold(50_000, 20, 50)
    print(f"Python {sys.version.split()[0]}, uvloop {uvloop.__version__}")
    for numbers in CASES:
        case(*numbers)
