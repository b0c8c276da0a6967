"""Limits: each has a number, a word for being full, and lets everybody else go on."""

from tests.conftest import NodeFactory
from tests.node.conftest import redis_only
from tests.support.broker import Broker
from tests.support.client import Crowd
from tests.support.node import Node
from tests.support.raw import PING, PONG, frame, frames_in, handshake
from tests.support.until import until

pytestmark = redis_only


async def reaches(node: Node, metric: str, value: float, **labels: str) -> None:
    async def reached() -> bool:
        return await node.metric(metric, **labels) == value

    await until(reached, f"{metric} is {value:g}")


async def test_connections_max(start_node: NodeFactory, crowd: Crowd) -> None:
    node = await start_node(connections_max=3)
    clients = [await crowd.join(node, f"r{n}") for n in range(3)]
    status, headers = await crowd.refused(node, "r0")
    assert (status, int(headers["Retry-After"]) > 0) == (503, True)  # type: ignore[index,call-overload]
    assert await node.get("/readyz", ops=True) == (503, "connections_max is reached\n")
    assert (await node.get("/chat/"))[0] == 200
    await clients[0].leave()
    await node.wait_ready()
    await crowd.join(node, "r0")
    assert await node.metric("hiroba_handshakes_refused_total", reason="connections") == 1


async def test_rooms_max(start_node: NodeFactory, crowd: Crowd) -> None:
    node = await start_node(rooms_max=2, linger_s=0.1)
    first, _ = await crowd.join(node, "one"), await crowd.join(node, "two")
    status, headers = await crowd.refused(node, "three")
    assert (status, "Retry-After" in headers) == (503, True)  # type: ignore[operator]
    await crowd.join(node, "two")
    await first.leave()
    await reaches(node, "hiroba_rooms", 1)
    await crowd.join(node, "three")


async def test_room_name_chars_max(start_node: NodeFactory, crowd: Crowd) -> None:
    """On the WebSocket and on the page."""
    node = await start_node(room_name_chars_max=5)
    await crowd.join(node, "五文字の室")
    assert (await crowd.refused(node, "六文字の部屋"))[0] == 404
    assert (await node.get("/chat/五文字の室/"))[0] == 200
    assert (await node.get("/chat/六文字の部屋/"))[0] == 404


async def test_the_publish_window_stops_reading_the_socket(
    broker: Broker, start_node: NodeFactory, crowd: Crowd
) -> None:
    """With a frozen broker four are in flight; the rest stays in the client's socket, none is lost."""
    node = await start_node(messages_per_s=0, publish_window=4, publish_timeout_s=60, probe_s=60)
    client, other = await crowd.join(node, "r"), await crowd.join(node, "r")
    broker.pause()
    for n in range(50):
        await client.say(n)
    await reaches(node, "hiroba_publish_window_full_total", 1)
    await other.say("also")
    await reaches(node, "hiroba_messages_received_total", 5)
    broker.cont()
    await client.until(lambda: len(client.messages) == 51, "everything")
    assert [message for message in client.messages if message != "also"] == list(range(50))


async def test_a_full_publish_queue_holds_everybody_back_and_loses_nothing(
    broker: Broker, start_node: NodeFactory, crowd: Crowd
) -> None:
    node = await start_node(messages_per_s=0, publish_queue_entries_max=20, publish_timeout_s=60, probe_s=60)
    clients = [await crowd.join(node, "r") for _ in range(8)]
    broker.pause()
    for number, client in enumerate(clients):
        for n in range(20):
            await client.say([number, n])

    async def full() -> bool:
        return await node.metric("hiroba_publish_queue_full_total") > 0

    await until(full, "the queue is full")
    # Twice the bound and one of each session: what waits, and what the call under way took from it.
    assert await node.metric("hiroba_publish_queue_entries") <= 2 * (20 + 8)
    broker.cont()
    for client in clients:
        await client.until(lambda client=client: len(client.messages) == 160, "everything")
        assert client.messages == clients[0].messages
    for number in range(8):
        assert [n for who, n in clients[0].messages if who == number] == list(range(20))


async def test_a_loud_session_waits_behind_itself(broker: Broker, start_node: NodeFactory, crowd: Crowd) -> None:
    """The broker stands still while three fill their windows with long letters: one word of another session, said
    last, goes before nearly all of them. Whoever is loud finds the queue full, and the others do not."""
    node = await start_node(messages_per_s=0, publish_timeout_s=60, probe_s=60, linger_s=60)
    loud = [await crowd.join(node, "r", "plain") for _ in range(3)]
    quiet = await crowd.join(node, "r")
    broker.pause()
    for number, client in enumerate(loud):
        for n in range(40):
            await client.say([number, n, "x" * 60_000])
    await reaches(node, "hiroba_publish_window_full_total", 3)
    await quiet.say("a word")
    await reaches(node, "hiroba_messages_received_total", 3 * 32 + 1)
    broker.cont()
    await quiet.until(lambda: len(quiet.messages) == 121, "everything")
    heard = quiet.messages
    # Before it: the call that was under way, and what shared its own.
    assert heard.index("a word") < 40
    for number in range(3):
        assert [n for who, n, _ in (m for m in heard if m != "a word") if who == number] == list(range(40))


