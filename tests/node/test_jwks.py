"""Keys at a URL: exchanged, withdrawn, gone, wrong; and how often somebody can make a node ask."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.auth import jwks
from gateway.auth.denied import Denied
from gateway.auth.jwks import Jwks
from gateway.site.asking import Asker
from tests.conftest import NodeFactory
from tests.node.conftest import redis_only
from tests.support.client import Crowd
from tests.support.node import Node
from tests.support.site import Site, endless, hang, json_of, text_of
from tests.support.tokens import PRIVATE, SECRET, forged, public_jwk, token
from tests.support.until import until

SECOND = ec.generate_private_key(ec.SECP256R1())
OLD = public_jwk(PRIVATE["ES256"], "ES256", "old")
NEW = public_jwk(SECOND, "ES256", "new")


def old() -> dict[str, str]:
    return {"Authorization": f"Bearer {token('ES256', kid='old')}"}


def new() -> dict[str, str]:
    return {"Authorization": f"Bearer {token('ES256', key=SECOND, kid='new')}"}


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with Site() as site:
        site.answer = json_of({"keys": [OLD]})
        yield site


async def on(start_node: NodeFactory, site: Site, **settings: Any) -> Node:
    return await start_node(token_jwks_url=site.url, token_jwks_timeout_s=0.5, **settings)


@redis_only
async def test_a_key_that_is_exchanged_is_found_by_its_kid(start_node: NodeFactory, site: Site, crowd: Crowd) -> None:
    """Without a restart, and without one question more than the two that it takes."""
    node = await on(start_node, site)
    assert not site.asked, "nobody needed a key yet"
    await asyncio.gather(*(crowd.join(node, "r", headers=old()) for _ in range(20)))
    assert len(site.asked) == 1
    site.answer = json_of({"keys": [OLD, NEW]})
    await until(lambda: _let_in(crowd, node, new()), "the new key is found", 15, every_s=0.3)
    assert len(site.asked) == 2
    await crowd.join(node, "r", headers=old())


async def _let_in(crowd: Crowd, node: Node, headers: dict[str, str]) -> bool:
    try:
        await crowd.join(node, "r", headers=headers)
    except Exception:
        return False
    return True


@redis_only
async def test_a_key_that_is_withdrawn_counts_no_more(start_node: NodeFactory, site: Site, crowd: Crowd) -> None:
    """Once what was cached is `token_jwks_cache_s` old; to which the least between two questions comes."""
    node = await on(start_node, site, token_jwks_cache_s=0.2)
    await crowd.join(node, "r", headers=old())
    site.answer = json_of({"keys": [NEW]})

    async def withdrawn() -> bool:
        return not await _let_in(crowd, node, old())

    await until(withdrawn, "the old key counts no more", 15, every_s=0.3)


@redis_only
async def test_nobody_can_make_a_node_ask_again_and_again(start_node: NodeFactory, site: Site, crowd: Crowd) -> None:
    """A `kid` is anybody's invention."""
    node = await on(start_node, site)
    await crowd.join(node, "r", headers=old())
    for n in range(50):
        said = forged({"alg": "ES256", "kid": f"k{n}"}, {"sub": "7"})
        assert (await crowd.refused(node, "r", headers={"Authorization": f"Bearer {said}"}))[0] == 401
    assert len(site.asked) <= 2


@redis_only
async def test_while_the_url_is_silent_known_keys_stay(start_node: NodeFactory, site: Site, crowd: Crowd) -> None:
    """And one line says so, not one for each question."""
    node = await on(start_node, site, token_jwks_cache_s=0.01)
    await crowd.join(node, "r", headers=old())
    await site.close()
    for _ in range(5):
        await crowd.join(node, "r", headers=old())
    assert sum("token_jwks_url" in line for line in node.lines()) <= 1


FAULTS = {
    "silent": hang,
    "endless": endless,
    "500": json_of({"keys": [OLD]}, 500),
    "redirecting": text_of("", 302, Location="http://127.0.0.1:1/"),
    "no JSON": text_of("<html>"),
    "deep JSON": text_of("[" * 50_000),
    "no set": json_of([]),
    "empty": json_of({"keys": []}),
    "nonsense": json_of({"keys": [None, 7, {"kty": "EC"}, {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}]}),
    "publishes a secret": json_of({"keys": [{"kty": "oct", "k": "eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4"}]}),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_what_is_no_set_of_public_keys_is_none(site: Site, fault: str) -> None:
    """Within the budget, and whatever is answered."""
    site.answer = FAULTS[fault]
    asker = Asker(1)
    try:
        with pytest.raises(Denied) as denied:
            await Jwks(asker, site.url, 60, 0.3).keys()
        assert denied.value.reason == "keys"
    finally:
        await asker.close()


@redis_only
async def test_without_a_key_nobody_comes_in(start_node: NodeFactory, site: Site, crowd: Crowd) -> None:
    """503 and when to come again; who has another key's token is not touched by it."""
    site.answer = hang
    node = await on(start_node, site, token_keys=f"HS256:{SECRET}")
    status, headers = await crowd.refused(node, "r", headers=old())
    assert (status, headers["Retry-After"]) == (503, "2")  # type: ignore[call-overload, index]
    assert await node.metric("hiroba_handshakes_refused_total", reason="keys") == 1
    await crowd.join(node, "r", headers={"Authorization": f"Bearer {token()}"})
    assert len([line for line in node.lines() if "can't be had" in line]) == 1


async def test_a_url_that_hangs_holds_nobody_up_for_longer_than_one_question(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many come meanwhile: not one question each, one behind the other. And who may go on by keys that are
    known waits only the first time."""
    monkeypatch.setattr(jwks, "ASK_AGAIN_S", 0)
    asker = Asker(1)
    keys = Jwks(asker, site.url, 0.0, 0.5)

    async def took_s(*, missing: bool = False) -> float:
        began_at = time.monotonic()
        await asyncio.gather(*(keys.keys(missing=missing) for _ in range(20)))
        return time.monotonic() - began_at

    try:
        await keys.keys()
        site.answer = hang
        assert 0.4 < await took_s() < 5.0, "one after the other they take 10 s"
        assert await took_s() < 0.4, "these keys are known: nobody waits for the question's end"
        assert await took_s(missing=True) < 5.0
        assert len(site.asked) == 3
    finally:
        await keys.close()
        await asker.close()
