"""Log lines: JSON for machines, short lines for a person who looks. Metrics are in `metrics.py`.

Everything goes to standard error: standard output belongs to what a command was asked to print (`hiroba
config`, a report). A line is one write of at most LINE_BYTES_MAX bytes of UTF-8, whatever the locale, so that
lines of several processes on one pipe never mix; what is too long is cut, and the field `cut` says where. A
reader of that pipe that stops reading stops the node: give logs to something that reads.

Modules log with `structlog.get_logger()`: an event in plain words, facts as fields. What clients do is
logged with `access` only. Lines of libraries (aiohttp, asyncio, redis), warnings and the last words of a
crash take the same road. Of one kind there are so many in a minute and no more (`repeats.py`). No line holds
a URL's password, a control character or a line break.
"""

import json
import logging
import os
import re
import sys
import traceback
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from gateway.settings.model import Settings
from gateway.settings.urls import masked
from gateway.telemetry.repeats import Repeats

# The event of the line that says what somebody ordered (broker/control.py).
ORDER = "order"
# The event of the line that says what was done by the API, and with whose key.
AUDIT = "api"
# Tells apart, in the renderers, what was logged by `access`.
_HTTP, _WEBSOCKET, _SSE, _STREAM = "http", "websocket", "sse", "stream"
_ACCESS = (_HTTP, _WEBSOCKET, _SSE, _STREAM)
_SHOWN = {_WEBSOCKET: "WebSocket", _SSE: "SSE"}


