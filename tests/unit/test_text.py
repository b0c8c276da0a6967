"""The pages' texts, in all their languages."""

import re

from gateway.edge.pages.text import TEXTS


def test_every_language_says_everything() -> None:
    assert {lang: text["lang"] for lang, text in TEXTS.items()} == {lang: lang for lang in TEXTS}
    assert len({frozenset(text) for text in TEXTS.values()}) == 1
    fields = re.compile(r"\{\w+\}")
    for key in TEXTS["en"]:
        named = {frozenset(fields.findall(text[key])) for text in TEXTS.values()}
        assert len(named) == 1, key
