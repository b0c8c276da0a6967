"""`python -m bench [--rows 1,3,8] [--seconds N] [--json FILE]`: prints the table of what a delivery costs here.

Exit codes: 0 every bar met, 1 it could not run, 98 a row is invalid, 99 a bar was missed or a delivery was wrong.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.lab import Lab, say
from bench.machine import BenchError, describe, require_cores
from bench.result import Row
from bench.rows import ROWS, Spec, select
from bench.servers import NODE_FLAGS, redis_server, server_version, valkey_server
from bench.table import remarks, table


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    try:
        specs = select(options.rows)
        require_cores()
        with tempfile.TemporaryDirectory(prefix="hiroba-bench-") as directory:
            lab = Lab(Path(directory), options.seconds)
            about = _about(lab)
            rows = [_measured(lab, spec) for spec in specs]
    except BenchError as exc:
        say(f"bench: {exc}")
        return 1
    except KeyboardInterrupt:
        return 130
    sys.stdout.write(table(rows) + "\n" + remarks(rows))
    if options.json:
        options.json.write_text(json.dumps(_report(about, rows, lab), indent=1, ensure_ascii=False) + "\n")
    return exit_code(rows)


def exit_code(rows: Sequence[Row]) -> int:
    verdicts = {row.verdict for row in rows}
    if verdicts & {"failed", "missed"}:
        return 99
    return 98 if "invalid" in verdicts else 0


def _measured(lab: Lab, spec: Spec) -> Row:
    """One row. What keeps it from being measured is told in it; the others go on."""
    row = Row(spec.name, spec.work)
    say(f"row {spec.name}: {spec.work}")
    began = time.monotonic()
    try:
        spec.measure(lab, row)
    except BenchError as exc:
        row.invalid.append(str(exc))
    say(f"    {row.verdict}, {time.monotonic() - began:.0f} s")
    return row


def _about(lab: Lab) -> dict[str, Any]:
    return {
        "began_unix_s": int(time.time()),
        "machine": describe(),
        "brokers": {"plain": server_version(redis_server()), "shipped valkey.conf": server_version(valkey_server())},
        "node_flags": NODE_FLAGS,
        "settings_not_default": lab.settings.changed,
        "seconds": lab.seconds,
    }


def _report(about: dict[str, Any], rows: Sequence[Row], lab: Lab) -> dict[str, Any]:
    measured = [
        {**asdict(row), "multiple": row.multiple, "verdict": row.verdict, "met": [bar.met for bar in row.bars]}
        for row in rows
    ]
    return {"schema": 1, **about, "rows": measured, "runs": lab.runs}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="What a delivery costs on this machine.")
    names = ",".join(spec.name for spec in ROWS)
    parser.add_argument("--rows", type=_rows, default="", help=f"which of {names} (all); 1 is 1, 1z and 1v")
    parser.add_argument("--seconds", type=float, default=10.0, help="the measured window of a steady row (10)")
    parser.add_argument("--json", type=Path, help="also write machine, settings, rows and every run to this file")
    return parser


def _rows(names: str) -> str:
    try:
        select(names)
    except KeyError as exc:
        raise argparse.ArgumentTypeError(f"there is no row {exc.args[0]}") from exc
    return names


if __name__ == "__main__":
    sys.exit(main())
