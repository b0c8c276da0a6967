"""What clients may say, what they hear: any JSON goes through byte for byte, anything else is refused in words."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.entry import Entry, EntryId, Gap
from gateway.core.wires import PLAIN, SSE, V1, BadMessage, Ping, Ref, Said, Wire, named, v1
from tests.support.grants import OPEN

readable = st.characters(codec="utf-8")
texts = st.text(readable)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
refs = st.none() | st.text(readable, max_size=v1.REF_CHARS_MAX) | st.integers(-(2**200), 2**200)
# As different writers write the same value.
styles = st.fixed_dictionaries(
    {"ensure_ascii": st.booleans(), "indent": st.sampled_from([None, 0, 3, "\t"]),
     "separators": st.sampled_from([(",", ":"), (" , ", " : "), ("\n,", ":\r\n\t")])}
)  # fmt: skip


def payload(frame: bytes) -> bytes:
    """The payload of a text frame (that frames are right: test_frames.py)."""
    assert frame[0] == 0x81
    return frame[{126: 4, 127: 10}.get(frame[1], 2) :]


def entry(message: bytes, sender: str = "s1", user: bytes = b"") -> Entry:
    return Entry(EntryId(1_700_000_000_000, 7), sender, user, message)


def said(wire: Wire, message: str, /, **more: object) -> str:
    """What a client of that wire sends; `message` is JSON already."""
    fields = {**({"type": "message"} if wire is V1 else {}), **more}
    rest = "".join(f", {json.dumps(key)}: {json.dumps(value)}" for key, value in fields.items())
    return f'{{"message": {message}{rest}}}'


def spoken(wire: Wire, text: str) -> Said:
    """What that wire makes of a message for the room."""
    parsed = wire.parse(text)
    assert isinstance(parsed, Said)
    return parsed


ROOM = named("部屋")

both = pytest.mark.parametrize("wire", [PLAIN, V1], ids=lambda wire: wire.name)


# ---- what goes through ----


@both
@given(value=values, style=styles)
def test_any_json_comes_out_byte_for_byte(wire: Wire, value: object, style: dict) -> None:
    """Not re-encoded: 1.0 stays 1.0, keys keep their order, escapes stay as the client wrote them."""
    written = json.dumps(value, **style)
    message, *_ = spoken(wire, said(wire, written))
    assert message == written.encode()
    heard = payload(wire.message(ROOM, entry(message)))
    assert b'"message":%b' % message in heard
    assert json.loads(heard)["message"] == value


VERBATIM = [
    '""', "null", "1e999", "-0", "1.0", "123456789012345678901234567890", r'"\u0000\/\ud83d\ude00"', '"\u2028"',
    '{"a":1,"a":2}', "[ 1 ,\n\t2 ]", '"</script>"', "{}", '"' + "あ" * 10_000 + '"',
]  # fmt: skip


@both
@pytest.mark.parametrize("written", VERBATIM, ids=lambda written: ascii(written[:20]))
def test_json_that_others_would_change_is_left_alone(wire: Wire, written: str) -> None:
    assert spoken(wire, said(wire, written))[0] == written.encode()


@given(st.dictionaries(texts.filter(lambda key: key != "message"), values, max_size=4))
def test_plain_ignores_other_keys(more: dict) -> None:
    assert PLAIN.parse(said(PLAIN, '"hi"', **more)) == (b'"hi"', None, None)


def test_plain_says_the_message_and_nothing_else() -> None:
    """The old page prints whatever has no `message` as `undefined`."""
    assert payload(PLAIN.message(ROOM, entry(b'"hi"', user="ann"))) == b'{"message":"hi"}'
    assert PLAIN.gap is None


@given(refs)
def test_a_ref_is_given_back(ref: Ref) -> None:
    message, parsed, _ = spoken(V1, said(V1, "1", ref=ref))
    assert (message, parsed) == (b"1", ref) and type(parsed) is type(ref)
    told = json.loads(payload(v1.ack(parsed, "r", EntryId(5, 6))))
    assert told == {"type": "ack", "ref": ref, "room": "r", "id": "5-6"}
    assert json.loads(payload(v1.error("timeout", "late", parsed)))["ref"] == ref


# ---- what is refused ----

NOT_JSON = [
    "", " ", "{", "hello", "{'message': 1}", '{"message": }', '{"message": NaN}', '{"message": Infinity}',
    '{"message": 01}', '{"message": 1.}', '{"message": tru}', '{"message": "a\nb"}', '{"message": "\\x"}',
    '{"message": 1} {}', '{"message": 1,}', '\ufeff{"message": 1}', '{"message": "\x00"}', "// x\n{}",
]  # fmt: skip
# Grammatical, but no text that any UTF-8 could hold: half of a surrogate pair.
LONE_SURROGATES = [r'{"message": "\ud800"}', r'{"message": "\udc00x"}', r'{"message": {"\ud800a": 1}}']
NO_MESSAGE = ["null", "1", "[]", '["message"]', '"message"', "{}", '{"Message": 1}', '{"message ": 1}']


@both
@pytest.mark.parametrize("text", NOT_JSON + LONE_SURROGATES + NO_MESSAGE, ids=ascii)
def test_what_is_no_message_is_refused_in_words(wire: Wire, text: str) -> None:
    with pytest.raises(BadMessage) as refused:
        wire.parse(text.replace('{"message"', '{"type": "message", "message"') if wire is V1 else text)
    assert len(refused.value.args[0]) > 10


@both
@pytest.mark.parametrize(
    ("said", "half"),
    [
        (r'"\ud800"', r"\ud800"),
        (r'"\uDC00x"', r"\uDC00"),
        (r'{"\ud83da": 1}', r"\ud83d"),
        (r'"\ud83d\ud83d\ude00"', r"\ud83d"),
        (r'"\\\ud83d\ude00 \ude00"', r"\ude00"),
    ],
)
def test_half_of_a_surrogate_pair_is_named_and_what_to_send_instead(wire: Wire, said: str, half: str) -> None:
    with pytest.raises(BadMessage) as refused:
        wire.parse(f'{{"type": "message", "message": {said}}}')
    assert refused.value.args[0] == f"{half} is half of a surrogate pair: send both halves, or the character itself"


@pytest.mark.parametrize(
    ("ref", "heard"),
    [
        ("7", 7),
        ('"a😀"', "a😀"),
        (r'"\ud83d\ude00"', "😀"),
        (r'"\\ud83d"', r"\ud83d"),
        (r'"\ud83d"', None),
        ("9" * 65, None),
    ],
)
def test_who_sent_half_of_a_surrogate_pair_is_told_with_which_request(ref: str, heard: object) -> None:
    """Or its client would wait for an answer for ever, and hold back what was said later."""
    with pytest.raises(BadMessage, match="surrogate") as refused:
        V1.parse(rf'{{"type": "message", "message": {{"\ud800": "x\udc00"}}, "ref": {ref}}}')
    assert refused.value.ref == heard


@pytest.mark.parametrize(
    ("rest", "heard"),
    [
        ('"ref": 7', 7),
        (r'"ref": "]\"}"', ']"}'),
        ('"ref": {"ref": 7}', None),
        ('"room": "a", "other": [{"ref": 8}], "ref": 9', 9),
        ('"ref": "unclosed', None),
        ('"ref": 7}}', None),
    ],
)
def test_who_nests_too_deep_is_told_in_which_request(rest: str, heard: object) -> None:
    nested = "[" * 5_000 + '{"ref": 1, "]": "[\\\\"}' + "]" * 5_000
    with pytest.raises(BadMessage, match="nested too deep") as refused:
        V1.parse(f'{{"type": "message", "message": {nested}, {rest}}}')
    assert refused.value.ref == heard
    with pytest.raises(BadMessage, match="nested too deep") as refused:
        V1.parse(f'{{"type": "message", "message": {nested}, "x": "{16_384 * chr(120)}", {rest}}}')
    assert refused.value.ref is None, "nobody waits for the search in a long one"


@both
@pytest.mark.parametrize("said", [r'"\ud83d\ude00"', r'"\\ud800"', '"😀"'])
def test_a_whole_pair_is_text_and_is_not_blamed_for_other_mistakes(wire: Wire, said: str) -> None:
    assert spoken(wire, f'{{"type": "message", "message": {said}}}')[0] == said.encode()
    with pytest.raises(BadMessage) as refused:
        wire.parse(f'{{"type": "message", "message": {said}')
    assert "surrogate" not in refused.value.args[0]


@both
@given(text=st.text(readable))
def test_whatever_comes_is_parsed_or_refused(wire: Wire, text: str) -> None:
    """No input may raise anything else: the handler would die, or the node."""
    try:
        message, ref, _ = spoken(wire, text)
    except BadMessage:
        return
    assert json.loads(message) == json.loads(text)["message"] and (wire is V1 or ref is None)


@both
@pytest.mark.parametrize("place", ["message", "elsewhere"])
@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_deep_nesting_is_refused_before_it_is_a_stack(wire: Wire, opening: str, place: str) -> None:
    closing = "]" if opening == "[" else "}"
    deep = opening * 100_000 + "1" + closing * 100_000
    more = {"message": "1", "elsewhere": deep} if place == "elsewhere" else {"message": deep}
    kind = '"type":"message",' if wire is V1 else ""
    text = "{" + kind + ",".join(f'"{key}":{value}' for key, value in more.items()) + "}"
    with pytest.raises(BadMessage, match="nested too deep"):
        wire.parse(text)


BAD_REFS = ["1.5", "1.0", "1e3", "true", "[]", "{}", json.dumps("x" * (v1.REF_CHARS_MAX + 1)), "1" + "0" * 5_000]


@pytest.mark.parametrize("ref", BAD_REFS, ids=lambda ref: ref[:8])
def test_a_ref_is_a_short_string_or_an_integer(ref: str) -> None:
    with pytest.raises(BadMessage, match=re.compile("ref")):
        V1.parse(f'{{"type":"message","message":1,"ref":{ref}}}')


@pytest.mark.parametrize(
    "text", ['{"type":"typing","ref":"r"}', '{"type":"message","ref":"r"}', '{"type":"Message","message":1,"ref":"r"}']
)
def test_a_legible_ref_comes_back_with_the_refusal(text: str) -> None:
    with pytest.raises(BadMessage) as refused:
        V1.parse(text)
    assert refused.value.ref == "r"


# ---- what v1 says ----

ids = st.builds(EntryId, st.integers(0, 10**15), st.integers(0, 10**15))


users = st.none() | st.fixed_dictionaries({"id": texts, "name": texts})


@given(ids, texts, users, values)
def test_a_v1_message_says_all_of_its_entry(id: EntryId, sender: str, user: object, value: object) -> None:
    who = json.dumps(user).encode() if user else b""
    heard = json.loads(payload(V1.message(ROOM, Entry(id, sender, who, json.dumps(value).encode()))))
    assert heard == {
        "type": "message", "room": "部屋", "id": str(id), "from": sender, "user": user, "message": value,
        "at": id.ms,
    }  # fmt: skip


@given(ids, ids, st.none() | st.integers(1, 10**9))
def test_a_v1_gap_says_between_what(after: EntryId, before: EntryId, lost: int | None) -> None:
    assert V1.gap is not None
    heard = json.loads(payload(V1.gap(ROOM, Gap(after, before, lost))))
    assert heard == {"type": "gap", "room": "部屋", "after": str(after), "before": str(before), "lost": lost}


def test_the_other_frames_of_v1() -> None:
    assert json.loads(payload(v1.welcome("s", "n", "部屋", EntryId(3, 4), True, 25.0, OPEN))) == {
        "type": "welcome", "session": "s", "node": "n", "room": "部屋", "user": None, "rights": "rwp",
        "expires_at": None, "last_id": "3-4",
        "recovered": True, "ping_s": 25.0,
    }  # fmt: skip
    assert json.loads(payload(v1.pong("mine"))) == {"type": "pong", "ref": "mine"}
    assert json.loads(payload(v1.pong(None))) == {"type": "pong"}
    assert json.loads(payload(v1.reconnect(1.23456))) == {"type": "reconnect", "after_s": 1.235}
    assert json.loads(payload(v1.error("bad_json", "why", None))) == {
        "type": "error", "code": "bad_json", "text": "why", "ref": None
    }  # fmt: skip


@given(value=values, style=styles)
def test_an_event_holds_any_json_whatever_line_breaks_are_in_it(value: object, style: dict) -> None:
    """Each of its lines is a `data:` of its own, and the text between them is the client's."""
    message = json.dumps(value, **style).encode()
    id, *data, nothing, behind = re.split(rb"\r\n|\r|\n", SSE.message(ROOM, entry(message)))
    assert (id, nothing, behind) == (b"id: 1700000000000-7", b"", b"")
    assert all(line.startswith(b"data: ") for line in data)
    told = b"\n".join(line.removeprefix(b"data: ") for line in data)
    assert json.loads(told)["message"] == value
    assert re.sub(rb"\r\n|\r", b"\n", message) in told


@pytest.mark.parametrize("ref", [None, "mine", 7])
def test_a_v1_ping_asks_whatever_else_is_in_it(ref: Ref) -> None:
    assert V1.parse(json.dumps({"type": "ping", "ref": ref, "message": "of no meaning"})) == Ping(ref)
    assert V1.parse('{"type":"ping"}') == Ping(None)
    assert spoken(PLAIN, '{"type":"ping","message":1}') == (b"1", None, None), "plain knows no types"
