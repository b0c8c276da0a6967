"""Runs `python -m loadtest` as its users do, and hands over what it printed and wrote."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Outcome:
    exit_code: int
    out: str
    err: str
    result: dict[str, Any]  # what --json wrote; empty if nothing

    @property
    def counts(self) -> dict[str, int]:
        return self.result["counts"]  # type: ignore[no-any-return]

    def assert_clean(self) -> None:
        """Nothing wrong with the server. (On a busy machine the generator may have been the limit.)"""
        assert self.exit_code in (0, 98), self.out + self.err
        assert all("generator" in reason for reason in self.result["reasons"]), self.result["reasons"]
        assert {name: self.counts[name] for name in ("lost", "doubled", "reordered", "foreign", "invented")} == {
            "lost": 0,
            "doubled": 0,
            "reordered": 0,
            "foreign": 0,
            "invented": 0,
        }


@dataclass
class Started:
    """A harness that runs. Its output goes to files: a pipe would stay open for as long as a worker lives."""

    process: asyncio.subprocess.Process
    directory: Path

    async def finish(self, within_s: float = 60.0) -> Outcome:
        try:
            async with asyncio.timeout(within_s):
                exit_code = await self.process.wait()
        finally:
            if self.process.returncode is None:
                self.process.kill()
                await self.process.wait()
        out, err, stored = (self.directory / name for name in ("out.txt", "err.txt", "result.json"))
        told = stored.read_text("utf-8") if stored.exists() else ""
        return Outcome(exit_code, out.read_text("utf-8"), err.read_text("utf-8"), json.loads(told or "{}"))


async def start(directory: Path, *arguments: str) -> Started:
    """`loadtest run …` with its JSON in `directory`; `finish` waits for it."""
    return await started(directory, "run", "--json", str(directory / "result.json"), *arguments)


async def started(directory: Path, *arguments: str) -> Started:
    """`loadtest …` as given."""
    command = (sys.executable, "-m", "loadtest", *arguments)
    with _new(directory / "out.txt") as out, _new(directory / "err.txt") as err:
        return Started(await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=out, stderr=err), directory)


async def run(directory: Path, *arguments: str, within_s: float = 60.0) -> Outcome:
    """The whole of `loadtest run …`, without its Prometheus port."""
    return await (await start(directory, "--prometheus-port", "0", *arguments)).finish(within_s)


def _new(path: Path) -> BinaryIO:
    path.parent.mkdir(exist_ok=True)
    return path.open("wb")
