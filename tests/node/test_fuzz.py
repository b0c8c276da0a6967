"""Strangers who mean it: handshakes and frames as no client writes them, for a minute, at a node that serves others.

Hypothesis makes them up and, when one does harm, looks for the shortest that does. Meanwhile somebody chats in another
room, by a thread of its own.
"""

import asyncio
import json
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
import uvloop
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.support.broker import Broker
from tests.support.client import Crowd
from tests.support.node import Node
from tests.support.raw import Raw, connect
from tests.support.until import until

FUZZ_S = 60
EXAMPLES = 250
SETTINGS = {
    "connections_max": 60, "rooms_max": 40, "tail_bytes_max": 2_000_000, "publish_queue_bytes_max": 2_000_000,
    "linger_s": 0.1, "handshake_timeout_s": 1, "close_s": 0.3, "stall_s": 2, "flood_s": 1,
}  # fmt: skip
# How long a stranger waits for an answer: broken requests get one, unfinished ones get none.
ANSWER_S = 0.1
SILENT_S = 0.02
# A message of the bystander's takes 2 ms. More than these is too long if it is also so many times what one takes on a
# node that nobody attacks: on a machine full of other tests a stall is no news.
LATENCY_P50_S = 0.25
LATENCY_P99_S = 2.0
LATENCY_TIMES = 3
EVERY_S = 0.06
LINE_BYTES_MAX = 4_096


class Attack(NamedTuple):
    """One connection: what is sent before the answer, what behind it, in which pieces, and how it ends."""

    request: bytes
    frames: bytes
    cuts: list[float]
    end: str


# ---- what is sent ----


class Edit(NamedTuple):
    """One mutation of bytes, at a place given as a share of them."""

    kind: str
    at: float
    data: bytes


def edited(data: bytes, edits: list[Edit]) -> bytes:
    for kind, share, new in edits:
        at = int(share * len(data))
        if kind == "insert":
            data = data[:at] + new + data[at:]
        elif kind == "replace":
            data = data[:at] + new + data[at + len(new) :]
        elif kind == "drop":
            data = data[:at] + data[at + len(new) :]
        elif kind == "repeat":
            data = data[:at] + data[at : at + 40] * 3 + data[at + 40 :]
        else:
            data = data[:at]
    return data


kinds = st.sampled_from(["insert", "replace", "drop", "repeat", "cut"])
edits = st.lists(st.builds(Edit, kinds, st.floats(0, 1), st.binary(max_size=8)), max_size=2)

