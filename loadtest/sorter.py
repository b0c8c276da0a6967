"""Which room each frame of a connection of many rooms is of. No sockets, no judgement.

What one room's members share is the room's frames, not a connection's bytes: so each frame is found here, and
compared with its room's tape by the member whose it is.
"""

from __future__ import annotations

from collections.abc import Callable

from loadtest import frames
from loadtest.member import FRAGMENTED, Member
from loadtest.wires import Heard, Wire

# How hiroba begins a message. It need not: what begins otherwise is parsed.
_MESSAGE = b'{"type":"message","room":"'
_WHOLE_TEXT = 0x80 | frames.TEXT


class Sorter:
    """`feed` a connection's bytes; raises frames.BadFrame on broken framing.

    `on_told` is given all that no member takes: also messages of rooms that nobody here is in, and nonsense.
    """

    def __init__(self, wire: Wire, on_told: Callable[[Heard], None], on_control: Callable[[int, bytes], None]) -> None:
        # By the room's name, those who are in it.
        self.members: dict[bytes, Member] = {}
        self._wire = wire
        self._on_told = on_told
        self._on_control = on_control
        self._held = b""  # the beginning of a frame whose rest has not come
        self._pieces = b""  # a fragmented message so far

    def feed(self, chunk: bytes, now_us: int) -> None:
        data = self._held + chunk if self._held else chunk
        self._held = b""
        at = 0
        while at < len(data):
            bounds = frames.split(data, at)
            if bounds is None:
                self._held = data[at:]
                return
            payload, end = bounds
            if data[at] != _WHOLE_TEXT:
                self._take(data[at], data[payload:end], now_us)
            elif (member := self._member_of(data, payload)) is not None:
                member.feed(data[at:end], now_us)
            else:
                self._text(data[payload:end], data[at:end], now_us)
            at = end

    def _member_of(self, data: bytes, payload: int) -> Member | None:
        """Of a message that begins as they all do; None: it does not, or is of no room here."""
        if not data.startswith(_MESSAGE, payload):
            return None
        name = payload + len(_MESSAGE)
        return self.members.get(data[name : data.find(b'"', name)])

    def _take(self, head: int, payload: bytes, now_us: int) -> None:
        opcode, final = head & 0x0F, head & 0x80
        if head & 0x70:
            raise frames.BadFrame("the server sets reserved bits that were not negotiated (RFC 6455, 5.2)")
        if opcode >= frames.CLOSE:
            self._on_control(opcode, payload)
        elif opcode == frames.BINARY:
            self._on_told(Heard("nonsense"))
        else:
            self._pieces += payload
            if final:
                whole, self._pieces = self._pieces, b""
                self._text(whole, FRAGMENTED, now_us)

    def _text(self, payload: bytes, frame: bytes, now_us: int) -> None:
        heard = self._wire.hear(payload)
        member = self.members.get(str(heard.body.get("room")).encode())
        if heard.kind == "message" and member is not None:
            member.message(heard, frame, now_us)
        else:
            self._on_told(heard)
