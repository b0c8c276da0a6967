"""`make profile` on the real thing: every part of it finds what it looks for."""

import os
import re
import subprocess
import sys

import pytest


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_profile_says_where_time_and_memory_go() -> None:
    if not {0, 1} <= os.sched_getaffinity(0):
        pytest.skip("the bench pins to cores 0 and 1")
    argv = [sys.executable, "-m", "bench.profile", "--rows", "1,8", "--seconds", "3"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    busy, idle = done.stdout.split("## Row 8")
    assert float(re.search(r"([\d.]+)  Room\._deliver_live \(", busy)[1]) > 20  # type: ignore[index]
    held = float(re.search(r"([\d.]+)  all of Python's objects", idle)[1])  # type: ignore[index]
    assert 1_000 < held < 16_384
    assert re.search(r"edge/ws\.py:\d+\n", idle), "where its connection was made"


def test_an_unknown_row_is_named() -> None:
    argv = [sys.executable, "-m", "bench.profile", "--rows", "99"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "no profile of row '99'" in done.stderr
