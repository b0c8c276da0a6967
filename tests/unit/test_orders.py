"""What stands by the orders heard, held against a list of them all; and what no node may take for an order."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.orders import (
    KINDS,
    BadOrder,
    Issued,
    Kick,
    Order,
    Standing,
    Target,
    Token,
    decode,
    decode_target,
    encode,
)  # fmt: skip

USERS, ROOMS, TOKENS = ("ann", "bob"), ("lobby", "den"), ("t1", "t2")
targets = st.one_of(
    st.builds(Kick, st.sampled_from(USERS), st.sampled_from(("", *ROOMS))),
    st.builds(Token, st.sampled_from(TOKENS)),
    st.builds(Issued, st.sampled_from(("", *USERS)), st.sampled_from((10, 20))),
)
# Moments of a world that is 100 s old at most.
moments = st.integers(1, 100_000)
# Given one after the other.
orders = st.lists(st.tuples(targets, moments, st.booleans())).map(
    lambda told: [Order(target, until, given, lifted) for given, (target, until, lifted) in enumerate(told, 1)]
)


def standing_of(told: list[Order]) -> Standing:
    standing = Standing()
    for order in told:
        standing.take(order)
    return standing


def last(told: list[Order], target: Target) -> int:
    """Until when an order about this target stands; 0: none does."""
    order = next((order for order in reversed(told) if order.target == target), None)
    return 0 if order is None or order.lifted else order.until


@given(orders, st.sampled_from(USERS), st.sampled_from(ROOMS), moments)
def test_who_is_kicked_is_who_the_last_order_names(told: list[Order], user: str, room: str, now: int) -> None:
    standing = standing_of(told)
    everywhere, here = last(told, Kick(user)) > now, last(told, Kick(user, room)) > now
    assert standing.kicked(user, room, now) == (everywhere or here)
    assert standing.kicked(user, "", now) == everywhere


@given(orders, st.sampled_from(USERS), st.sampled_from((None, *TOKENS)), moments, moments)
def test_a_token_is_good_until_an_order_names_it_or_is_younger_than_it(
    told: list[Order], user: str, token: str | None, issued: int, now: int
) -> None:
    """Once those that ended are forgotten."""
    standing = standing_of(told)
    standing.end(now)
    named = token is not None and last(told, Token(token)) > now
    issues = [Issued(whose, life_s) for whose in ("", user) for life_s in (10, 20)]
    younger = any(last(told, one) > now and issued < last(told, one) - one.life_s * 1000 for one in issues)
    assert standing.revoked(user, token, issued, now) == (named or younger)
    assert len(standing) == sum(last(told, target) > now for target in {order.target for order in told})


@given(orders, st.sets(st.integers(0, 20)), st.randoms())
def test_whoever_reads_the_set_knows_the_later_of_two_orders_and_what_the_set_lacks(
    told: list[Order], unheard: set[int], chance: random.Random
) -> None:
    """Whatever it missed, and in whatever order the set has them."""
    heard = [order for at, order in enumerate(told) if at not in unheard]
    theirs = list(standing_of(told[: chance.randint(0, len(told))]).orders.values())
    chance.shuffle(theirs)
    standing = standing_of(heard)
    missing = standing.merge(theirs)
    both = {order.given: order for order in (*heard, *theirs)}
    newest = standing_of([both[given] for given in sorted(both)]).orders
    assert standing.orders == newest
    assert {order.target for order in missing} == {target for target, order in newest.items() if order not in theirs}


@given(st.builds(Order, targets, moments, moments, st.booleans(), st.text(), st.text()))
def test_an_order_comes_back_as_it_was_written(order: Order) -> None:
    assert decode(encode(order)) == order
    assert decode_target(encode(order.target)) == order.target


def test_targets_that_are_in_peoples_data() -> None:
    """The set of those that stand has them for members: spelled otherwise, none would be found again."""
    written = [encode(target) for target in (Kick("ann"), Kick("ann", "部屋"), Token("j"), Issued("ann", 60))]
    assert written == [
        b'["kick","ann",""]', '["kick","ann","部屋"]'.encode(), b'["token","j"]', b'["issued","ann",60]',
    ]  # fmt: skip
    assert set(KINDS.values()) == {"kick", "token", "issued"}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'{"target":["kick"],"until":1,"given":1}',
        b'{"target":["banish","ann"],"until":1,"given":1}',
    ],
)
def test_what_is_no_order_of_this_version(raw: bytes) -> None:
    with pytest.raises(BadOrder):
        decode(raw)
    with pytest.raises(BadOrder):
        decode_target(raw)
