"""The pages' texts, in all their languages."""

import re

import pytest

from gateway.edge.admin.text import TEXTS as OF_OPERATORS
from gateway.edge.pages.text import TEXTS, Tables


@pytest.mark.parametrize("tables", [TEXTS, OF_OPERATORS], ids=["pages", "admin"])
def test_every_language_says_everything(tables: Tables) -> None:
    assert {lang: text["lang"] for lang, text in tables.items()} == {lang: lang for lang in tables}
    assert len({frozenset(text) for text in tables.values()}) == 1
    fields = re.compile(r"\{\w+\}")
    for key in tables["en"]:
        named = {frozenset(fields.findall(text[key])) for text in tables.values()}
        assert len(named) == 1, key
