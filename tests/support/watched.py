"""A node whose loop is watched: a call that would block it raises, and so is in the node's log (`FOUND`)."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from blockbuster import blockbuster_ctx

from gateway.cli import main

FOUND = "BlockingError"
# A node is put together before it serves anybody; what /proc shows is in memory; logs go to who reads them.
MAY = (
    ("gateway/node.py", {"__init__"}),
    ("gateway/telemetry/metrics.py", {"_gauges", "_resident_bytes"}),
    ("gateway/telemetry/logs.py", {"msg"}),
)


@contextmanager
def watching() -> Iterator[None]:
    """Inside, a blocking call of ours on the running loop raises."""
    with blockbuster_ctx("gateway") as watch:
        for function in watch.functions.values():
            for file, names in MAY:
                function.can_block_in(file, names)
        yield


if __name__ == "__main__":
    with watching():
        sys.exit(main())
