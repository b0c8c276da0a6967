"""What the broker refuses or holds that is not ours, told once a minute at most: it comes again with every entry.

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
    if not _due(rule or text.partition(" ")[0]):
        return
    if rule is None:
        log.error("the broker refused a command", error=text)
    else:
        log.error("the broker's ACL refused a command", missing=rule, error=text, mend="hiroba broker apply")


def complain(text: str) -> None:
    """Log what is wrong with the server though it refused nothing."""
    if _due(text):
        log.warning("the broker is not as it should be", why=text)


def puzzle(what: str, key: bytes, found: bytes) -> None:
    """Log something that nobody of ours wrote, unless something of its kind was within the last RETOLD_S."""
    if _due(what):
        log.error("nonsense on the broker", what=what, key=_text(key), found=_text(found))


def _text(raw: bytes) -> str:
    return raw[:100].decode(errors="backslashreplace")


def _due(kind: str) -> bool:
    if time.monotonic() - _told.get(kind, float("-inf")) < RETOLD_S:
        return False
    _told[kind] = time.monotonic()
    return True
