"""Runs `python -m loadtest` as its users do, and hands over what it printed and wrote."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


async def start(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "loadtest",
        *arguments,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def run(directory: Path, *arguments: str, within_s: float = 60.0) -> Outcome:
    """`loadtest run …` without its Prometheus port, with its JSON."""
    process = await start("run", "--prometheus-port", "0", "--json", str(directory / "result.json"), *arguments)
    return await finish(process, directory, within_s)


async def finish(process: asyncio.subprocess.Process, directory: Path, within_s: float = 60.0) -> Outcome:
    try:
        async with asyncio.timeout(within_s):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    stored = directory / "result.json"
    result = json.loads(stored.read_text("utf-8")) if stored.exists() else {}
    return Outcome(process.returncode, out.decode(), err.decode(), result)