GOOD = (
    b"Host: localhost",
    b"Upgrade: websocket",
    b"Connection: Upgrade",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    b"Sec-WebSocket-Version: 13",
)
ODD = (
    b"Sec-WebSocket-Protocol: hiroba.v1",
    b"Sec-WebSocket-Protocol: ,hiroba.v9,,hiroba.v1\t",
    b"Sec-WebSocket-Extensions: permessage-deflate",
    b'Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits="99',
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x; y=\x00",
    b"Sec-WebSocket-Key: short",
    b"Sec-WebSocket-Version: 8, 13",
    b"Origin: http://[",
    b"Origin: null",
    b"Origin: http://\xff\xfe:99999",
    b"Origin: http://localhost",
    b"Host: [::1",
    b"Host: a, b",
    b'X-Forwarded-For: 1.2.3.4, ::ffff:1.2.3.4:5, "',
    b'Forwarded: for="[::1];by=;for',
    b"Content-Length: 5",
    b"Content-Length: -1",
    b"Content-Length: 99999999999999999999",
    b"Transfer-Encoding: chunked",
    b"Expect: 100-continue",
    b"Connection: close",
    b"Upgrade: h2c, websocket",
    b"Cookie: " + b"c" * 9_000,
    b"N" * 9_000 + b": n",
    b"Cookie: " + b"c" * 40_000,
    b": empty",
    b"no colon",
    b" folded: x",
    b"X: \x00\x01\r\r\n",
)
PATHS = (
    "/ws/chat/r{}/", "/ws/chat/r{}/?history=50", "/ws/chat/r{}/?after=0-0", "/ws/chat/r{}/?after=9999999999999-1",
    "/ws/chat/r{}/?after=x&after=1-1&history=-1", "/ws/chat/r{}/?history=%39%39", "/ws/chat/%E0%A4%A/", "/ws/chat/../",
    "/ws/chat/r%00{}/", "/ws/chat/\udcff{}/", "/ws/", "/chat/r{}/", "/static/../../etc/passwd", "/healthz", "*",
    "http://localhost/ws/chat/r{}/", "//", "/ws/chat/" + "x" * 9_000,
)  # fmt: skip
METHODS = (b"GET", b"GET", b"GET", b"GET", b"HEAD", b"POST", b"CONNECT", b"OPTIONS", b"PRI", b"\x16\x03\x01", b"")
VERSIONS = (b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9", b"")


def request(method: bytes, path: str, room: int, version: bytes, without: set[int], odd: list[bytes]) -> bytes:
    target = path.format(room).encode(errors="surrogateescape")
    lines = [line for at, line in enumerate(GOOD) if at not in without]
    return b"\r\n".join([b" ".join((method, target, version)), *lines, *odd, b"", b""])


good_requests = st.builds(
    request, st.just(b"GET"), st.sampled_from(PATHS[:3]), st.integers(0, 9), st.just(b"HTTP/1.1"), st.just(set()),
    st.lists(st.sampled_from(ODD[:3]), max_size=2),
)  # fmt: skip
odd_requests = st.builds(
    request, st.sampled_from(METHODS), st.sampled_from(PATHS), st.integers(0, 99), st.sampled_from(VERSIONS),
    st.sets(st.integers(0, 4), max_size=1), st.lists(st.sampled_from(ODD), max_size=3),
)  # fmt: skip
requests = st.one_of(
    good_requests,
    good_requests,
    st.builds(edited, good_requests, edits),
    odd_requests,
    st.builds(edited, odd_requests, edits),
)


def deflated(payload: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (packer.compress(payload) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


PAYLOADS = (
    # Words of both wires.
    b'{"message":1}', b'{"type":"message","message":{"a":[]},"ref":1}', b'{"type":"ping","ref":"r"}', b"", b"{}",
    # JSON that is none, or hard.
    b'{"message":"\\ud800"}', b'{"message":1e999}', b'{"type":"message","message":1,"ref":' + b"9" * 400 + b"}",
    b'{"message":' + b"[" * 3_000 + b"]" * 3_000 + b"}", b"[" * 60_000,
    # As long as may be, and longer; no UTF-8.
    b'{"message":"' + b"x" * 65_000 + b'"}', b"x" * 70_000, b"\xff\xfe", b"\xed\xa0\x80",
    # What a close frame may hold, or not.
    b"\x03\xe8bye", b"\x03\xed", b"\x0f\xa0" + b"\xff" * 50, b"\x03",
    # Compressed: well, to a bomb, and not at all.
    deflated(b'{"message":1}'), deflated(b'{"message":"' + b"y" * 60_000 + b'"}'), deflated(b"\0" * 5_000_000),
    deflated(b'{"type":"message","message":2,"ref":3}')[:-3], b"\xaa" * 100, b"\x01\0\0\xff\xff" * 500, b"\0" * 40,
)  # fmt: skip
# Beside the true one.
LENGTHS = (0, 1, 125, 126, 65_535, 65_537, 2**31, 2**63 - 1, 2**64 - 1)


def frame(first: int, mask: bytes | None, payload: bytes, length: int | None) -> bytes:
    """§5.2, with any first byte, masked or not, of a length that may be a lie."""
    size = len(payload) if length is None else length
    bit = 0 if mask is None else 0x80
    if size < 126:
        head = bytes((first, bit | size))
    elif size < 65_536:
        head = bytes((first, bit | 126)) + size.to_bytes(2)
    else:
        head = bytes((first, bit | 127)) + size.to_bytes(8)
    if mask is None:
        return head + payload
    key = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return head + mask + (int.from_bytes(payload) ^ int.from_bytes(key)).to_bytes(len(payload))


good_frames = st.builds(
    frame, st.sampled_from([0x81, 0x81, 0x89]), st.just(bytes(4)), st.sampled_from(PAYLOADS[:3]), st.none()
)  # fmt: skip
usual_firsts = st.sampled_from([0x81, 0x81, 0xC1, 0xC1, 0x01, 0x41, 0x00, 0x80, 0x82, 0x88, 0x89, 0x8A])
odd_frames = st.builds(
    frame,
    st.one_of(usual_firsts, st.integers(0, 255)),
    st.one_of(st.binary(min_size=4, max_size=4), st.just(bytes(4)), st.none()),
    st.one_of(st.sampled_from(PAYLOADS), st.binary(max_size=130)),
    st.one_of(st.none(), st.none(), st.none(), st.sampled_from(LENGTHS)),
)  # fmt: skip
attacks = st.builds(
    Attack,
    requests,
    st.builds(edited, st.lists(st.one_of(good_frames, odd_frames), max_size=8).map(b"".join), edits),
    st.lists(st.floats(0, 1), max_size=3),
    st.sampled_from(["close", "reset", "eof", "stay", "at once"]),
)


# ---- who sends it ----


def pieces(data: bytes, cuts: list[float]) -> Iterator[bytes]:
    at = 0
    for cut in sorted(int(share * len(data)) for share in cuts):
        yield data[at:cut]
        at = cut
    yield data[at:]


async def attack(node: Node, plan: Attack) -> None:
    raw = await connect(node)
    try:
        await send(raw, plan)
        if raw.head:
            assert raw.status < 500 or raw.status in (501, 503, 505), raw.head
            if raw.status == 101:
                for payload in raw.payloads():
                    json.loads(payload)
    finally:
        if plan.end == "reset":
            raw.reset()
        elif plan.end == "eof" and not raw.transport.is_closing():
            raw.transport.write_eof()
            await asyncio.sleep(SILENT_S)
        raw.transport.abort()
        await raw.over


async def send(raw: Raw, plan: Attack) -> None:
    await write(raw, plan.request + plan.frames if plan.end == "at once" else plan.request, plan.cuts)
    with suppress(AssertionError):  # what is no request, or only begun, gets no answer
        await until(lambda: raw.head or raw.over.done(), "an answer", ANSWER_S)
    if raw.head and raw.status == 101 and plan.end != "at once":
        await write(raw, plan.frames, plan.cuts)
    await asyncio.sleep(SILENT_S)


async def write(raw: Raw, data: bytes, cuts: list[float]) -> None:
    for piece in pieces(data, cuts):
        if raw.transport.is_closing():
            return
        raw.write(piece)
        await asyncio.sleep(0)


# ---- what it must not do ----


class Bystander:
    """Two who chat in a room of their own, by a thread and a loop of their own, until `done`."""

    def __init__(self, node: Node, room: str) -> None:
        self.done = threading.Event()
        self.said = 0
        self.heard: list[object] = []
        self.latencies_s: list[float] = []
        self._node = node
        self._room = room

    def latency_s(self, share: float) -> float:
        return sorted(self.latencies_s)[int(len(self.latencies_s) * share)]

    def chat(self) -> None:
        """Raises what went wrong."""
        uvloop.run(self._chat())

    async def _chat(self) -> None:
        async with Crowd() as crowd:
            ann, bob = await crowd.join(self._node, self._room), await crowd.join(self._node, self._room, "plain")
            began = time.monotonic()
            while not self.done.is_set():
                intended = began + self.said * EVERY_S
                await asyncio.sleep(intended - time.monotonic())
                self.said += 1
                await ann.say(self.said)
                await bob.until(lambda: bob.messages[-1:] == [self.said], "the word", 30)
                self.latencies_s.append(time.monotonic() - intended)
            self.heard = [*bob.messages]
            assert ann.messages == self.heard


class Watch:
    """The node's log and figures, looked at again and again."""

    def __init__(self, node: Node, runner: asyncio.Runner) -> None:
        self._node = node
        self._runner = runner
        self._log = node.process.log.open("rb")
        self._log.seek(0, 2)
        self.resident = self.figures()["hiroba_process_resident_bytes"]

    def close(self) -> None:
        self._log.close()

    def figures(self) -> dict[str, float]:
        return self._runner.run(self._node.metrics())

    def look(self) -> None:
        """No traceback, no bug of ours, no line that is not whole."""
        for line in self._log.readlines():
            assert len(line) <= LINE_BYTES_MAX, line
            said = json.loads(line)
            assert said["level"] in ("debug", "info"), line
        assert self._node.process.running

    def judge(self) -> None:
        """No bound was passed."""
        figures = self.figures()
        assert figures["hiroba_connections"] <= SETTINGS["connections_max"]
        assert figures["hiroba_rooms"] <= SETTINGS["rooms_max"]
        assert figures["hiroba_tails_bytes"] <= SETTINGS["tail_bytes_max"]
        assert figures['hiroba_closes_total{reason="error"}'] == 0
        assert figures["hiroba_process_resident_bytes"] - self.resident < 60_000_000


async def alone(node: Node) -> None:
    """Nobody but the bystanders is left."""

    async def quiet() -> bool:
        figures = await node.metrics()
        return figures["hiroba_connections"] == 2 and figures["hiroba_rooms"] == 1

    await until(quiet, "everybody is gone", every_s=0.1)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore:Generating overly large repr")
def test_whatever_strangers_send_costs_them_alone(
    house: tuple[Broker, Node], shared_node: Node, tmp_path: Path
) -> None:
    """For a minute: no traceback, no bound passed, and in another room each word in order and in time."""
    node, control = shared_node, Node(house[0].url, tmp_path, "control")
    asyncio.run(control.start())
    bystander, elsewhere = bystanders = Bystander(node, "quiet"), Bystander(control, "elsewhere")
    began = time.monotonic()
    with (
        ThreadPoolExecutor(len(bystanders)) as threads,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        closing(Watch(node, runner)) as watch,
    ):
        chats = [threads.submit(each.chat) for each in bystanders]

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        @given(st.lists(attacks, min_size=1, max_size=8))
        def strangers(plans: list[Attack]) -> None:
            async def come() -> None:
                await asyncio.gather(*(attack(node, plan) for plan in plans))

            runner.run(come())
            watch.look()

        try:
            while time.monotonic() - began < FUZZ_S:
                seed(time.time_ns())(strangers)()
                watch.judge()
            runner.run(alone(node))
            watch.judge()
        finally:
            for each in bystanders:
                each.done.set()
        for chat in chats:
            chat.result()
        watch.look()
    assert bystander.heard == list(range(1, bystander.said + 1))
    for share, limit_s in ((0.5, LATENCY_P50_S), (0.99, LATENCY_P99_S)):
        assert bystander.latency_s(share) < max(limit_s, LATENCY_TIMES * elsewhere.latency_s(share))
