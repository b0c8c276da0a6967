"""Room names: what is a room, and that every spelling of a name is the same room."""

import re
import unicodedata

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.core.names import ROOM_NAME_CHARS_MAX, BadRoomName, room_name

FILLERS = "\u115f\u1160\u3164\uffa0"
word = st.from_regex(r"\w{1,100}", fullmatch=True).filter(lambda name: not set(name) & set(FILLERS))

# What 48 languages call themselves, in their own scripts: a room may be named in each.
LANGUAGES = re.findall(
    r"\S+",
    """
    English Español Français Português Íslenska Čeština Magyar Türkçe Tiếng_Việt Yorùbá ʻŌlelo_Hawaiʻi Ελληνικά Русский
    Қазақша Монгол Հայերեն ქართული עברית ייִדיש العربية عَرَبِيّ فارسی سنڌي اردو پښتو ئۇيغۇرچە ދިވެހި हिन्दी मराठी नेपाली
    বাংলা অসমীয়া ਪੰਜਾਬੀ ગુજરાતી ଓଡ଼ିଆ தமிழ் తెలుగు ಕನ್ನಡ മലയാളം සිංහල ไทย ລາວ မြန်မာ ខ្មែរ བོད་སྐད አማርኛ ᏣᎳᎩ ᐃᓄᒃᑎᑐᑦ ᠮᠣᠩᠭᠣᠯ
    日本語 中文 한국어 ⵜⴰⵎⴰⵣⵉⵖⵜ
    """,
)


@pytest.mark.parametrize("name", LANGUAGES)
def test_every_language_can_name_a_room(name: str) -> None:
    """Many scripts write vowels as marks, which are no letters for Python's \\w."""
    assert room_name(name) == unicodedata.normalize("NFC", name)


@pytest.mark.parametrize(
    "name", ["lobby", "部屋", "ルーム_1", "é", "_", "0", "x" * 100, "Ωmega", "ひろば", "Ⅻ①²", "ａＢ"]
)
def test_a_word_is_a_room(name: str) -> None:
    assert room_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "a-b",
        "a.b",
        "a:b",
        "ann@example.org",
        "support:42.7",
        "1-2",
        "部屋-1",
        "हिन्दी-२",
        "חדר-1",
        "l·l",
        "می\u200cخواهم",
    ],
)
def test_marks_may_stand_inside_and_joiners_where_they_can_be_seen(name: str) -> None:
    """RFC 8264, with what addresses and the groups of Channels have."""
    assert room_name(name) == name


@pytest.mark.parametrize(("name", "room"), [("ルーム－１", "ルーム-1"), ("Ａ．Ｂ", "A.B"), ("ann＠b", "ann@b")])
def test_wide_letters_beside_marks_are_the_usual_ones(name: str, room: str) -> None:
    """RFC 8265 §3.4: an input method writes them so."""
    assert room_name(name) == room


@pytest.mark.parametrize(
    "name",
    ["", " ", "a b", "a/b", ".", "..", "-", "-a", "a-", ".a", "a.", ":a", "@a", "a@", "a\n", "\na", "a\0", "x" * 101,
     "部屋!", "😀", "{a}", "\u200b", "\ud800", "a\u2028", "%61", "\u0301", "a\u200cb", "a\u200d", "a\u202eb", "a\ufe0f",
     "a,b", "a+b", "a~b", "room-\u05d0", "a\u0301\u034f", "\u3164", "a\u115f", "-\u3164-", "a／b"],
)  # fmt: skip
def test_anything_else_is_none(name: str) -> None:
    with pytest.raises(BadRoomName) as refused:
        room_name(name)
    assert refused.value.args[0], "the reason is for a person"


@given(word)
def test_what_was_a_room_before_is_the_same_room(name: str) -> None:
    """Logs lie under their names. Only four characters left \\w: nobody could see them."""
    normal = unicodedata.normalize("NFC", name)
    if re.fullmatch(r"\w{1,100}", normal):
        assert room_name(name) == normal


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


@given(st.text() | word | st.text("aé部हि-.:@\u200c\u0301ａ１－ا", max_size=8))
def test_a_room_name_is_short_normal_and_stays_what_it_is(raw: str) -> None:
    try:
        name = room_name(raw)
    except BadRoomName:
        return
    assert unicodedata.is_normalized("NFC", name)
    assert len(name) <= ROOM_NAME_CHARS_MAX
    assert room_name(name) == name
    assert not re.search(r"[^\w.:@-]", name, re.ASCII) or not name.isascii()
    assert name[0] not in "-.:@" and name[-1] not in "-.:@"


@given(word, st.integers(1, 100))
def test_the_bound_counts_characters_after_normalising(raw: str, chars_max: int) -> None:
    normal = unicodedata.normalize("NFC", raw)
    assume(re.fullmatch(r"\w+", normal))  # some letters come apart in it: what is left is the profile's to judge
    if len(normal) <= chars_max:
        assert room_name(raw, chars_max) == normal
    else:
        with pytest.raises(BadRoomName):
            room_name(raw, chars_max)


def test_a_name_that_is_far_too_long_is_not_normalised() -> None:
    """That takes time by the square of the marks: an address of 32 KB held the loop for 60 ms; this would for hours."""
    assert room_name("\u1f82" * 100) == room_name("\u03b1\u0313\u0300\u0345" * 100)  # none shrinks more
    with pytest.raises(BadRoomName, match="at most 100 characters"):
        room_name("a" + "\u0301\u0316" * 1_000_000)
