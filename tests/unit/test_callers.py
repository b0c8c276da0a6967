"""Addresses as sockets and proxies write them, and origins as browsers do: no two spellings of one are two."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.forwarded import as_address, listed
from gateway.core.origins import OPAQUE, Origin, parse_origin
from gateway.edge.callers import shown


@pytest.mark.parametrize(
    ("peername", "said"),
    [
        (("192.0.2.1", 4711), "192.0.2.1:4711"),
        (("::1", 34914, 0, 0), "[::1]:34914"),
        (("::ffff:192.0.2.1", 4711, 0, 0), "192.0.2.1:4711"),  # an inherited socket may be of both families
        ("", "-"),
        (None, "-"),
    ],
)
def test_a_socket_s_other_end_as_log_lines_have_it(peername: object, said: str) -> None:
    assert shown(peername) == said


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:4711", "192.0.2.1"),
        ('"[2001:DB8::1]:4711"', "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[::ffff:192.0.2.1]:4711", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("unknown", "None"),
        ("_hidden", "None"),
        ("192.0.2.1:4711:1", "None"),
        ("chat.example", "None"),
        ("", "None"),
    ],
)
def test_an_address_with_brackets_or_a_port_is_an_address(text: str, address: str) -> None:
    assert str(as_address(text)) == address


@given(st.lists(st.lists(st.ip_addresses().map(str), min_size=1), min_size=1))
def test_a_list_in_several_lines_is_one_list(lines: list[list[str]]) -> None:
    assert listed(", ".join(line) for line in lines) == [address for line in lines for address in line]


@given(st.text())
def test_whatever_is_written_is_an_address_an_origin_or_none(text: str) -> None:
    """Strangers write these headers: nothing but ValueError comes out, and that for an origin only."""
    as_address(text)
    with contextlib.suppress(ValueError):
        parse_origin(text)


@pytest.mark.parametrize("text", ["null", "", "https://h/path", "https://ann@h", "https://h:port", "https://h:99999"])
def test_what_is_no_page_s_origin_equals_nothing(text: str) -> None:
    assert parse_origin(text) is OPAQUE
    assert not OPAQUE.is_at(parse_origin("null"))


def test_a_port_is_the_scheme_s_where_none_is_written() -> None:
    assert parse_origin("https://H:443") == parse_origin("https://h") == Origin("https", "h", 443)
    assert parse_origin("https://h").is_at(parse_origin("h:443"))
    assert not parse_origin("http://h").is_at(parse_origin("h:443"))
    assert parse_origin("https://h").bare() == parse_origin("h")
    assert parse_origin("https://h:8443").bare() == parse_origin("h:8443")
