"""What clients send, frame by frame: however it is cut it means the same, and garbage means a close, never a bug."""

import itertools
import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.closes import Close
from gateway.core.inbound import Broken, Frame, Inbound, Opcode, close_code, text

MAX = 1_000
FLUSHED = b"\0\0\xff\xff"


def frame(payload: bytes, opcode: int = Opcode.TEXT, *, head: int = 0x80, key: bytes = b"\x9a\0\xff\x07") -> bytes:
    """RFC 6455 §5.2, byte by byte as it is written there. `head`: FIN (0x80) and the reserved bits."""
    size = len(payload)
    length = (
        bytes((size,))
        if size < 126
        else b"\x7e%b" % size.to_bytes(2)
        if size < 65_536
        else b"\x7f%b" % size.to_bytes(8)
    )
    masked = bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))
    return bytes((head | opcode, length[0] | 0x80)) + length[1:] + key + masked


def deflated(payload: bytes, last: int = zlib.Z_SYNC_FLUSH) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (packer.compress(payload) + packer.flush(last)).removesuffix(FLUSHED)


def heard(*pieces: bytes, deflates: bool = False, bytes_max: int = MAX) -> list[Frame]:
    """All frames of a stream that comes in these pieces."""
    inbound, frames = Inbound(bytes_max, deflates), []
    for piece in pieces:
        inbound.feed(piece)
        while (found := inbound.next()) is not None:
            frames.append(found)
    return frames


def refused(*pieces: bytes, deflates: bool = False) -> Close:
    with pytest.raises(Broken) as caught:
        heard(*pieces, deflates=deflates)
    assert caught.value.args[0], "words for the close frame"
    return caught.value.close


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 65_537])
def test_a_message_of_every_length_encoding(size: int) -> None:
    payload = bytes(range(256)) * (size // 256) + bytes(range(size % 256))
    (found,) = heard(frame(payload, Opcode.BINARY), bytes_max=100_000)
    assert (found.opcode, found.payload) == (Opcode.BINARY, payload)
    assert found.size == len(frame(payload))


messages = st.lists(
    st.tuples(st.sampled_from([Opcode.TEXT, Opcode.BINARY, Opcode.PING, Opcode.PONG]), st.binary(max_size=125),
              st.binary(min_size=4, max_size=4), st.lists(st.integers(0, 125), max_size=3), st.booleans()),
    max_size=6,
)  # fmt: skip


@given(messages, st.data())
def test_a_stream_means_the_same_however_it_is_cut_and_fragmented(
    said: list[tuple[Opcode, bytes, bytes, list[int], bool]], data: st.DataObject
) -> None:
    stream, wanted = b"", []
    for opcode, payload, key, cuts, packs in said:
        wanted.append((opcode, payload))
        if opcode >= Opcode.CLOSE:
            stream += frame(payload, opcode, key=key)
            continue
        whole, head = (deflated(payload), 0x40) if packs else (payload, 0)
        edges = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
        for number, (start, end) in enumerate(itertools.pairwise(edges)):
            fin = 0x80 if number == len(edges) - 2 else 0
            kind = opcode if number == 0 else Opcode.PART
            stream += frame(whole[start:end], kind, head=fin | (head if number == 0 else 0), key=key)
    edges = [0, *sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6))), len(stream)]
    pieces = [stream[start:end] for start, end in itertools.pairwise(edges)]
    found = heard(*pieces, deflates=True)
    assert [(f.opcode, f.payload) for f in found if f.opcode is not Opcode.PART] == wanted
    assert sum(f.size for f in found) >= len(stream), "no byte is free"


