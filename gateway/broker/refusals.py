"""What the broker refuses, told once a minute at most: what is refused comes again with every probe, or every entry.

A denial of the ACL is told with the rule that is missing. What a refusal means to us is in errors.py.
"""

import re
import time

import structlog

import broker_config

# Seconds between two lines about the same thing.
RETOLD_S = 60.0

log = structlog.get_logger()

_COMMAND = re.compile(r"run the '([\w|]+)' command")
_KEY = re.compile(r"access (?:a key|(?:at least )?one of the keys)")
_CHANNEL = re.compile(r"access (?:a channel|(?:at least )?one of the channels)")
# Redis 7.0 does not say which.
_IN_SCRIPT = re.compile(r"executing the script can't run this command")


def _rules_of_scripts() -> str:
    sources = (broker_config.script(name) for name in ("publish", "heartbeat"))
    called = {name.lower() for source in sources for name in re.findall(r"redis\.p?call\('(\w+)'", source)}
    return " ".join(f"+{command}" for command in sorted(called))


# Read here: when they are told, the loop runs, and a read would hold it up.
_SCRIPT_RULES = _rules_of_scripts()

# By the rule or the code: when it was told. Bounded by the rules and codes that there are.
_told: dict[str, float] = {}


def missing_rule(text: str) -> str | None:
    """The ACL rule without which the broker answered so; None: that was not its reason."""
    command = _COMMAND.search(text)
    if command:
        return f"+{command[1]}"
    if _KEY.search(text):
        return "~hiroba:*"
    if _CHANNEL.search(text):
        return "&hiroba:*"
    return f"one of {_SCRIPT_RULES}" if _IN_SCRIPT.search(text) else None


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
