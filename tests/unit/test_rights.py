"""Who may do what in which room: `core/rights.py` against a slower model of its rule, and users that can't be."""

import json
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.rights import LETTERS, PATTERNS_MAX, BadRights, Rights
from gateway.core.user import INFO_BYTES_MAX, NAME_CHARS_MAX, NOBODY, BadUser, User
from tests.unit.test_docs import ROOT, table

patterns = st.text("ab*", min_size=1, max_size=6)
letters = st.text(LETTERS, max_size=5)


def model(given: dict[str, str], room: str) -> str:
    """The rule as docs/rights.md says it, by regular expressions."""
    if room in given:
        return "".join(letter for letter in LETTERS if letter in given[room])
    fitting = [p for p in given if "*" in p and re.fullmatch(p.replace("*", ".*"), room, re.DOTALL)]
    longest = max((len(p.replace("*", "")) for p in fitting), default=0)
    said = [given[p] for p in fitting if len(p.replace("*", "")) == longest]
    return "".join(letter for letter in LETTERS if said and all(letter in one for one in said))


@given(st.dictionaries(patterns, letters, max_size=6), st.text("abc", min_size=1, max_size=7))
@example({"*": "rw"}, "a")
@example({"*": "rw", "a": ""}, "a")
@example({"a*a": "r"}, "a")
@example({"ab*": "rw", "*ab": "rm"}, "ab")
def test_the_longest_pattern_wins(given: dict[str, str], room: str) -> None:
    """A shorter one that gives more must not open a room that a longer one closes."""
    assert Rights(given).of(room) == model(given, room)


def test_the_examples_of_the_page() -> None:
    """What docs/rights.md promises of each room."""
    given = {}
    for rights, room, text in table(
        (ROOT / "docs/rights.md").read_text("utf-8"), "no letters close it too".capitalize()
    ):
        given = json.loads(rights) if rights else given
        letters = re.match(r"none|[rwpm]+", text.strip("`"))
        assert letters is not None
        assert Rights(given).of(room) == letters[0].replace("none", ""), (given, room)


def test_a_name_is_a_name_however_it_was_written() -> None:
    """Rooms are in NFC; a site that writes é as two characters means the same room."""
    assert Rights({"cafe\u0301": "r"}).of("café") == "r"


def test_a_pattern_full_of_stars_is_no_slower_than_its_room_is_long() -> None:
    """A backtracking match of this one would take years."""
    assert Rights({"*a" * 40 + "*b": "r"}).of("a" * 99) == ""


@pytest.mark.parametrize(
    "given", [{"": "r"}, {"x" * 101: "r"}, {"*": "rx"}, {"*": "R"}, {f"{n}*": "r" for n in range(PATTERNS_MAX + 1)}]
)
def test_what_is_no_right_is_refused_whole(given: dict[str, str]) -> None:
    """A misspelt right that was passed over would look given."""
    with pytest.raises(BadRights):
        Rights(given)


@pytest.mark.parametrize(
    ("id", "name", "info", "guest"),
    [
        ("", "x", b"null", False),
        ("x" * 129, "x", b"null", False),
        ("a\0b", "x", b"null", False),
        ("\n", None, b"null", False),
        ("7", "x", b"1" * (INFO_BYTES_MAX + 1), False),
        ("7", "\ud800", b"null", False),
        ("guest:7", "x", b"null", False),
        ("7", "x", b"null", True),
    ],
)
def test_who_is_no_user(id: str, name: str | None, info: bytes, guest: bool) -> None:
    """Above all: no user has a guest's id, no guest a user's."""
    with pytest.raises(BadUser):
        User(id, name, info, guest=guest)


def test_a_user_is_told_without_what_only_pages_of_the_site_know() -> None:
    """`info` is not for everybody in the room."""
    assert User("7", "Ann", b'{"email":"a@b.c"}').json == b'{"id":"7","name":"Ann"}'
    assert NOBODY.json == b""


def test_a_name_can_not_end_a_line_nor_turn_it() -> None:
    """A page writes it before what somebody says: it must not look like what somebody else says."""
    assert User("7", "Ann\nBob: hi\u202e\u2028!").name == "AnnBob: hi!"
    assert User("7", "\u202e\n").name == "7"


def test_a_name_that_is_too_long_shuts_nobody_out() -> None:
    """At a site people write their own, and hear only that the site can't say who they are."""
    assert User("7", "x" * (NAME_CHARS_MAX + 1)).name == "x" * NAME_CHARS_MAX
    assert User("7", "  ").name == "7"