def test_control_frames_come_between_the_parts_of_a_message() -> None:
    found = heard(
        frame(b"a", head=0), frame(b"p", Opcode.PING), frame(b"", Opcode.PART, head=0), frame(b"b", Opcode.PART)
    )
    assert [(f.opcode, f.payload) for f in found] == [
        (Opcode.PART, b""), (Opcode.PING, b"p"), (Opcode.PART, b""), (Opcode.TEXT, b"ab"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("stream", "deflates", "close"),
    [
        (b"\x83\x80", True, Close.PROTOCOL),  # opcode 3
        (b"\xc1\x80", False, Close.PROTOCOL),  # RSV1, and nothing was negotiated
        (b"\xa1\x80", True, Close.PROTOCOL),  # RSV2
        (b"\x81\x05hello", True, Close.PROTOCOL),  # not masked (§5.1)
        (b"\x89\xfe", True, Close.PROTOCOL),  # a ping of more than 125 bytes
        (b"\x09\x80", True, Close.PROTOCOL),  # a ping in parts
        (b"\x80\x80", True, Close.PROTOCOL),  # a part of nothing
        (frame(b"", head=0) + b"\x81\x80", True, Close.PROTOCOL),  # a message within one, though that is still empty
        (frame(b"a", head=0) + b"\xc0\x80", True, Close.PROTOCOL),  # compressed from its second part on
        (b"\x81\xfe\x03\xe9", True, Close.TOO_LONG),  # by its length alone
        (b"\x81\xff" + b"\xff" * 8, True, Close.TOO_LONG),
        (frame(b"x" * 600, head=0) + frame(b"x" * 600, Opcode.PART), True, Close.TOO_LONG),
        (frame(deflated(b"x" * 1_001), head=0xC0), True, Close.TOO_LONG),  # only what it inflates to
        (frame(b"this is no deflate data", head=0xC0), True, Close.BAD_DATA),
        (frame(b"\x06", head=0xC0), True, Close.BAD_DATA),  # a block type that there is not
        (frame(b"\x03\0" * 400, head=0xC0), True, Close.BAD_DATA),  # hundreds of final blocks: work for nothing
    ],
)  # fmt: skip
def test_what_the_protocol_forbids_is_named(stream: bytes, deflates: bool, close: Close) -> None:
    assert refused(stream, deflates=deflates) is close
    assert refused(*(bytes((byte,)) for byte in stream), deflates=deflates) is close


def test_final_deflate_blocks_end_no_message() -> None:
    """RFC 7692 §7.2.3.4, its own example; and one in the middle of a message."""
    hello = bytes.fromhex("f348cdc9c9070000")
    assert heard(frame(hello, head=0xC0), deflates=True)[0].payload == b"Hello"
    both = deflated(b"Hel", zlib.Z_FINISH) + deflated(b"lo")
    assert heard(frame(both, head=0xC0), deflates=True)[0].payload == b"Hello"


def test_a_compressed_message_costs_what_it_inflates_to() -> None:
    (found,) = heard(frame(deflated(b"x" * 900), head=0xC0), deflates=True)
    assert (found.payload, found.size) == (b"x" * 900, 900)


@given(st.lists(st.binary(max_size=200), max_size=8), st.booleans())
@example([frame(deflated(b"x" * 900), head=0xC0)[:-1] + b"\x55"], True)
def test_garbage_is_frames_or_a_close_and_is_never_kept_beyond_its_bound(pieces: list[bytes], deflates: bool) -> None:
    try:
        for found in heard(*pieces, deflates=deflates):
            assert len(found.payload) <= MAX
    except Broken as exc:
        assert exc.close in (Close.PROTOCOL, Close.TOO_LONG, Close.BAD_DATA)


# ---- close frames ----


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999])
def test_a_code_that_may_be_sent_is_read(code: int) -> None:
    assert close_code(code.to_bytes(2) + "またね".encode()) == (code, "またね")
    assert close_code(b"") == (None, "")


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535])
def test_a_code_that_may_not_be_sent_is_an_error_of_protocol(code: int) -> None:
    """RFC 6455 §7.4: reserved ones, those that only say that no close frame came, and those that nobody defined."""
    with pytest.raises(Broken) as caught:
        close_code(code.to_bytes(2))
    assert caught.value.close is Close.PROTOCOL


def test_a_close_frame_with_half_a_code_or_no_utf8() -> None:
    for payload, close in ((b"\x03", Close.PROTOCOL), (b"\x03\xe8\xff", Close.BAD_DATA)):
        with pytest.raises(Broken) as caught:
            close_code(payload)
        assert caught.value.close is close


def test_text_is_utf8() -> None:
    assert text("部屋".encode()) == "部屋"
    with pytest.raises(Broken) as caught:
        text(b"\xff")
    assert caught.value.close is Close.BAD_DATA
