"""The table for people: Markdown, padded, so that it reads well in a terminal and in a document."""

import unicodedata
from collections.abc import Sequence

from bench.result import Row, figure

HEAD = (
    "row",
    "work",
    "node µs",
    "floor µs",
    "×",
    "broker µs",
    "p50 / p99 ms",
    "floor p99",
    "figure",
    "bar",
    "verdict",
    "lost",
    "doubled",
)


def table(rows: Sequence[Row]) -> str:
    """Every row; µs are CPU per delivery."""
    return aligned([HEAD, *(cells(row) for row in rows)])


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """The first line is the head."""
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    printed = [_line(line, widths) for line in lines]
    printed.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(printed) + "\n"


def cells(row: Row) -> tuple[str, ...]:
    latency = "–" if row.p99_ms is None else f"{figure(row.p50_ms)} / {figure(row.p99_ms)}"
    return (
        row.name,
        row.work,
        figure(row.node_us),
        figure(row.floor_us),
        figure(row.multiple),
        figure(row.broker_us),
        latency,
        figure(row.floor_p99_ms),
        row.figure or "–",
        "; ".join(map(str, row.bars)) or "–",
        row.verdict,
        str(row.lost),
        str(row.doubled),
    )


def remarks(rows: Sequence[Row]) -> str:
    """Below the table: what was missed by how much, what went wrong, what limits a figure."""
    lines = []
    for row in rows:
        for bar in row.bars:
            if not bar.met:
                lines.append(f"row {row.name}: missed {bar}: {figure(bar.value)}{bar.unit}")
        lines += [f"row {row.name}: {text}" for text in (*row.wrongs, *row.invalid, *row.notes)]
    busiest = max((row.driver_share for row in rows), default=0.0)
    lines.append(f"busiest driver: {busiest:.2f} of its core")
    return "\n".join(lines) + "\n"


def _line(line: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell + " " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True))
    return "| " + " | ".join(padded) + " |"


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
