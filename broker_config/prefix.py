"""What the keys of one installation begin with, on a server that others use too."""

import re

DEFAULT = "hiroba"

# It stands before a `{partition}` and in ACL patterns: no braces there, and nothing that is a pattern.
_WORD = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


def check_key_prefix(prefix: str) -> str:
    """`prefix` unchanged, or ValueError in words."""
    if not _WORD.fullmatch(prefix) or prefix.endswith(":"):
        raise ValueError(
            "is no prefix of keys: 1 to 64 letters, digits, '_', '-', '.' and ':', without a ':' at the end"
        )
    return prefix
