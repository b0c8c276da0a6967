"""The HTML report: one file that needs no network. The result goes in as JSON, report.js draws it."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from loadtest.result import SCHEMA
from loadtest.spec import BadSpec


def render(result: dict[str, Any]) -> str:
    """The whole page. Nothing of the result can end the script element that holds it."""
    page = _file("report.html")
    data = json.dumps(result, ensure_ascii=False).replace("<", "\\u003c")
    for mark, text in (
        ("/*UPLOT_CSS*/", _file("uPlot.min.css")),
        ("/*REPORT_CSS*/", _file("report.css")),
        ("/*UPLOT_JS*/", _file("uPlot.iife.min.js")),
        ("/*REPORT_JS*/", _file("report.js")),
        ("/*RESULT*/", data),
    ):
        page = page.replace(mark, text, 1)
    return page


def write_again(source: Path, target: Path | None) -> Path:
    """The page of a stored result. Raises BadSpec if the file is none."""
    try:
        result = json.loads(source.read_text("utf-8"))
    except OSError as exc:
        raise BadSpec(f"{source} can't be read: {exc.strerror}") from exc
    except ValueError as exc:
        raise BadSpec(f"{source} is no JSON: {exc}") from exc
    if not isinstance(result, dict) or result.get("schema") != SCHEMA:
        schema = result.get("schema") if isinstance(result, dict) else None
        raise BadSpec(f"{source} is no result of this version: its schema is {schema!r}, not {SCHEMA!r}")
    target = target or source.with_suffix(".html")
    try:
        target.write_text(render(result), "utf-8")
    except OSError as exc:
        raise BadSpec(f"{target} can't be written: {exc.strerror}") from exc
    return target


def _file(name: str) -> str:
    return files(__name__).joinpath(name).read_text("utf-8")
