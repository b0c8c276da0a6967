"""Where a joiner asks to begin: the query of the WebSocket's URL."""

from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp.test_utils import make_mocked_request

from gateway.core.entry import EntryId
from gateway.edge import ws
from gateway.settings.model import Settings


def start(query: str) -> tuple[EntryId | None, int]:
    edge: Any = SimpleNamespace(settings=Settings(history_max=1_000))
    return ws._start(edge, make_mocked_request("GET", f"/ws/chat/r/?{query}"))


@pytest.mark.parametrize(("given", "history"), [("0", 0), ("50", 50), ("1000", 1_000), ("0050", 50)])
def test_history_is_a_number(given: str, history: int) -> None:
    assert start(f"history={given}") == (None, history)


@pytest.mark.parametrize(
    "given", ["", "-1", "1001", "1.0", "1e3", "x", " 5", "５", "²", "9" * 5_000, "0" * 9 + "9999999", "0x10"]
)
def test_anything_else_is_refused(given: str) -> None:
    """Leading zeros too: behind nine of them the limit was not looked at, and a whole log was read at once."""
    with pytest.raises(ws.Refused) as refused:
        start(f"history={quote(given)}")
    assert (refused.value.status, refused.value.label) == (400, "history")


def test_after_is_an_id_or_nowhere() -> None:
    """From nowhere nothing can be recovered, and the client is told so: it is no reason to keep it out."""
    assert start("after=17-3") == (EntryId(17, 3), 0)
    for nonsense in ("", "17", "$", "x", "-1-1"):
        after, _ = start(f"after={nonsense}")
        assert after is not None and after.ms > 10**18
