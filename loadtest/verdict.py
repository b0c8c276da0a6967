"""Met, failed or invalid, and why: the first thing that a report says. Pure.

Invalid means that the run says nothing about the server: then no figure of it may be quoted as the server's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from loadtest.judge import Counts
from loadtest.thresholds import Threshold

MET, FAILED, INVALID = "met", "failed", "invalid"
EXIT_CODES = {MET: 0, FAILED: 99, INVALID: 98}
EXIT_ERROR = 1

# Above this share of a core a generator's own queue is part of every latency.
CPU_SHARE_MAX = 0.9
# Lateness of our own spoils a run from here on, if it is more than this part of the measured p99.
OWN_DELAY_MS_MIN = 50.0
OWN_DELAY_PART_MAX = 0.5

# What the server says when one of its settings was the limit, and which setting that is.
ADVICE = {
    "1008": "the server closes whoever goes on speaking too fast: raise messages_per_s (0 = no limit), or lower --rate",
    "1009": "the message was too long for the server: raise message_bytes_max, or lower --message-bytes",
    "1013": "the server's broker was away or too slow: look there, or raise publish_timeout_s",
    "4008": "the server gave up on readers that made no progress: raise stall_s, or read faster",
    "4009": "the server's log no longer held what a reader had not got: raise its retention",
    "429": "the balancer bounds the handshakes of one address: raise LB_ADDRESS_HANDSHAKES_MAX, or lower --spawn-rate",
    "503": "the server was full or not ready: raise connections_max, start more nodes, or see what its /readyz says",
    "too_many_rooms": "a connection may be in fewer rooms: raise rooms_per_connection_max, or lower"
    " --rooms-per-connection",
    "no TCP connection": "raise the server's backlog and file descriptors, or lower --spawn-rate",
}


@dataclass
class Outcome:
    """What a verdict is based on."""

    counts: Counts
    planned: int
    sent: int
    unsent: int
    not_begun: int  # actions that the generator did not get round to
    not_resumable: int  # connections of the plain wire that ended without a leave
    speaks: bool  # does the scenario have tasks?
    connected: int
    users: int
    never_in: int  # users that were to come and never got in
    latency_p99_ms: float | None
    cpu_share: float  # mean of the busiest worker
    lag_p99_ms: float | None
    slip_p99_ms: float | None
    refusals: Counter[str] = field(default_factory=Counter)
    closes: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    dead: Sequence[str] = ()
    interrupted: bool = False


@dataclass
class Verdict:
    verdict: str
    reasons: list[str]  # why it is not met
    notes: list[str]  # what a reader should know besides

    @property
    def headline(self) -> str:
        return f"{self.verdict.upper()}{': ' if self.reasons else ''}{'; '.join(self.reasons)}"


def reach(outcome: Outcome, thresholds: Sequence[Threshold], values: Mapping[str, float | None]) -> Verdict:
    failures = _violations(outcome.counts) + _not_done(outcome)
    failures += [threshold.told(values) for threshold in thresholds if threshold.crossed(values)]
    invalid = _invalid(outcome)
    notes = _notes(outcome)
    if invalid:
        # A loss stays a loss, whoever was too slow: it is said in the same breath.
        return Verdict(INVALID, invalid + failures, notes)
    return Verdict(FAILED if failures else MET, failures, notes)


def _violations(counts: Counts) -> list[str]:
    said = [
        f"{number:,} {word}"
        for word, number in (
            ("lost", counts.lost),
            ("doubled", counts.doubled),
            ("out of order", counts.reordered),
            ("from another room or run", counts.foreign),
        )
        if number
    ]
    return [f"of {counts.expected:,} deliveries {', '.join(said)}"] if said else []


def _not_done(outcome: Outcome) -> list[str]:
    failures = []
    if outcome.never_in and outcome.connected:
        failures.append(f"{outcome.never_in:,} of {outcome.users:,} users never got in")
    if outcome.unsent:
        failures.append(f"{outcome.unsent:,} messages could not be sent: no usable connection when they were due")
    return failures


def _invalid(outcome: Outcome) -> list[str]:
    invalid = list(outcome.dead)
    if not outcome.connected:
        why = f" ({outcome.refusals.most_common(1)[0][0]})" if outcome.refusals else ""
        return [*invalid, f"nobody was connected{why}"]
    if outcome.speaks and not outcome.sent:
        invalid.append("nothing was sent")
    if outcome.counts.invented:
        invalid.append(f"{outcome.counts.invented:,} messages arrived that nobody sent: more than expected")
    if outcome.cpu_share > CPU_SHARE_MAX:
        invalid.append(
            f"the generator used {outcome.cpu_share:.0%} of its core (limit {CPU_SHARE_MAX:.0%}):"
            " use more --processes or fewer users"
        )
    if outcome.not_begun and not outcome.interrupted:
        invalid.append(f"the generator never got round to {outcome.not_begun:,} planned actions")
    for what, own_ms in (
        ("event loop lagged", outcome.lag_p99_ms),
        ("schedule slipped", outcome.slip_p99_ms),
    ):
        if own_ms and own_ms > OWN_DELAY_MS_MIN and own_ms > OWN_DELAY_PART_MAX * (outcome.latency_p99_ms or 0.0):
            invalid.append(f"the generator's own {what} by {own_ms:.0f} ms (p99), more than half of the measured p99")
    return invalid


def _notes(outcome: Outcome) -> list[str]:
    notes = []
    counts = outcome.counts
    if outcome.interrupted:
        notes.append("stopped by hand before its time; what follows is what was measured until then")
    if counts.gaps:
        notes.append(f"the server told of {counts.gaps:,} missing deliveries by itself (gap): not counted as lost")
    if counts.unconfirmed:
        notes.append(
            f"{counts.unconfirmed:,} messages were under way on connections that broke and were never"
            " heard of: nobody can know whether they were accepted"
        )
    if outcome.not_resumable:
        notes.append(
            f"{outcome.not_resumable:,} connections broke or were cut on the wire plain, which is not resumable:"
            " what was said while those users were away is neither owed nor lost"
        )
    answers = outcome.closes + outcome.refusals
    for key, advice in ADVICE.items():
        times = sum(n for answer, n in answers.items() if answer.startswith(key) or answer.endswith(f" {key}"))
        if times:
            notes.append(f"{key} ({times:,} times): {advice}")
    notes += [f"{times:,} × error: {error}" for error, times in outcome.errors.most_common(5)]
    return notes
