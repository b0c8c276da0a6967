"""The driver, and a floor that can lie: compiled once."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.machine import build
from tests.support.need import need_tool

LIES = Path(__file__).parent / "lies.h"


@dataclass(frozen=True)
class Programs:
    driver: Path
    floor: Path
    liar: Path


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    need_tool("cc", "gcc libc6-dev zlib1g-dev")
    honest, lying = tmp_path_factory.mktemp("honest"), tmp_path_factory.mktemp("lying")
    return Programs(
        build("driver", honest, "-Werror"),
        build("floor", honest, "-Werror"),
        build("floor", lying, "-Werror", f'-DLIES="{LIES}"'),
    )
