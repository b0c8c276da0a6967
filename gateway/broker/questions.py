"""What one node asks all others, of what only they know: who is connected to them, how loaded they are.

A question goes over the doorbell's connection, an answer into a hash of its own that expires: nothing of it is kept,
and a node that is not heard within the time is named as silent. Only people and servers ask so, never the road of a
message.
"""

import asyncio
import secrets
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from gateway.broker import refusals
from gateway.broker.connection import Arg
from gateway.broker.doorbell import Doorbell
from gateway.broker.errors import BrokerGone, BrokerRefused
from gateway.broker.keys import Keys
from gateway.broker.lane import Lane
from gateway.broker.script import Script

# Whoever has not answered by then does not in time.
WITHIN_S = 1.0
LOOK_EVERY_S = 0.02
ANSWERS_KEPT_S = 10
# Questions that one node answers at once; more are left unanswered, and their askers hear less.
ANSWERING_MAX = 16


class Question(msgspec.Struct, frozen=True):
    """`kind` says who answers; `of` what about."""

    id: str
    kind: str
    of: str = ""


class Answers(NamedTuple):
    """By node, in JSON; and which nodes live and said nothing."""

    by_node: dict[str, bytes]
    silent: list[str]


class Questions:
    """This node's asking, and its answers. Errors: BrokerGone, BrokerRefused."""

    def __init__(self, node: str, keys: Keys, doorbell: Doorbell, lane: Lane) -> None:
        self._node = node
        self._keys = keys
        self._doorbell = doorbell
        self._lane = lane
        self._script = Script("ask", lane)
        # By kind of question: what this node says, as msgspec encodes it.
        self.says: dict[str, Callable[[str], Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def listen(self) -> None:
        """From now on this node hears questions."""
        self._doorbell.listen([self._keys.channel(self._keys.questions)])

    async def ask(self, kind: str, of: str = "") -> Answers:
        """What all nodes say, this one too."""
        question = Question(secrets.token_hex(8), kind, of)
        key = self._keys.answers(question.id)
        bell = msgspec.json.encode(question)
        alive = {name.decode(errors="replace") for name in await self._alive(bell)}
        found: dict[str, bytes] = {}
        loop = asyncio.get_running_loop()
        deadline = loop.time() + WITHIN_S
        while not alive <= found.keys() and loop.time() < deadline:
            await asyncio.sleep(LOOK_EVERY_S)
            raw = await self._lane.ask_master("HGETALL", key)
            found = {node.decode(errors="replace"): answer for node, answer in raw.items()}
        return Answers(found, sorted(alive - found.keys()))

    async def _alive(self, bell: bytes) -> list[bytes]:
        """The nodes that are registered as the question goes out."""
        keys = (self._keys.questions, self._keys.nodes)
        nodes: list[bytes] = await self._script.ask(keys, self._keys.channel_tail, bell)
        return nodes

    def ring(self, key: bytes, bell: bytes) -> None:
        """Somebody asks, or says so."""
        if key != self._keys.questions:
            return
        try:
            question = msgspec.json.decode(bell, type=Question)
        except msgspec.MsgspecError:
            refusals.puzzle("question", key, bell)
            return
        if question.kind in self.says and len(self._tasks) < ANSWERING_MAX:
            task = asyncio.create_task(self._answer(question), name="answer")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, question: Question) -> None:
        answer = msgspec.json.encode(self.says[question.kind](question.of))
        key = self._keys.answers(question.id)
        commands: list[tuple[Arg, ...]] = [("HSET", key, self._node, answer), ("EXPIRE", key, ANSWERS_KEPT_S)]
        try:
            await self._lane.ask_master_all(commands)
        except BrokerGone:  # who asked names us as silent
            pass
        except BrokerRefused as exc:
            refusals.tell(str(exc))
