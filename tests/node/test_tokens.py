"""Who comes with a token: every source, every algorithm, every refusal, over real HTTP; and no token in any log."""

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import aiohttp
import psutil
import pytest

from tests.conftest import NodeFactory
from tests.node.conftest import redis_only
from tests.support.client import Crowd
from tests.support.node import Node
from tests.support.tokens import KEYS, PRIVATE, SECRET, forged, public_pem, token
from tests.support.until import until

SETTINGS = {
    "token_keys": ",".join([f"HS256:{SECRET}", *map(public_pem, PRIVATE)]),
    "token_leeway_s": 2,
    "token_issuer": "site",
    "token_audience": "hiroba",
    "user_rights": "*=rw,closed=",
    "linger_s": 0.1,
}
OURS = {"iss": "site", "aud": "hiroba"}


def ours(algorithm: str = "HS256", **claims: Any) -> str:
    return token(algorithm, **{**OURS, **claims})


def bearer(said: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {said}"}


async def asked(
    node: Node, path: str = "/sse/chat/tokens/", headers: dict[str, str] | None = None
) -> tuple[int, str, Any]:
    """Status, text and headers of a door that refuses."""
    async with aiohttp.ClientSession() as http, http.get(node.url("").rstrip("/") + path, headers=headers) as answer:
        return answer.status, "" if answer.status == 200 else await answer.text(), answer.headers


# ---- who is let in ----


@pytest.mark.parametrize("algorithm", KEYS)
async def test_each_algorithm_lets_in_by_its_own_key(shared_node: Node, crowd: Crowd, algorithm: str) -> None:
    """All four at once, each found among several keys; and who it is stands in what others hear."""
    said = ours(algorithm, sub="7", name="Ann 安", info={"team": 3}, jti="j1")
    ann = await crowd.join(shared_node, "alg", headers=bearer(said))
    welcome = await ann.welcome()
    assert welcome["user"] == {"id": "7", "name": "Ann 安"} and welcome["rights"] == "rw"
    assert abs(welcome["expires_at"] - time.time() - 3602) < 60
    bob = await crowd.join(shared_node, "alg", headers=bearer(ours(sub="8")))
    await ann.say("hello")
    await bob.hears("hello")
    (message,) = bob.of_type("message")
    assert message["user"] == {"id": "7", "name": "Ann 安"}
    page = await bob.ask("history", room="alg", limit=10, before=f"{2**50}-{2**50}")
    assert page["entries"][-1]["user"] == message["user"]


@pytest.mark.parametrize("source", ["header", "query", "subprotocol", "cookie"])
async def test_each_source_is_read(shared_node: Node, crowd: Crowd, source: str) -> None:
    """A browser's script can set no header for a WebSocket, so there are three more ways to bring one."""
    said = ours(name="Ann")
    headers = {"header": bearer(said), "cookie": {"Cookie": f'a="b;c"; hiroba_token={said}; z=1'}}.get(source)
    url = shared_node.ws_url("source", **({"token": said} if source == "query" else {}))
    protocols = ["hiroba.v1"] + ([f"hiroba.token.{said}"] if source == "subprotocol" else [])
    ws = await crowd.http.ws_connect(url, protocols=protocols, headers=headers)
    assert ws.protocol == "hiroba.v1", "the token's is never chosen: it would be echoed"
    assert json.loads((await ws.receive()).data)["user"] == {"id": "7", "name": "Ann"}
    await ws.close()


async def test_a_stream_takes_a_token_too(shared_node: Node) -> None:
    """An EventSource sets no header: a query or a cookie."""
    for path in ("/sse/chat/s/", "/streams/chat/s"):
        for query, headers in ((f"?token={ours()}", {}), ("", {"Cookie": f"hiroba_token={ours()}"})):
            assert (await asked(shared_node, path + query, headers))[0] == 200
        assert (await asked(shared_node, path))[0] == 401
        assert (await asked(shared_node, path.replace("chat/s", "chat/closed"), bearer(ours())))[0] == 403


async def test_a_head_tells_who_may_not_come_in_what_a_get_would(shared_node: Node) -> None:
    """Else a stranger is told that a stream is there for them, and of a token nothing."""
    for path in ("/sse/chat/s/", "/streams/chat/s"):
        closed = path.replace("chat/s", "chat/closed")
        for url, headers, status in ((path, {}, 401), (closed, bearer(ours()), 403), (path, bearer(ours()), 200)):
            async with aiohttp.ClientSession() as http, http.head(shared_node.url(url), headers=headers) as answer:
                assert answer.status == status, url


async def test_plain_goes_on_as_ever_and_is_told_no_user(shared_node: Node, crowd: Crowd) -> None:
    """The tutorial's page, with its site's cookie: what it hears has no key more."""
    old = await crowd.join(shared_node, "plain", "plain", headers={"Cookie": f"hiroba_token={ours()}"})
    await old.say("hi")
    await old.hears("hi")
    assert old.heard == [{"message": "hi"}]


@redis_only
async def test_plain_is_told_who_speaks_where_that_is_wished(start_node: NodeFactory, crowd: Crowd) -> None:
    """One key more beside the tutorial's, live and out of the log, in short frames and in compressed ones."""
    node = await start_node(plain_users=True, token_keys=f"HS256:{SECRET}", guests=True)
    old = await crowd.join(node, "r", "plain", headers=bearer(token(name="Ann")))
    guest = await crowd.join(node, "r", "plain")
    await old.say("hi")
    await guest.say("x" * 400)
    await old.hears("hi", "x" * 400)
    said = [{"message": "hi", "user": {"id": "7", "name": "Ann"}}, {"message": "x" * 400, "user": None}]
    assert old.heard == said
    ws = await crowd.http.ws_connect(node.ws_url("r", history=2), compress=15)
    assert ws.compress and [await ws.receive_json() for _ in said] == said
    await ws.close()


# ---- who is not ----


def key_confusion() -> str:
    """HS256 by the text of a public key, which everybody has."""
    head, claims = {"alg": "HS256", "typ": "JWT"}, {"sub": "7", "exp": time.time() + 60, **OURS}
    signed = forged(head, claims).rpartition(".")[0]
    signature = hmac.new(public_pem("RS256").encode(), signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


REFUSED = {
    "nothing": ("", "no_credentials"),
    "no JWT": ("hello", "token_malformed"),
    "half a JWT": (ours()[:-20].rpartition(".")[0], "token_malformed"),
    "deep JSON": (f"{base64.urlsafe_b64encode(b'[' * 3000).decode()}.e30.AA", "token_malformed"),
    "no algorithm": (forged({"typ": "JWT"}, {"sub": "7", "exp": 2**40}), "token_key"),
    "alg none": (forged({"alg": "none"}, {"sub": "7", "exp": 2**40, **OURS}), "token_key"),
    "alg None": (forged({"alg": "None"}, {"sub": "7", "exp": 2**40, **OURS}), "token_key"),
    "alg is a list": (forged({"alg": ["HS256"]}, {"sub": "7", "exp": 2**40}), "token_key"),
    "another HMAC": (token("HS256", key="x" * 40, **OURS), "token_signature"),
    "key confusion": (key_confusion(), "token_signature"),
    "a key of theirs in the head": (
        forged({"alg": "HS256", "jwk": {"kty": "oct", "k": "eHh4"}, "jku": "http://127.0.0.1:1/"}, {"sub": "7"}),
        "token_signature",
    ),
    "no signature": (forged({"alg": "RS256"}, {"sub": "7", "exp": 2**40, **OURS}), "token_signature"),
    "expired": (ours(exp=time.time() - 60), "token_expired"),
    "not yet": (ours(nbf=time.time() + 86_400), "token_early"),
    "made in the future": (ours(iat=time.time() + 86_400), "token_early"),
    "without exp": (ours(exp=None), "token_claims"),
    "exp is infinite": (ours(exp=float("inf")), "token_claims"),
    "exp is a text": (ours(exp="soon"), "token_claims"),
    "without sub": (ours(sub=None), "token_claims"),
    "sub is a number": (ours(sub=7), "token_claims"),
    "sub is a guest's": (ours(sub="guest:1"), "token_claims"),
    "name is a list": (ours(name=["Ann"]), "token_claims"),
    "too much info": (ours(info="x" * 2000), "token_claims"),
    "no such right": (ours(rooms={"*": "rx"}), "token_claims"),
    "another audience": (ours(aud="shop"), "token_audience"),
    "no audience": (ours(aud=None), "token_audience"),
    "another issuer": (ours(iss="shop"), "token_issuer"),
    "no issuer": (ours(iss=None), "token_issuer"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
async def test_each_refusal_has_its_reason(shared_node: Node, case: str) -> None:
    """Status, words, metric and log line; the words and the line never hold the token."""
    said, reason = REFUSED[case]
    before = await shared_node.metric("hiroba_handshakes_refused_total", reason=reason)
    status, text, headers = await asked(shared_node, headers=bearer(said) if said else None)
    assert status == 401 and headers["WWW-Authenticate"].startswith("Bearer"), (case, status, text)
    assert await shared_node.metric("hiroba_handshakes_refused_total", reason=reason) == before + 1, text
    line = json.loads(shared_node.lines()[-1])
    assert (line["step"], line["reason"], line["status"]) == ("REJECT", reason, 401)
    assert not said or (said not in text and said not in "".join(shared_node.lines()))


async def test_a_token_that_is_not_good_makes_nobody_a_guest(crowd: Crowd, start_node: Any) -> None:
    """Where guests may come as well: who says a name that is not theirs is refused."""
    node = await start_node(token_keys=f"HS256:{SECRET}", guests=True, guest_rights="lobby=r")
    guest = await crowd.join(node, "lobby")
    assert (await guest.welcome())["user"] is None and (await guest.welcome())["rights"] == "r"
    assert (await crowd.refused(node, "other"))[0] == 403
    assert (await crowd.refused(node, "lobby", headers=bearer(token(exp=1))))[0] == 401
    user = await crowd.join(node, "other", headers=bearer(token()))
    assert (await user.welcome())["user"] == {"id": "7", "name": "7"}


async def test_a_clock_that_is_a_little_off_is_forgiven(shared_node: Node, crowd: Crowd) -> None:
    """Two seconds are leeway here: `exp` one second ago, `nbf` and `iat` one second ahead."""
    now = time.time()
    ann = await crowd.join(shared_node, "skew", headers=bearer(ours(exp=now + 60, nbf=now + 1, iat=now + 1)))
    assert (await ann.welcome())["user"]["id"] == "7"
    status, _, _ = await asked(shared_node, headers=bearer(ours(exp=time.time() - 1)))
    assert status == 200


# ---- rights ----


async def test_without_the_right_to_read_a_room_is_closed(shared_node: Node, crowd: Crowd) -> None:
    """At the door and from inside, and its growth is not told either; a room that one may read is not touched by it."""
    said = bearer(ours(rooms={"team-*": "rw", "team-7": "", "news": "r"}))
    assert (await crowd.refused(shared_node, "team-7", headers=said))[0] == 403
    assert (await asked(shared_node, "/sse/chat/lobby/", said))[0] == 403
    ann = await crowd.join(shared_node, "team-8", headers=said)
    error = await ann.ask("join", room="team-7")
    assert (error["type"], error["code"], error["room"]) == ("error", "forbidden", "team-7")
    assert (await ann.ask("join", room="news"))["rights"] == "r"
    await ann.ask("watch", rooms=["team-8", "team-7", "lobby"])
    (error,) = [frame for frame in ann.of_type("error") if frame["room"] == "team-7" and "2 of these" in frame["text"]]
    assert error["code"] == "forbidden"
    (tops,) = ann.of_type("tops")
    assert tops["rooms"].keys() == {"team-8"}


async def test_without_the_right_to_write_one_only_listens(shared_node: Node, crowd: Crowd) -> None:
    """v1 is told, and stays; plain knows no such word, and is closed."""
    reader = bearer(ours(rooms={"*": "r"}))
    ann = await crowd.join(shared_node, "readers", headers=reader)
    await ann.say("no", ref=1)
    assert (await ann.answer(1))["code"] == "forbidden"
    old = await crowd.join(shared_node, "readers", "plain", headers=reader)
    await old.say("no")
    assert await old.closed() == (4403, "this user may not do that in this room")
    bob = await crowd.join(shared_node, "readers", headers=bearer(ours(sub="8")))
    await bob.say("yes")
    await ann.hears("yes")


async def test_what_is_written_by_http_is_the_users_too(shared_node: Node, crowd: Crowd) -> None:
    """A Durable Stream is another way to write: who may not is refused there as well."""
    ann = await crowd.join(shared_node, "posts", headers=bearer(ours(sub="8")))
    async with aiohttp.ClientSession() as http:
        for rights, status in (("rw", 204), ("r", 403), ("w", 403), ("", 403)):
            said = bearer(ours(name="Bob", rooms={"posts": rights}))
            async with http.post(shared_node.url("/streams/chat/posts"), json=rights, headers=said) as answer:
                assert answer.status == status, rights
    await ann.hears("rw")
    assert ann.of_type("message")[0]["user"] == {"id": "7", "name": "Bob"}


# ---- how it ends ----


async def test_who_has_expired_is_out(shared_node: Node, crowd: Crowd) -> None:
    """On either wire, and on a stream, when `exp` and the leeway have passed, without a word from them."""
    said = bearer(ours(exp=time.time() - 0.5))
    ann, old = (
        await crowd.join(shared_node, "out", headers=said),
        await crowd.join(shared_node, "out", "plain", headers=said),
    )
    async with aiohttp.ClientSession() as http, http.get(shared_node.url("/sse/chat/out/"), headers=said) as stream:
        assert await ann.closed() == (4001, "expired or revoked: come with a fresh token")
        assert (await old.closed())[0] == 4001
        await stream.read()  # until it ends
    assert (await crowd.refused(shared_node, "out", headers=said))[0] == 401


async def test_a_refresh_keeps_one_in_and_changes_what_one_may(shared_node: Node, crowd: Crowd) -> None:
    """Nothing is missed meanwhile; what the newer token does not allow ends at once."""
    ann = await crowd.join(shared_node, "fresh", headers=bearer(ours(exp=time.time() + 1)))
    await ann.ask("join", room="fresh-2")
    await ann.ask("watch", rooms=["fresh-2", "fresh"])
    exp = int(time.time()) + 3600
    answer = await ann.ask("refresh", token=ours(exp=exp, rooms={"fresh": "r"}))
    assert (answer["type"], answer["expires_at"]) == ("refreshed", exp + 2)
    assert [(frame["room"], frame["reason"]) for frame in ann.of_type("left")] == [("fresh-2", "forbidden")]
    assert (await ann.ask("message", room="fresh", message=1))["code"] == "forbidden"
    assert (await ann.ask("join", room="fresh-2"))["code"] == "forbidden"
    for type, fields, code in (
        ("message", {"message": 1}, "not_joined"),
        ("history", {"limit": 5}, "not_joined"),
        ("presence", {}, "not_joined"),
        ("read", {"id": "1-1"}, "not_joined"),
        ("watch", {"rooms": ["fresh-2"]}, "forbidden"),
    ):
        await ann.ws.send_json({"type": type, "room": "fresh-2", "ref": type, **fields})
        await ann.until(lambda type=type: [e for e in ann.of_type("error") if e["ref"] == type], f"no to {type}")
        assert [e["code"] for e in ann.of_type("error") if e["ref"] == type] == [code]
    bob = await crowd.join(shared_node, "fresh", headers=bearer(ours(sub="8")))
    await until(lambda: time.time() > (exp - 3600) + 4, "the first token's end")
    await bob.say("still there?")
    await ann.hears("still there?")


@pytest.mark.parametrize("said", [ours(sub="8"), ours(exp=1), "nonsense", ours() + "x"])
async def test_a_refresh_by_a_token_that_is_not_good_changes_nothing(
    shared_node: Node, crowd: Crowd, said: str
) -> None:
    """A connection can't become another user's, and a bad refresh is no way to stay, nor to be thrown out."""
    ann = await crowd.join(shared_node, "stale", headers=bearer(ours()))
    error = await ann.ask("refresh", token=said)
    assert (error["type"], error["code"]) == ("error", "token")
    await ann.say("here")
    await ann.hears("here")


# ---- secrets ----


async def test_no_secret_is_in_logs_metrics_or_the_process_list(shared_node: Node, crowd: Crowd) -> None:
    """After all that was tried above, and what a browser offers that speaks nothing of ours: no token, no key."""
    said = ours(name="searched for")
    for path in (f"/ws/chat/x/?token={said}", f"/sse/chat/x/?token={said}bad", f"/chat/?token={said}", f"/ws/{said}"):
        await asked(shared_node, path)
    ws = await crowd.http.ws_connect(shared_node.ws_url("x", token=said), protocols=[f"hiroba.token.{said}"])
    await ws.close()
    await until(lambda: any("DISCONNECT" in line for line in shared_node.lines()), "the line of the end")
    _, metrics = await shared_node.get("/metrics", ops=True)
    command = psutil.Process(shared_node.process.pid).cmdline()
    told = "\n".join((*shared_node.lines(), metrics, *command))
    assert SECRET not in told
    assert "eyJ" not in told.replace("eyJ***", "")
