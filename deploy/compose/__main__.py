"""`make compose-test`: brings docker-compose.yml up, tries all that it promises, takes it down. Half an hour.

Under a project name of its own, so that nobody's data is touched; its ports must be free. Exit codes: 0 done, or there
is no engine here (1 where CI is set); 1 something did not hold.
"""

import asyncio
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence

from deploy.compose import alarms, trials
from deploy.compose.engine import compose, missing
from deploy.compose.trials import Trial, Untried

ALL = (*trials.ALL, alarms.every_alarm, alarms.certificates)


def main(names: Sequence[str]) -> int:
    """All trials, or those that are named."""
    if reason := missing():
        print(f"compose-test: {reason}: nothing was tried", file=sys.stderr)
        return 1 if os.environ.get("CI") else 0
    chosen = [trial for trial in ALL if not names or trial.__name__ in names]
    try:
        compose("up", "--build", "--detach", "--wait")
        held = sum(_holds(trial) for trial in chosen)
    except (subprocess.CalledProcessError, AssertionError) as exc:
        print(f"compose-test: {str(exc) or traceback.format_exc()}", file=sys.stderr)
        compose("logs", "--tail", "50")
        return 1
    finally:
        # A load test that was not waited for, too.
        compose("--profile", "loadtest", "down", "--volumes")
    print(f"compose-test: {held} of {len(ALL)} trials, and all of them held")
    return 0


def _holds(trial: Trial) -> bool:
    """False: it could not be tried, and why was said. Raises AssertionError, CalledProcessError: it does not."""
    began = time.monotonic()
    print(f"compose-test: {trial.__doc__} …", end="", flush=True)
    try:
        asyncio.run(trial())
    except Untried as exc:
        print(f" NOT TRIED: {exc}", flush=True)
        return False
    print(f" {time.monotonic() - began:.0f} s", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
