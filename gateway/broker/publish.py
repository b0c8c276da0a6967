"""What is on its way into a log, what it must follow to be appended, and why it may be refused."""

from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple

from gateway.broker.connection import Arg
from gateway.broker.errors import Fault, fault_of
from gateway.core.wires import Ref


class Refusal(Enum):
    """Why a publish has no id, as the client is told it."""

    TIMEOUT = "the broker was away too long; the message was withdrawn and will never appear"
    UNKNOWN = "the connection to the broker broke; the message may or may not appear"
    REFUSED = "the broker refused the message; it will never appear"
    FULL = "the broker's memory is full; the message will never appear"
    DISK = "the broker cannot write to its disk; the message will never appear"
    REPLICAS = "the broker has too few replicas; the message will never appear"

    @property
    def code(self) -> str:
        """The wire's error code (docs/protocol.md), and the metric's label."""
        return self.name.lower() if self in (Refusal.TIMEOUT, Refusal.UNKNOWN) else "refused"

    @property
    def reason(self) -> str:
        """Without what it means for the message."""
        return self.value.partition(";")[0]

    @property
    def passing(self) -> bool:
        """Whether nothing is wrong with the road or with what was asked: it ends when the server has what it lacks."""
        return self in PASSING.values()


# By reply code: a server that stands and answers, and takes nothing from anybody for a time.
PASSING = {"OOM": Refusal.FULL, "MISCONF": Refusal.DISK, "NOREPLICAS": Refusal.REPLICAS}


def refusal_of(code: str) -> Refusal:
    """By reply code."""
    if fault_of(code) is Fault.FORGOTTEN:
        return Refusal.UNKNOWN
    return PASSING.get(code, Refusal.REFUSED)


# The id as bytes, or why there is none; then the publisher's own ref, given back.
Answer = Callable[[bytes | Refusal, Ref], None]


class Publish:
    """One message on its way into the log."""

    __slots__ = ("answer", "deadline", "key", "message", "offered_at", "ref", "sender", "user")

    def __init__(
        self,
        key: bytes,
        sender: str,
        user: bytes,
        message: bytes,
        ref: Ref,
        answer: Answer,
        now: float,
        timeout_s: float,
    ) -> None:
        self.key = key
        self.sender = sender
        self.user = user
        self.message = message
        self.ref = ref
        # None once answered: a publish told `unknown` may still be under way.
        self.answer: Answer | None = answer
        self.offered_at = now
        self.deadline = now + timeout_s

    def settle(self, outcome: bytes | Refusal) -> None:
        """Answer, once."""
        answer, self.answer = self.answer, None
        if answer is not None:
            answer(outcome, self.ref)


class KeyedCondition(NamedTuple):
    """A bundle's condition as the script has it, by the keys under which the broker keeps what it must follow."""

    # How long the broker knows it, s.
    kept_s: int
    # Where it keeps how far the producer is; empty: there is none. Epoch, and number within it: 0, 1, 2 … Or where it
    # keeps what a request appended: that one's mark, and `-`.
    producer: bytes = b""
    epoch: int | str = 0
    seq: int | str = 0
    # Where it keeps the room's last Stream-Seq; empty: there is none here.
    sequences: bytes = b""
    sequence: bytes = b""


class Bundle(Publish):
    """Several messages that go into one log together, all or none. `message`: what they came in, for its size."""

    __slots__ = ("condition", "messages")

    messages: Sequence[bytes]
    condition: KeyedCondition

    def arguments(self, index: Callable[[bytes], int]) -> tuple[Arg, ...]:
        """As publish.lua has them. `index`: of a key among those of the call."""
        kept_s, producer, epoch, seq, sequences, sequence = self.condition
        by: tuple[Arg, ...] = (index(producer) if producer else 0, epoch, seq)
        behind: tuple[Arg, ...] = (index(sequences) if sequences else 0, sequence)
        head: tuple[Arg, ...] = ("*", index(self.key), self.sender, self.user)
        return (*head, *by, *behind, kept_s, len(self.messages), *self.messages)
