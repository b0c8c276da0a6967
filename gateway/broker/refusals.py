"""What the broker refuses, told once a minute at most: what is refused comes again with every probe, or every entry.

A denial of the ACL is told with the rule that is missing. What a refusal means to us is in errors.py.
"""

import time

import structlog

from gateway.broker.errors import missing_rule

# Seconds between two lines about the same thing.
RETOLD_S = 60.0

log = structlog.get_logger()

# By the rule or the code: when it was told. Bounded by the rules and codes that there are.
_told: dict[str, float] = {}


def tell(text: str) -> None:
    """Log an error reply, unless one of its kind was logged within the last RETOLD_S."""
    rule = missing_rule(text)
    kind = rule or text.partition(" ")[0]
    if time.monotonic() - _told.get(kind, float("-inf")) < RETOLD_S:
        return
    _told[kind] = time.monotonic()
    if rule is None:
        log.error("the broker refused a command", error=text)
    else:
        log.error("the broker's ACL refused a command", missing=rule, error=text, mend="hiroba broker apply")