def setup(settings: Settings, node: str = "") -> None:
    """Configure logging of this process; may be called again. `node` becomes a field of every line."""
    people = settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty())
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    access.people = people
    access.on = level <= logging.INFO

    def add_node(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {**event, "node": node} if node else event

    structlog.configure(
        processors=[
            _bounded(Repeats()),
            structlog.processors.add_log_level,
            add_node,
            _exception,
            _plain,
            _Fitting(_Console(color=sys.stderr.isatty()) if people else _to_json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_Stderr,
        # Loggers of modules live longer than this configuration; a line is too rare to be worth caching for.
        cache_logger_on_first_use=False,
    )
    _take_over_stdlib(level)


class Access:
    """What the outside did. For people the lines of the Channels tutorial's server; in JSON only those
    worth keeping.

    `peer` is `address:port`. Logs nothing until `setup`, and nothing above level info.
    """

    def __init__(self) -> None:
        self.on = False
        self.people = False
        self._log = structlog.get_logger()

    def http(self, method: str, path: str, status: int, seconds: float, peer: str) -> None:
        """An answered HTTP request: `HTTP GET /chat/demoroom/ 200 [0.02, 127.0.0.1:56379]`."""
        if self.on:
            self._log.info(_HTTP, method=method, path=path, status=status, seconds=round(seconds, 6), peer=peer)

    def ws(self, step: str, path: str, peer: str, **facts: object) -> None:
        """A step of a WebSocket: HANDSHAKING, CONNECT, REJECT or DISCONNECT.

        `facts` of REJECT say why; those of DISCONNECT make the canonical line of the connection (session,
        room, reason, seconds open, frames and bytes each way). JSON has these two steps only.
        """
        self._step(_WEBSOCKET, step, path, peer, facts)

    def sse(self, step: str, path: str, peer: str, **facts: object) -> None:
        """A step of an event stream: CONNECT, REJECT or DISCONNECT, with the same facts."""
        self._step(_SSE, step, path, peer, facts)

    def stream(self, step: str, path: str, peer: str, **facts: object) -> None:
        """The same of a Durable Stream: its event streams, and every request that is refused."""
        self._step(_STREAM, step, path, peer, facts)

    def _step(self, event: str, step: str, path: str, peer: str, facts: dict[str, object]) -> None:
        if self.on and (self.people or step in ("REJECT", "DISCONNECT")):
            self._log.info(event, step=step, path=path, peer=peer, **facts)


access = Access()


# ---- processors ----


def _bounded(repeats: Repeats) -> Processor:
    """All lines but those of `access`, of orders and of the audit: there is one for each connection, request or order,
    and each is somebody's."""

    def bounded(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        return event if event.get("event") in (*_ACCESS, ORDER, AUDIT) else repeats(logger, method, event)

    return bounded


def _exception(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """`exc_info` as text. Without local variables: they may be secrets."""
    given = event.pop("exc_info", None)
    if given is True:
        given = sys.exc_info()
    elif isinstance(given, BaseException):
        given = (type(given), given, given.__traceback__)
    if given and given[0]:
        event["exception"] = "".join(traceback.format_exception(*given)).rstrip()
    return event


def _plain(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {key: _as_plain(value) for key, value in event.items()}


def _as_plain(value: Any) -> Any:
    """`value` in JSON's types, passwords masked wherever they hide: exceptions, lists, objects."""
    if isinstance(value, str):
        return masked(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict):
        return {str(key): _as_plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_as_plain(part) for part in value]
    if isinstance(value, BaseException):
        return masked(f"{type(value).__name__}: {value}".removesuffix(": "))
    return masked(str(value))


# ---- renderers ----

# Writes to one pipe by several processes don't mix up to PIPE_BUF bytes each: 4,096 on Linux (pipe(7)).
LINE_BYTES_MAX = 4_096
# What a value may keep: first what leaves space for the other fields of any line of ours, then less and less.
_KEPT_CHARS = (3_000, 1_500, 700, 300, 100, 30)
# A line of which even that is too much keeps these.
_HEAD = ("level", "event", "node")


class _Fitting:
    """`render`'s line as bytes, its end included. Long values lose their middle, for a path or a traceback says
    most at its ends; `cut` names them."""

    def __init__(self, render: Processor) -> None:
        self._render = render

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> bytes:
        def line_of(event: EventDict) -> bytes:
            line = self._render(logger, method, {**event})
            assert isinstance(line, str)
            return line.encode() + b"\n"

        line = line_of(event)
        for chars in _KEPT_CHARS:
            if len(line) <= LINE_BYTES_MAX:
                return line
            line = line_of(_cut(event, chars))
        if len(line) <= LINE_BYTES_MAX:
            return line
        return line_of({**_cut({key: event[key] for key in _HEAD if key in event}, chars), "cut": "all other fields"})


def _cut(event: EventDict, chars: int) -> EventDict:
    """`event` with no value of more characters than these and the mark."""
    short, half, names = {**event}, chars // 2, []
    for key, value in event.items():
        text = json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value
        if isinstance(text, str) and len(text) > chars:
            short[key] = f"{text[:half]}[… {len(text) - 2 * half:,} characters cut …]{text[-half:]}"
            names.append(key)
    return {**short, "cut": names}


# JSON allows these raw in a string, but they end a line, or steer a terminal, or are not UTF-8.
_UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def _to_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    head = {"timestamp": _now().isoformat(timespec="milliseconds").replace("+00:00", "Z")}
    for key in ("level", "event", "node"):
        if key in event:
            head[key] = event.pop(key)
    line = json.dumps({**head, **event}, ensure_ascii=False)
    # Of what json leaves as it is, only DEL is ASCII and cannot be printed.
    return line if line.isascii() and line.isprintable() else _UNSAFE_IN_JSON.sub(_escape, line)


class _Console:
    """`10:03:07 event  key=value …`; warnings and errors say so, a traceback follows indented."""

    def __init__(self, color: bool) -> None:
        self._color = color

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> str:
        level, exception = event.pop("level", "info"), event.pop("exception", None)
        text = _safe(_event_text(event))
        loud = "" if level in ("info", "debug") else f"{level}: "
        facts = " ".join(f"{_safe(key)}={_safe(_as_fact(value))}" for key, value in event.items())
        if self._color:
            loud = loud and f"\x1b[{33 if level == 'warning' else 31}m{loud}\x1b[0m"
            facts = facts and f"\x1b[2m{facts}\x1b[0m"
        line = f"{_now().astimezone():%H:%M:%S} {loud}{text}{facts and '  '}{facts}"
        return line if exception is None else "\n    ".join([line, *map(_safe, exception.split("\n"))])


def _event_text(event: EventDict) -> str:
    """The event; for `access` lines as the tutorial's server words them. Takes out the fields that it
    shows."""
    name = event.pop("event", "")
    if name == _HTTP and "method" in event:
        shown = {key: event.pop(key) for key in ("method", "path", "status", "seconds", "peer")}
        event.pop("node", None)
        return "HTTP {method} {path} {status} [{seconds:.2f}, {peer}]".format(**shown)
    if name in (_WEBSOCKET, _SSE) and "step" in event:
        shown = {key: event.pop(key) for key in ("step", "path", "peer")}
        event.pop("node", None)
        return f"{_SHOWN[name]} {{step}} {{path}} [{{peer}}]".format(**shown)
    return str(name)


def _as_fact(value: object) -> str:
    if isinstance(value, str) and value and not re.search(r'[\s="]', value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _safe(text: str) -> str:
    return text if text.isascii() and text.isprintable() else _UNSAFE.sub(_escape, text)


def _now() -> datetime:
    return datetime.now(UTC)


# ---- the way out ----


class _Stderr:
    """Looks standard error up each time; what Python would put between (a buffer, the locale) stays out."""

    def __init__(self, *_args: object) -> None:
        pass

    def msg(self, line: bytes) -> None:
        with suppress(OSError):  # the terminal is gone: that must not keep a node from draining
            fd = sys.stderr.fileno()
            while line:  # a pipe takes all of it at once; a socket (journald's) that a signal interrupts may not
                line = line[os.write(fd, line) :]

    debug = info = warning = error = critical = exception = msg


class _FromStdlib(logging.Handler):
    """Hands the records of libraries on."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception:  # a library's wrong format string must not cost a line
            text = str(record.msg)
        # structlog knows the named levels only.
        level = max(logging.DEBUG, min(logging.CRITICAL, record.levelno // 10 * 10))
        # Its text without its facts: a library's facts may be a client's.
        kind = f"{record.name}: {str(record.msg).partition(chr(10))[0]}"
        structlog.get_logger().log(level, text, kind=kind, logger=record.name, exc_info=record.exc_info)


def _take_over_stdlib(level: int) -> None:
    root = logging.getLogger()
    root.handlers = [_FromStdlib()]
    # Libraries tell their inner life at info; wanted only by who asks for debug.
    root.setLevel(level if level == logging.DEBUG else max(level, logging.WARNING))
    logging.captureWarnings(True)
    sys.excepthook = _last_words
    sys.unraisablehook = _unraisable


def _last_words(kind: type[BaseException], exc: BaseException, trace: TracebackType | None) -> None:
    """An exception that nobody caught: one line as any other, masked as any other."""
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, exc, trace)
        return
    structlog.get_logger().critical("crashed", exc_info=(kind, exc, trace))


def _unraisable(what: "sys.UnraisableHookArgs") -> None:
    """An exception with nobody above it, in `__del__` say: Python's own words would be many lines."""
    exc_info = what.exc_value and (what.exc_type, what.exc_value, what.exc_traceback)
    structlog.get_logger().error(what.err_msg or "exception ignored", at=repr(what.object), exc_info=exc_info)
