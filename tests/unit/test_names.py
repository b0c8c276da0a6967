"""Room names: what is a room, and that every spelling of a name is the same room."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.names import ROOM_NAME_CHARS_MAX, BadRoomName, room_name

word = st.from_regex(r"\w{1,100}", fullmatch=True)


@pytest.mark.parametrize("name", ["lobby", "部屋", "ルーム_1", "é", "_", "0", "x" * 100, "Ωmega", "ひろば"])
def test_a_word_is_a_room(name: str) -> None:
    assert room_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", " ", "a b", "a-b", "a.b", "a/b", "..", "a\n", "\na", "a\0", "x" * 101, "部屋!", "😀", "{a}", "a:b", "\u200b",
     "\ud800", "a\u2028", "%61", "\u0301"],
)  # fmt: skip
def test_anything_else_is_none(name: str) -> None:
    with pytest.raises(BadRoomName) as refused:
        room_name(name)
    assert refused.value.args[0], "the reason is for a person"


@given(word)
def test_two_spellings_of_a_name_are_one_room(name: str) -> None:
    """Macs type か + ゙ where others type が."""
    names = set()
    for form in ("NFC", "NFD"):
        try:
            names.add(room_name(unicodedata.normalize(form, name)))
        except BadRoomName:
            names.add("")
    assert len(names) == 1


@given(st.text() | word)
def test_a_room_name_is_a_short_normal_word(raw: str) -> None:
    try:
        name = room_name(raw)
    except BadRoomName:
        normal = unicodedata.normalize("NFC", raw)
        assert len(normal) > ROOM_NAME_CHARS_MAX or not re.fullmatch(r"\w+", normal)
        return
    assert unicodedata.is_normalized("NFC", name) and re.fullmatch(r"\w+", name)
    assert len(name) <= ROOM_NAME_CHARS_MAX
    assert room_name(name) == name


@given(word, st.integers(1, 100))
def test_the_bound_counts_characters_after_normalising(raw: str, chars_max: int) -> None:
    normal = unicodedata.normalize("NFC", raw)
    if re.fullmatch(r"\w+", normal) and len(normal) <= chars_max:
        assert room_name(raw, chars_max) == normal
    else:
        with pytest.raises(BadRoomName):
            room_name(raw, chars_max)
