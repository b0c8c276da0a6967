"""The site's word as a node keeps it: how much, how long; and when a breaker lets somebody ask."""

import pytest

from gateway.auth.denied import Denied
from gateway.auth.site import FAILURES_MAX, KNOWN_BYTES, Site, Visitor
from gateway.settings.model import Settings
from gateway.site.asking import Asker
from gateway.site.breaker import Breaker
from gateway.telemetry.metrics import Metrics
from tests.support.site import Site as RealSite
from tests.support.site import json_of, text_of
from tests.support.until import until


def visitor(cookie: str) -> Visitor:
    return Visitor(cookie, "", "", "")


async def test_what_is_kept_is_bounded_and_the_oldest_goes_first() -> None:
    """However many cookies somebody invents."""
    metrics = Metrics()
    async with RealSite() as real:
        real.answer = json_of({"user": {"id": 7, "info": "x" * 500}})
        settings = Settings(site_url=real.url, site_known_bytes_max=10 * (KNOWN_BYTES + 600))
        asker = Asker(4)
        site = Site(asker, settings, metrics, real.url)
        for n in range(30):
            await site.grant(visitor(f"s={n}"))
        assert len(real.asked) == 30 and 8 <= len(site._known) <= 12
        await site.grant(visitor("s=29"))
        assert len(real.asked) == 30, "the newest is kept"
        await site.grant(visitor("s=0"))
        assert len(real.asked) == 31, "the oldest is not"
        assert metrics.site_answers["kept"] == 1 and metrics.site_answers["user"] == 31
        assert b"s=29" not in repr(site._known).encode(), "no cookie is kept, only a keyed hash"
        await asker.close()


async def test_who_is_known_stays_no_longer_than_is_said() -> None:
    """A site that does not come back is no reason to let people in for ever."""
    async with RealSite() as real:
        real.answer = json_of({"user": {"id": 7}})
        asker = Asker(4)
        site = Site(asker, Settings(site_url=real.url, site_cache_s=0, site_stale_s=0), Metrics(), real.url)
        await site.grant(visitor("s"))
        await real.close()
        with pytest.raises(Denied) as denied:
            await site.grant(visitor("s"))
        assert denied.value.reason == "site"
        await asker.close()


async def test_who_has_no_name_at_the_site_is_called_by_their_id() -> None:
    """Django's get_full_name() of somebody who gave none is empty: no reason to keep them out."""
    async with RealSite() as real:
        asker = Asker(4)
        site = Site(asker, Settings(site_url=real.url, site_cache_s=0), Metrics(), real.url)
        for name in (None, ""):
            real.answer = json_of({"user": {"id": 7, "name": name}})
            assert (await site.grant(visitor(f"s={name}"))).user.name == "7"
        await asker.close()


async def test_one_client_keeps_no_breaker_open() -> None:
    """Whoever asks while it is open, again and again, with a cookie on which the site stumbles, takes nobody's turn."""
    async with RealSite() as real:
        real.answer = text_of("", 503)
        asker = Asker(4)
        site = Site(asker, Settings(site_url=real.url, site_cache_s=0), Metrics(), real.url)

        async def denied(cookie: str) -> bool:
            try:
                await site.grant(visitor(cookie))
            except Denied:
                return True
            return False

        assert [await denied(f"s={n}") for n in range(FAILURES_MAX)] == [True] * FAILURES_MAX
        assert await denied("s"), "it is left in peace"
        asked, real.answer = len(real.asked), json_of({}, 500)

        async def let_through() -> bool:
            assert await denied("odd")
            return len(real.asked) > asked

        await until(let_through, "it is asked again")
        real.answer = json_of({"user": {"id": 7}})
        assert not await denied("s")
        await asker.close()


def test_a_breaker_opens_after_failures_in_a_row_and_tries_again() -> None:
    """One that succeeds between them begins the count anew; one trial at a time, and its failure waits again."""
    breaker = Breaker(3, 2.0)
    for _ in range(2):
        assert breaker.may_ask(0.0) and not breaker.failed(0.0)
    assert not breaker.succeeded()
    assert [breaker.failed(1.0) for _ in range(3)] == [False, False, True]
    assert not breaker.may_ask(2.9) and breaker.may_ask(3.0) and not breaker.may_ask(3.1)
    assert not breaker.failed(3.5), "it was open already"
    assert not breaker.may_ask(5.4) and breaker.may_ask(5.5)
    assert breaker.succeeded() and breaker.may_ask(5.6) and breaker.may_ask(5.6)
