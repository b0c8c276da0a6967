"""`python -m bench.held FILE node …`: the node, and at each SIGUSR2 what its Python objects hold is written to FILE.

The node itself has no code for this: it is run as it is, inside a Python that keeps account (tracemalloc).
"""

import runpy
import signal
import sys
import tracemalloc
from pathlib import Path
from types import FrameType


def main() -> None:
    """Become `python -m gateway` with the arguments behind FILE."""
    file = sys.argv.pop(1)

    def tell(_signal: int, _frame: FrameType | None) -> None:
        part = Path(f"{file}.part")
        tracemalloc.take_snapshot().dump(str(part))
        part.replace(file)  # whole, or not there

    signal.signal(signal.SIGUSR2, tell)
    tracemalloc.start()
    runpy.run_module("gateway", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
