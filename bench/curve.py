"""`python -m bench.curve [--rates 1000,2000,…]`: latency and CPU over load, for decision 0003 (adaptive gather).

200 rooms × 5; each rate on a fresh node and broker. How long calls gather is the node's own metric, at the end.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from bench.lab import Lab
from bench.machine import BenchError, require_cores
from bench.result import Row, figure
from bench.rows import MANY_ROOMS
from bench.table import aligned

RATES = (500, 1000, 2000, 4000, 8000, 12_000, 16_000, 20_000, 24_000, 28_000, 32_000)
HEAD = ("msg/s", "gather ms", "entries per write", "p50 ms", "p99 ms", "node", "broker", "node µs per delivery")


def main() -> int:
    """Print a line for each rate."""
    parser = argparse.ArgumentParser(prog="python -m bench.curve", description="Latency and CPU over load.")
    parser.add_argument("--rates", default=",".join(map(str, RATES)), help="messages per second")
    options = parser.parse_args()
    try:
        require_cores()
        with tempfile.TemporaryDirectory(prefix="hiroba-curve-") as directory:
            lab = Lab(Path(directory), seconds=6.0)
            lines = [_line(lab, float(rate)) for rate in options.rates.split(",")]
    except BenchError as exc:
        sys.stderr.write(f"curve: {exc}\n")
        return 1
    sys.stdout.write(aligned([HEAD, *lines]))
    return 0


def _line(lab: Lab, rate: float) -> tuple[str, ...]:
    with lab.node() as server:
        at: dict[str, dict[str, float]] = {}

        def at_event(name: str) -> None:
            if name in ("begin", "end"):
                at[name] = server.metrics()

        work = MANY_ROOMS.at(rate, seconds=lab.seconds, settle=0.5, drain=5.0)
        run = lab.drive(Row("curve", f"{rate:,.0f}"), work, server, at_event=at_event)

    def grown(name: str) -> float:
        return at["end"][name] - at["begin"][name]

    entries = grown("hiroba_deliver_batch_entries_sum") / max(1.0, grown("hiroba_deliver_batch_entries_count"))
    return (
        f"{rate:,.0f}",
        figure(at["end"]["hiroba_gather_seconds"] * 1e3),
        figure(entries),
        figure(run.latency_ms("p50")),
        figure(run.latency_ms("p99")),
        *(f"{run.cpu_s(name) / run.span_s():.2f}" for name in ("node", "broker")),
        figure(run.us_per_delivery("node")),
    )


if __name__ == "__main__":
    sys.exit(main())