async def test_publish_timeout_with_a_frozen_broker(broker: Broker, start_node: NodeFactory, crowd: Crowd) -> None:
    """v1 hears which message will never appear and which one may; plain is closed 1013. What was told holds."""
    node = await start_node(publish_timeout_s=1, probe_s=60, messages_per_s=0)
    ann, old = await crowd.join(node, "r"), await crowd.join(node, "r", "plain")
    broker.pause()
    for n in range(5):
        await ann.say(n, ref=n)
        await reaches(node, "hiroba_messages_received_total", n + 1)
    await old.say("old")
    codes = [(await ann.answer(n))["code"] for n in range(5)]
    # The call under way carried the first message, or a probe.
    assert codes[1:] == ["timeout"] * 4
    assert codes[0] in ("unknown", "timeout")
    assert await old.closed() == (1013, "the broker did not answer in time, try again later")
    assert ann.close_code is None
    broker.cont()
    await ann.say("after", ref="after")
    assert (await ann.answer("after"))["type"] == "ack"
    await ann.until(lambda: "after" in ann.messages, "what is said later")
    assert ann.messages in (["after"], [0, "after"])
    assert await node.metric("hiroba_publishes_refused_total", reason="timeout") >= 5


async def test_a_handshake_without_a_cursor_is_503(broker: Broker, start_node: NodeFactory, crowd: Crowd) -> None:
    node = await start_node(handshake_timeout_s=0.5, probe_s=60)
    broker.pause()
    status, headers = await crowd.refused(node, "r")
    assert (status, "Retry-After" in headers) == (503, True)  # type: ignore[operator]
    assert await node.metric("hiroba_handshakes_refused_total", reason="broker") == 1
    broker.cont()
    client = await crowd.join(node, "r")
    await client.say("x")
    await client.hears("x")


async def test_who_connects_and_asks_for_nothing_is_cut_off(start_node: NodeFactory, crowd: Crowd) -> None:
    """Not a byte, half a head, a head that comes byte by byte: none of them holds a descriptor for ever."""
    node = await start_node(handshake_timeout_s=1.5)
    member = await crowd.member(node, "r")
    visitor = await crowd.connect(node)
    assert await visitor.ask(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n") == 200
    silent, half, slow = [await crowd.connect(node) for _ in range(3)]
    half.write(handshake("r")[:-2])
    drip = iter(handshake("r"))

    def drip_and_look() -> bool:
        if not slow.over.done():
            slow.write(bytes([next(drip)]))
        return all(raw.over.done() for raw in (silent, half, slow))

    await until(drip_and_look, "they are cut off", every_s=0.1)
    assert silent.head == half.head == slow.head == b""
    await reaches(node, "hiroba_connections_silent_total", 3)
    assert not member.over.done() and not visitor.over.done()
    await crowd.join(node, "r")


async def test_who_asks_and_takes_no_answer_is_cut_off(start_node: NodeFactory, crowd: Crowd) -> None:
    """Requests in one go and nothing read: what waits for it is bounded, and not kept for ever."""
    node = await start_node(handshake_timeout_s=1.5)
    greedy = await crowd.connect(node, receive_bytes=4096)
    greedy.transport.pause_reading()
    greedy.write(b"GET /chat/ HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3_000)
    await reaches(node, "hiroba_connections_silent_total", 1)
    greedy.transport.resume_reading()
    await until(greedy.over.done, "it is cut off")


async def test_quiet_connections_are_pinged_and_dead_ones_closed(start_node: NodeFactory, crowd: Crowd) -> None:
    node = await start_node(ping_s=2, close_s=0.5)
    dead = [await crowd.member(node, "r", v1=v1) for v1 in (False, True)]
    alive = [await crowd.member(node, "r", v1=v1) for v1 in (False, True)]
    answered = dict.fromkeys(alive, 0)

    def answer_and_look() -> bool:
        for raw in alive:
            pings = [payload for opcode, payload in frames_in(raw.data) if opcode == PING]
            for payload in pings[answered[raw] :]:
                raw.write(frame(payload, opcode=PONG))
            answered[raw] = len(pings)
        return all(raw.over.done() for raw in dead) and min(answered.values()) >= 2

    await until(answer_and_look, "the dead are gone, the others are pinged again", within_s=40)
    for raw in dead:
        assert [opcode for opcode, _ in frames_in(raw.data)].count(PING) == 1
    assert not any(raw.over.done() for raw in alive)
    await reaches(node, "hiroba_closes_total", 2, reason="dead")
    assert await node.metric("hiroba_connections") == 2
