"""Finds what `-f`, class names, `--set` and `--shape` name, and says in one sentence when it can't."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from loadtest.scenarios import BUILT_IN
from loadtest.shapes import SHAPES, Built, LoadTestShape
from loadtest.spec import BadSpec, Spec
from loadtest.users import Action, User, tasks_of


@dataclass(frozen=True)
class Scenario:
    kinds: list[type[User]]
    tasks: list[tuple[list[Action], list[int]]]  # actions and weights, by class
    shape: type[LoadTestShape] | None  # the file's own


def load(spec: Spec) -> Scenario:
    """The user classes of a run. Raises BadSpec."""
    kinds: list[type[User]] = []
    shape: type[LoadTestShape] | None = None
    for source in spec.sources:
        found, found_shape = _from_source(source)
        kinds += [kind for kind in found if kind not in kinds]
        shape = found_shape or shape
    kinds = _chosen(kinds, spec.classes)
    for assignment in spec.set:
        _assign(kinds, *assignment)
    tasks = [tasks_of(kind, spec.tags, spec.exclude_tags) for kind in kinds]
    if (spec.tags or spec.exclude_tags) and not any(actions for actions, _ in tasks):
        raise BadSpec("the tags leave no task to do")
    if spec.rate is None:
        for kind, (actions, _) in zip(kinds, tasks, strict=True):
            if actions and kind.wait_time is None:
                raise BadSpec(f"{kind.__name__} has tasks and no wait_time: give it one, or give --rate")
    return Scenario(kinds, tasks, shape)


def shape_of(spec: Spec, own: type[LoadTestShape] | None) -> LoadTestShape:
    """The shape that `--shape` names (`steps`, `spike:base=0.5`), else the file's own, else constant."""
    if not spec.shape and own is not None:
        return _called(own, f"the shape {own.__name__}")
    name, _, options = (spec.shape or "constant").partition(":")
    if name not in SHAPES:
        raise BadSpec(_unknown("shape", name, SHAPES))
    if spec.duration_s is None:
        raise BadSpec("a built-in shape needs a --run-time")
    shape = SHAPES[name](spec.users, spec.spawn_rate, spec.duration_s)
    known = [f.name for f in fields(shape) if f.name not in [g.name for g in fields(Built)]]
    for option in filter(None, options.split(",")):
        key, _, value = option.partition("=")
        if key not in known:
            raise BadSpec(_unknown(f"option of the shape {name}", key, known))
        setattr(shape, key, _converted(key, value, getattr(shape, key)))
    return shape


def _from_source(source: str) -> tuple[list[type[User]], type[LoadTestShape] | None]:
    if source in BUILT_IN:
        return list(BUILT_IN[source]), None
    path = Path(source)
    if not path.suffix and not path.exists():
        raise BadSpec(_unknown("scenario", source, BUILT_IN))
    module = _imported(path)
    own = [c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == module.__name__]
    kinds = [c for c in own if issubclass(c, User)]
    shapes = [c for c in own if issubclass(c, LoadTestShape)]
    if not kinds:
        raise BadSpec(f"{source} defines no User class")
    return kinds, shapes[-1] if shapes else None


def _imported(path: Path) -> ModuleType:
    if not path.is_file():
        raise BadSpec(f"there is no scenario file {path}")
    found = importlib.util.spec_from_file_location(f"scenario_{path.stem}", path)
    if found is None or found.loader is None:
        raise BadSpec(f"{path} is no Python file")
    module = importlib.util.module_from_spec(found)
    try:
        found.loader.exec_module(module)
    except Exception as exc:
        where = _line_in(path, exc)
        raise BadSpec(f"the scenario file {path} fails{where}: {type(exc).__name__}: {exc}") from exc
    return module


def _line_in(path: Path, exc: Exception) -> str:
    if isinstance(exc, SyntaxError):
        return f" at line {exc.lineno}"
    lines = []
    trace = exc.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename) == path:
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return f" at line {lines[-1]}" if lines else ""


def _chosen(kinds: list[type[User]], names: Sequence[str]) -> list[type[User]]:
    known = {kind.__name__: kind for kind in kinds}
    for name in names:
        if name not in known:
            raise BadSpec(_unknown("user class", name, known))
    return [known[name] for name in names] if names else kinds


def _assign(kinds: list[type[User]], name: str, text: str) -> None:
    """--set every_s=5: on every class that has the attribute."""
    owners = [kind for kind in kinds if hasattr(kind, name) and not callable(getattr(kind, name))]
    if not owners or name.startswith("_"):
        known = [n for kind in kinds for n in dir(kind) if not n.startswith("_") and not callable(getattr(kind, n))]
        raise BadSpec(_unknown("attribute of these users", name, known))
    # read_bytes_s=4000 means those who are slow readers, not everyone who could be one.
    for kind in [kind for kind in owners if getattr(kind, name) is not None] or owners:
        setattr(kind, name, _converted(name, text, getattr(kind, name)))


def _converted(name: str, text: str, now: Any) -> Any:
    kind = type(now) if isinstance(now, int | float | str) else float
    if kind is bool:
        return text.lower() in ("1", "true", "yes", "on")
    try:
        return kind(text)
    except ValueError:
        raise BadSpec(f"{name}={text!r}: that should be {kind.__name__}, as {now!r} is") from None


def _called(kind: Callable[[], LoadTestShape], what: str) -> LoadTestShape:
    try:
        return kind()
    except Exception as exc:
        raise BadSpec(f"{what} fails: {type(exc).__name__}: {exc}") from exc


def _unknown(what: str, name: str, known: Any) -> str:
    near = get_close_matches(name, list(known), 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(set(known)))}"
    return f"unknown {what} {name!r}: {hint}"
