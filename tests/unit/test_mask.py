"""Unmasking in C and by one long number: the same."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.inbound import unmasked
from gateway.edge.mask import unmask


@given(st.binary(min_size=4, max_size=4), st.binary(max_size=100))
def test_both_ways_to_unmask_are_the_rfcs(key: bytes, payload: bytes) -> None:
    """§5.3."""
    plain = bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))
    assert unmask(key, bytearray(payload)) == unmasked(key, bytearray(payload)) == plain


def test_it_is_done_in_c() -> None:
    """aiohttp moves what is not public; then a long message costs 30 times as much, and this says so."""
    assert unmask is not unmasked
